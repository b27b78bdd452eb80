//! Beats, on a connection of their own.

use std::time::Duration;

use async_trait::async_trait;
use musterbeat_core::id::WorkerId;
use musterbeat_core::port::{BeatAnswer, BeatStore, StoreError};
use musterbeat_core::sighting::{Overdue, SeenLease};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::{Instant, timeout_at};

use crate::error::{failed, silent};
use crate::pool::{ConnectError, session_options};
use crate::worker_leases;

/// Keeps leases alive on one connection that is opened outside every pool.
///
/// It connects with the first call, and anew after each call that failed or was given up.
/// Beats are not flushed to disk: a database that crashes may forget the last ones, and those
/// who watch leases reckon with it.
#[derive(Debug)]
pub struct PgBeats {
    options: PgConnectOptions,
    answer_time: Duration,
    conn: Mutex<Option<PgConnection>>,
}

impl PgBeats {
    /// Meets the database at `url` for beats each `beat_interval`.
    ///
    /// A call, with its connecting, takes four fifths of the interval at most.
    ///
    /// # Errors
    /// Refuses what is no URL of PostgreSQL, and a remote one that says nothing about TLS.
    pub fn new(url: &str, beat_interval: Duration) -> Result<Self, ConnectError> {
        let answer_time = beat_interval.mul_f64(0.8);
        let options = session_options(url)?.application_name("musterbeat beat").options([
            ("synchronous_commit", "off".to_owned()),
            ("statement_timeout", answer_time.as_millis().to_string()),
            ("default_transaction_isolation", "read committed".to_owned()),
            ("timezone", "UTC".to_owned()),
        ]);
        Ok(Self { options, answer_time, conn: Mutex::default() })
    }

    async fn call(&self, operation: &'static str) -> Result<Call<'_>, StoreError> {
        let deadline = Instant::now() + self.answer_time;
        let mut place = self.conn.lock().await;
        // Taken out, so that a call which is given up takes its connection with it.
        let conn = match place.take() {
            Some(conn) => conn,
            None => timeout_at(deadline, PgConnection::connect_with(&self.options))
                .await
                .map_err(silent(operation))?
                .map_err(failed(operation))?,
        };
        Ok(Call { place, conn, operation, deadline })
    }
}

/// One call on the connection, which goes back to its place only after an answer.
struct Call<'a> {
    place: MutexGuard<'a, Option<PgConnection>>,
    conn: PgConnection,
    operation: &'static str,
    deadline: Instant,
}

impl Call<'_> {
    fn ended<T>(
        mut self,
        answer: Result<sqlx::Result<T>, tokio::time::error::Elapsed>,
    ) -> Result<T, StoreError> {
        let answer = answer.map_err(silent(self.operation))?.map_err(failed(self.operation))?;
        *self.place = Some(self.conn);
        Ok(answer)
    }
}

#[async_trait]
impl BeatStore for PgBeats {
    async fn beat(&self, worker: WorkerId) -> Result<BeatAnswer, StoreError> {
        let mut call = self.call("beat").await?;
        let beat = worker_leases::beat(&mut call.conn, worker, None);
        let answer = timeout_at(call.deadline, beat).await;
        call.ended(answer)
    }

    async fn look(&self, worker: WorkerId) -> Result<Vec<SeenLease>, StoreError> {
        let mut call = self.call("look at the leases").await?;
        let look = worker_leases::look(&mut call.conn, worker);
        let answer = timeout_at(call.deadline, look).await;
        call.ended(answer)
    }

    async fn mark(&self, overdue: &[Overdue], ttl: Duration) -> Result<Vec<WorkerId>, StoreError> {
        let mut call = self.call("mark leases dead").await?;
        let mark = worker_leases::mark_overdue(&mut call.conn, overdue, ttl, None);
        let answer = timeout_at(call.deadline, mark).await;
        call.ended(answer)
    }
}
