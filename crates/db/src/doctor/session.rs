//! A session that looks and never touches.

use std::io;
use std::time::Duration;

use musterbeat_core::finding::{Finding, Verdict};
use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio::time::timeout;

use crate::pool::ConnectError;

/// Why a check could not be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("the database did not answer within {} s", .0.as_secs_f32())]
    Silent(Duration),
    #[error("{}", words(.0))]
    Database(#[from] sqlx::Error),
}

impl Failure {
    fn code(&self) -> Option<String> {
        let Self::Database(error) = self else { return None };
        Some(error.as_database_error()?.code()?.into_owned())
    }

    fn is_undefined_table(&self) -> bool {
        self.code().as_deref() == Some("42P01")
    }

    fn remedy(&self) -> &'static str {
        match self.code().as_deref() {
            Some("42501") => "Examine as a role with the rights of pg_monitor and of the tables.",
            Some("42704" | "42883" | "42703") => {
                "Look by hand: this version of PostgreSQL does not know what the check asks for."
            }
            _ => "Examine again when the database answers.",
        }
    }
}

/// Returns what the database said, without what the driver adds.
fn words(error: &sqlx::Error) -> String {
    error.as_database_error().map_or_else(|| error.to_string(), |told| told.message().to_owned())
}

/// One connection, opened anew after a check that failed.
pub(super) struct Session {
    options: PgConnectOptions,
    answer_time: Duration,
    conn: Option<PgConnection>,
}

impl Session {
    pub(super) async fn connect(
        options: PgConnectOptions,
        answer_time: Duration,
    ) -> Result<Self, ConnectError> {
        let (host, port) = (options.get_host().to_owned(), options.get_port());
        let connecting = timeout(answer_time, PgConnection::connect_with(&options));
        let silent = |_| Err(sqlx::Error::Io(io::ErrorKind::TimedOut.into()));
        let conn = connecting.await.unwrap_or_else(silent);
        let conn = conn.map_err(|source| ConnectError::Connect { host, port, source })?;
        Ok(Self { options, answer_time, conn: Some(conn) })
    }

    /// Makes one check; one that fails is a finding, too.
    pub(super) async fn check(
        &mut self,
        name: &'static str,
        check: impl AsyncFnOnce(&mut Self) -> Result<Verdict, Failure>,
    ) -> Finding {
        let unmade = |failure: Failure| {
            let found = format!("This could not be examined: {failure}.");
            Verdict::warning(found, failure.remedy())
        };
        Finding { check: name, verdict: check(self).await.unwrap_or_else(unmade) }
    }

    /// Returns the answer to one question.
    ///
    /// The simple protocol prepares nothing, which a pooler in transaction mode would confuse,
    /// and makes one transaction of all that is sent at once.
    pub(super) async fn rows(&mut self, sql: &str) -> Result<Vec<PgRow>, Failure> {
        let millis = self.answer_time.as_millis();
        let guarded =
            format!("set transaction read only; set local statement_timeout = {millis}; {sql}");
        let mut conn = match self.conn.take() {
            Some(conn) => conn,
            None => timeout(self.answer_time, PgConnection::connect_with(&self.options))
                .await
                .map_err(|_| Failure::Silent(self.answer_time))??,
        };
        let asking = sqlx::raw_sql(AssertSqlSafe(guarded)).fetch_all(&mut conn);
        let rows = timeout(self.answer_time, asking)
            .await
            .map_err(|_| Failure::Silent(self.answer_time))??;
        // One that failed or is silent was dropped on the way.
        self.conn = Some(conn);
        Ok(rows)
    }

    /// Returns the one row that answers a question.
    pub(super) async fn row(&mut self, sql: &str) -> Result<PgRow, Failure> {
        let mut rows = self.rows(sql).await?;
        Ok(rows.pop().ok_or(sqlx::Error::RowNotFound)?)
    }

    /// Returns the rows of a table, `None` when there is no such table.
    pub(super) async fn rows_if_there(&mut self, sql: &str) -> Result<Option<Vec<PgRow>>, Failure> {
        match self.rows(sql).await {
            Ok(rows) => Ok(Some(rows)),
            Err(failure) if failure.is_undefined_table() => Ok(None),
            Err(failure) => Err(failure),
        }
    }
}
