use std::time::Duration;

use async_trait::async_trait;
use musterbeat_core::id::{RunId, WorkerId};
use musterbeat_core::port::{Lease, LeaseStore, StoreError};
use sqlx::PgConnection;
use tokio::time::timeout;

use super::PgStore;
use crate::{runs, worker_leases};

/// Runs requeued by one statement: more would hold their locks for long.
const REQUEUE_BATCH: u32 = 500;

/// Pause before a requeue is tried again for runs that somebody holds locked.
const LOCKED_PAUSE: Duration = Duration::from_millis(50);

#[async_trait]
impl LeaseStore for PgStore {
    async fn register(&self, lease: &Lease) -> Result<(), StoreError> {
        let mut call = self.call("register the worker").await?;
        let registered =
            timeout(self.answer_time, worker_leases::insert(&mut call.conn, lease)).await;
        call.ended(registered)
    }

    async fn resign(&self, worker: WorkerId) -> Result<Vec<RunId>, StoreError> {
        let mut call = self.call("resign the worker's lease").await?;
        let resigned = timeout(self.answer_time, resign(&mut call.conn, worker)).await;
        call.ended(resigned)
    }
}

/// Three kinds of statement, each with its own snapshot: mark, requeue in batches, forget.
///
/// A lease is forgotten once it owns nothing: so what somebody held locked is waited for.
async fn resign(conn: &mut PgConnection, worker: WorkerId) -> sqlx::Result<Vec<RunId>> {
    worker_leases::mark_dead(conn, worker).await?;
    let mut requeued = Vec::new();
    loop {
        let batch = runs::requeue_of(conn, worker, REQUEUE_BATCH, None).await?;
        if !batch.is_empty() {
            requeued.extend(batch);
        } else if worker_leases::forget(conn, worker).await? {
            return Ok(requeued);
        } else {
            tokio::time::sleep(LOCKED_PAUSE).await;
        }
    }
}
