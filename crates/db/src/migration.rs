//! Brings the schema up to date.

use std::time::{Duration, Instant};

use musterbeat_core::backoff::Backoff;
use sqlx::migrate::{Migration, Migrator};
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};

/// The migrations of this release, embedded.
pub static MIGRATOR: Migrator = {
    let mut migrator = sqlx::migrate!("./migrations");
    // Code of the release before starts on the schema of the next.
    migrator.ignore_missing = true;
    // A session that waits for sqlx's own lock holds a snapshot meanwhile, for which
    // `create index concurrently` waits: each would wait for the other.
    migrator.locking = false;
    migrator
};

/// Longest wait for a lock: everybody queues behind a waiting `ALTER TABLE`.
const LOCK_TIMEOUT: &str = "5s";

/// Longest wait of an index that is built concurrently: nobody queues behind it, and whoever gives
/// way has to build it anew.
const LOCK_TIMEOUT_CONCURRENTLY: &str = "10min";

/// Longest wait for a migration that others run, and for locks that others hold.
const TIME_MAX: Duration = Duration::from_mins(10);

/// Pauses between attempts.
const BACKOFF: Backoff =
    Backoff { delay_first: Duration::from_millis(100), delay_max: Duration::from_secs(2) };

/// Names the advisory lock of whoever migrates: "musterbe", as eight bytes.
const LOCK: i64 = i64::from_be_bytes(*b"musterbe");

/// The schema could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// No connection, or it was lost.
    #[error("failed to connect for migrating")]
    Connect(#[source] sqlx::Error),
    /// Somebody else migrates and does not come to an end.
    #[error("another process has been migrating for {} s; see what it waits for", TIME_MAX.as_secs())]
    Occupied,
    /// A migration failed, or others held their locks too long.
    #[error("failed to migrate the database")]
    Migrate(#[source] sqlx::migrate::MigrateError),
}

/// Applies the migrations that the database lacks; replicas that start together apply them once.
///
/// A connection of its own is used, whose settings and whose lock go with it.
pub async fn migrate(pool: &PgPool) -> Result<(), MigrateError> {
    migrate_by(&MIGRATOR, pool).await
}

async fn migrate_by(migrator: &Migrator, pool: &PgPool) -> Result<(), MigrateError> {
    let options = (*pool.connect_options()).clone().options([("statement_timeout", "0")]);
    let mut conn = PgConnection::connect_with(&options).await.map_err(MigrateError::Connect)?;
    let result = migrate_on(migrator, &mut conn).await;
    // A connection that fails to say goodbye is gone all the same.
    let _ = conn.close().await;
    result
}

async fn migrate_on(migrator: &Migrator, conn: &mut PgConnection) -> Result<(), MigrateError> {
    let deadline = Instant::now() + TIME_MAX;
    let mut attempt = 0;
    loop {
        let failure = if take_lock(conn).await.map_err(MigrateError::Connect)? {
            match apply(migrator, conn).await {
                Err(error) if gave_way(&error) => MigrateError::Migrate(error),
                result => return result.map_err(MigrateError::Migrate),
            }
        } else {
            MigrateError::Occupied
        };
        attempt += 1;
        let pause = BACKOFF.delay(attempt, rand::random());
        if Instant::now() + pause > deadline {
            return Err(failure);
        }
        tokio::time::sleep(pause).await;
    }
}

/// Takes the lock of this session, again if it is held already; false when another holds it.
async fn take_lock(conn: &mut PgConnection) -> sqlx::Result<bool> {
    sqlx::query_scalar!(r#"select pg_try_advisory_lock($1) as "taken!""#, LOCK)
        .fetch_one(conn)
        .await
}

/// Applies what is missing; this session holds the lock.
async fn apply(
    migrator: &Migrator,
    conn: &mut PgConnection,
) -> Result<(), sqlx::migrate::MigrateError> {
    for alike in migrator.iter().as_slice().chunk_by(|one, next| one.no_tx == next.no_tx) {
        let [.., last] = alike else { continue };
        if last.no_tx {
            wait_for_locks(conn, LOCK_TIMEOUT_CONCURRENTLY).await?;
            drop_broken_off(alike, conn).await?;
        } else {
            wait_for_locks(conn, LOCK_TIMEOUT).await?;
        }
        migrator.run_to(last.version, &mut *conn).await?;
    }
    Ok(())
}

async fn wait_for_locks(conn: &mut PgConnection, timeout: &str) -> sqlx::Result<()> {
    sqlx::query_scalar!("select set_config('lock_timeout', $1, false)", timeout)
        .fetch_one(conn)
        .await
        .map(drop)
}

/// Drops the indexes that these migrations name and that were broken off: invalid, they have their
/// names still.
///
/// A statement of its own for each, which a file cannot hold: all of a file is one transaction.
async fn drop_broken_off(migrations: &[Migration], conn: &mut PgConnection) -> sqlx::Result<()> {
    let words = migrations.iter().flat_map(|migration| {
        migration.sql.as_str().split(|c: char| !c.is_alphanumeric() && c != '_')
    });
    let words: Vec<_> = words.map(str::to_owned).collect();
    let drops = sqlx::query_scalar!(
        r#"
            select format('drop index concurrently %s', indexrelid::regclass) as "drop!"
            from pg_index
            join pg_class on pg_class.oid = indexrelid
            where not indisvalid and relname = any ($1) and pg_table_is_visible(indexrelid)
        "#,
        &words,
    )
    .fetch_all(&mut *conn)
    .await?;
    for drop in drops {
        sqlx::raw_sql(AssertSqlSafe(drop)).execute(&mut *conn).await?;
    }
    Ok(())
}

fn gave_way(error: &sqlx::migrate::MigrateError) -> bool {
    const LOCK_NOT_AVAILABLE: &str = "55P03";
    const DEADLOCK_DETECTED: &str = "40P01";
    use sqlx::migrate::MigrateError::{Execute, ExecuteMigration};
    let (Execute(source) | ExecuteMigration(source, _)) = error else { return false };
    let code = source.as_database_error().and_then(sqlx::error::DatabaseError::code);
    matches!(code.as_deref(), Some(LOCK_NOT_AVAILABLE | DEADLOCK_DETECTED))
}

#[cfg(test)]
mod tests;
