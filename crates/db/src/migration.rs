//! Brings the schema up to date.

use std::time::{Duration, Instant};

use musterbeat_core::backoff::Backoff;
use sqlx::migrate::Migrator;
use sqlx::{Connection, PgConnection, PgPool};

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
    let options = (*pool.connect_options())
        .clone()
        .options([("lock_timeout", LOCK_TIMEOUT), ("statement_timeout", "0")]);
    let mut conn = PgConnection::connect_with(&options).await.map_err(MigrateError::Connect)?;
    let result = migrate_on(&mut conn).await;
    // A connection that fails to say goodbye is gone all the same.
    let _ = conn.close().await;
    result
}

async fn migrate_on(conn: &mut PgConnection) -> Result<(), MigrateError> {
    let deadline = Instant::now() + TIME_MAX;
    let mut attempt = 0;
    loop {
        let failure = if take_lock(conn).await.map_err(MigrateError::Connect)? {
            match MIGRATOR.run(&mut *conn).await {
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

fn gave_way(error: &sqlx::migrate::MigrateError) -> bool {
    const LOCK_NOT_AVAILABLE: &str = "55P03";
    const DEADLOCK_DETECTED: &str = "40P01";
    use sqlx::migrate::MigrateError::{Execute, ExecuteMigration};
    let (Execute(source) | ExecuteMigration(source, _)) = error else { return false };
    let code = source.as_database_error().and_then(sqlx::error::DatabaseError::code);
    matches!(code.as_deref(), Some(LOCK_NOT_AVAILABLE | DEADLOCK_DETECTED))
}
