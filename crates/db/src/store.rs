//! The ports, implemented: each method takes a connection and, where it does not say otherwise,
//! is one transaction.

mod activity;
mod builds;
mod chats;
mod diffs;
mod leases;
mod metadata;
mod models;
mod prebuilds;
mod runs;
mod templates;
mod tokens;
mod workspaces;

use std::sync::Arc;
use std::time::{Duration, Instant};

use musterbeat_core::chat::{QUEUE_MAX, SubagentPolicy};
use musterbeat_core::port::StoreError;
use sqlx::pool::PoolConnection;
use sqlx::{PgPool, Postgres};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::error::Elapsed;
use tokio::time::timeout;

use crate::error::{failed, silent};
use crate::metrics::POOL_WAIT;
use crate::runs::Caps;

/// How long the database may be silent within one call: longer than it lets a statement take.
const ANSWER_TIME: Duration = Duration::from_secs(35);

/// Connections of the pool that only calls about ownership take: a claim, or the recovery of a
/// dead worker's runs, does not queue behind what ten thousand runs read as they start.
const RESERVED: u32 = 2;

/// Storage on one PostgreSQL; implements every store port. Clones share the pool.
#[derive(Clone, Debug)]
pub struct PgStore {
    pool: PgPool,
    /// A place for each connection that is not reserved.
    places: Arc<Semaphore>,
    queue_max: u32,
    chat_caps: Caps,
    subagents: SubagentPolicy,
    answer_time: Duration,
}

impl PgStore {
    /// Stores on the database of `pool`, whose schema is up to date.
    pub fn new(pool: PgPool) -> Self {
        let places = pool.options().get_max_connections().saturating_sub(RESERVED).max(1);
        let places = Arc::new(Semaphore::new(places as usize));
        Self {
            pool,
            places,
            queue_max: QUEUE_MAX,
            chat_caps: Caps::default(),
            subagents: SubagentPolicy::DEFAULT,
            answer_time: ANSWER_TIME,
        }
    }

    /// Sets how many turns may wait in one chat's queue.
    #[must_use]
    pub fn with_queue_max(self, queue_max: u32) -> Self {
        Self { queue_max, ..self }
    }

    /// Sets how many chats may be at work at once; all replicas must agree.
    ///
    /// With any cap, claims of all workers come one after the other. A chat that waits for another
    /// is not counted.
    #[must_use]
    pub fn with_chat_caps(self, chat_caps: Caps) -> Self {
        Self { chat_caps, ..self }
    }

    /// Sets what chats may spawn, where their owners set nothing and at most; all replicas must
    /// agree.
    #[must_use]
    pub fn with_subagents(self, subagents: SubagentPolicy) -> Self {
        Self { subagents, ..self }
    }

    /// Sets how long the database may be silent within one call.
    #[must_use]
    pub fn with_answer_time(self, answer_time: Duration) -> Self {
        Self { answer_time, ..self }
    }

    /// Asks the database for a sign of life.
    pub async fn ping(&self) -> Result<(), StoreError> {
        let mut call = self.call("reach the database").await?;
        let query = sqlx::query!("select 1 as one").fetch_one(&mut *call.conn);
        let answer = timeout(self.answer_time, query).await;
        call.ended(answer)?;
        Ok(())
    }

    async fn call(&self, operation: &'static str) -> Result<Call, StoreError> {
        let asked = Instant::now();
        let place = timeout(
            self.pool.options().get_acquire_timeout(),
            Arc::clone(&self.places).acquire_owned(),
        );
        let place = place.await.map_err(|_| failed(operation)(sqlx::Error::PoolTimedOut))?;
        // Nobody closes the semaphore.
        self.connected(operation, asked, place.ok()).await
    }

    /// Begins a call about ownership, which has connections of its own to take.
    async fn call_of_owner(&self, operation: &'static str) -> Result<Call, StoreError> {
        self.connected(operation, Instant::now(), None).await
    }

    async fn connected(
        &self,
        operation: &'static str,
        asked: Instant,
        place: Option<OwnedSemaphorePermit>,
    ) -> Result<Call, StoreError> {
        let conn = self.pool.acquire().await.map_err(failed(operation));
        metrics::histogram!(POOL_WAIT.name).record(asked.elapsed());
        Ok(Call { conn: conn?, operation, ended: false, _place: place })
    }
}

/// A connection for one call.
///
/// Dropped before the call has ended, as when its caller gives up, the connection is closed:
/// back in the pool, it would hold its place for as long as the database is silent.
struct Call {
    conn: PoolConnection<Postgres>,
    operation: &'static str,
    ended: bool,
    /// Given back after the connection.
    _place: Option<OwnedSemaphorePermit>,
}

impl Call {
    /// Ends the call with what a statement returned in time.
    fn ended<T>(self, answer: Result<sqlx::Result<T>, Elapsed>) -> Result<T, StoreError> {
        let operation = self.operation;
        self.answered(answer)?.map_err(failed(operation))
    }

    /// Ends the call with what a statement returned in time, once its connection is back.
    ///
    /// The pool tests each connection that is given back, for a round trip, and nobody waits for
    /// that. Who makes call after call does, or would hold more connections than it has calls.
    async fn given_back<T>(
        mut self,
        answer: Result<sqlx::Result<T>, Elapsed>,
    ) -> Result<T, StoreError> {
        if answer.is_ok() {
            self.conn.return_to_pool().await;
        }
        self.ended(answer)
    }

    /// Ends the call with an answer of any sort, which came in time.
    fn answered<A>(mut self, answer: Result<A, Elapsed>) -> Result<A, StoreError> {
        let operation = self.operation;
        self.ended = answer.is_ok();
        answer.map_err(silent(operation))
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.ended {
            self.conn.close_on_drop();
        }
    }
}
