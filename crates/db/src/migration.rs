//! Brings the schema up to date.

use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::{Connection, PgPool};

/// The migrations of this release, embedded.
pub static MIGRATOR: Migrator = {
    let mut migrator = sqlx::migrate!("./migrations");
    // Code of the release before starts on the schema of the next.
    migrator.ignore_missing = true;
    migrator
};

/// Longest wait for a lock: everybody queues behind a waiting `ALTER TABLE`.
const LOCK_TIMEOUT: &str = "5s";

/// How often a migration gives way before it fails.
const ATTEMPTS_MAX: u32 = 12;

/// Pause before the next attempt.
const PAUSE: Duration = Duration::from_secs(1);

/// The schema could not be brought up to date.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// No connection.
    #[error("failed to connect for migrating")]
    Connect(#[source] sqlx::Error),
    /// A migration failed, or others held their locks too long.
    #[error("failed to migrate the database")]
    Migrate(#[source] sqlx::migrate::MigrateError),
}

/// Applies the migrations that the database lacks; replicas that start together apply them once.
///
/// A connection of its own is used, whose settings go with it.
pub async fn migrate(pool: &PgPool) -> Result<(), MigrateError> {
    let mut attempt = 1;
    loop {
        match migrate_once(pool).await {
            Err(MigrateError::Migrate(error)) if attempt < ATTEMPTS_MAX && gave_way(&error) => {
                attempt += 1;
                tokio::time::sleep(PAUSE).await;
            }
            result => return result,
        }
    }
}

async fn migrate_once(pool: &PgPool) -> Result<(), MigrateError> {
    let options = (*pool.connect_options())
        .clone()
        .options([("lock_timeout", LOCK_TIMEOUT), ("statement_timeout", "0")]);
    let mut conn =
        sqlx::PgConnection::connect_with(&options).await.map_err(MigrateError::Connect)?;
    let result = MIGRATOR.run(&mut conn).await.map_err(MigrateError::Migrate);
    // A connection that fails to say goodbye is gone all the same.
    let _ = conn.close().await;
    result
}

fn gave_way(error: &sqlx::migrate::MigrateError) -> bool {
    const LOCK_NOT_AVAILABLE: &str = "55P03";
    use sqlx::migrate::MigrateError::{Execute, ExecuteMigration};
    let (Execute(source) | ExecuteMigration(source, _)) = error else { return false };
    source.as_database_error().and_then(sqlx::error::DatabaseError::code).as_deref()
        == Some(LOCK_NOT_AVAILABLE)
}
