//! One question to the database, on a connection of its own.

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::{Connection, Executor, PgConnection, Postgres};
use tokio::time::timeout;

/// What the database's administrator sees.
pub(super) const APPLICATION_NAME: &str = "musterbeat doctor";

/// Why a check could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("the database did not answer within {} s", .0.as_secs_f32())]
    Silent(Duration),
    #[error("{}", words(.0))]
    Database(#[from] sqlx::Error),
}

impl Failure {
    pub(super) fn remedy(&self) -> &'static str {
        let Self::Database(error) = self else {
            return "Examine again when the database answers.";
        };
        match error.as_database_error().and_then(sqlx::error::DatabaseError::code).as_deref() {
            Some("42501") => "Examine as a role with the rights of pg_monitor.",
            // What a standby says to LISTEN.
            Some("55000" | "25006") => "Let `database_url` lead to the primary.",
            _ => "Examine again when the database answers.",
        }
    }
}

/// Returns what the database said, without what the driver adds.
fn words(error: &sqlx::Error) -> String {
    error.as_database_error().map_or_else(|| error.to_string(), |told| told.message().to_owned())
}

/// Waits for an answer as long as it may take.
pub(super) async fn answer<T>(
    limit: Duration,
    asking: impl Future<Output = sqlx::Result<T>>,
) -> Result<T, Failure> {
    Ok(timeout(limit, asking).await.map_err(|_| Failure::Silent(limit))??)
}

/// Connects, asks and returns the rows.
pub(super) async fn rows(
    options: &PgConnectOptions,
    limit: Duration,
    sql: &'static str,
) -> Result<Vec<PgRow>, Failure> {
    let mut conn = answer(limit, PgConnection::connect_with(options)).await?;
    let rows = answer(limit, sqlx::raw_sql(sql).fetch_all(&mut conn)).await;
    // The answer counts.
    let _ = answer(limit, conn.close()).await;
    rows
}

/// Asks for one row by the simple protocol, which leaves nothing behind in the session.
pub(super) async fn row<'c>(
    conn: impl Executor<'c, Database = Postgres>,
    limit: Duration,
    sql: &'static str,
) -> Result<PgRow, Failure> {
    answer(limit, sqlx::raw_sql(sql).fetch_one(conn)).await
}
