use std::time::Duration;

use async_trait::async_trait;
use musterbeat_core::id::{RunId, WorkerId};
use musterbeat_core::port::{Lease, LeaseStore, Requeued, StoreError, WorkerState};
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
        let mut call = self.call_of_owner("register the worker").await?;
        let registered =
            timeout(self.answer_time, worker_leases::insert(&mut call.conn, lease)).await;
        call.ended(registered)
    }

    async fn resign(&self, worker: WorkerId) -> Result<Vec<RunId>, StoreError> {
        let mut call = self.call_of_owner("resign the worker's lease").await?;
        let resigned = timeout(self.answer_time, resign(&mut call.conn, worker)).await;
        call.ended(resigned)
    }

    async fn requeue(&self, attempts_max: u32) -> Result<Vec<Requeued>, StoreError> {
        let mut call = self.call_of_owner("requeue the runs of dead workers").await?;
        let requeue = runs::requeue(&mut call.conn, REQUEUE_BATCH, attempts_max, None);
        let requeued = timeout(self.answer_time, requeue).await;
        call.ended(requeued)
    }

    async fn forget(&self) -> Result<u64, StoreError> {
        let mut call = self.call_of_owner("forget dead leases").await?;
        let forgotten = timeout(self.answer_time, worker_leases::forget_all(&mut call.conn)).await;
        call.ended(forgotten)
    }

    async fn adopt(&self) -> Result<u64, StoreError> {
        let mut call = self.call_of_owner("adopt runs without a lease").await?;
        let adopted = timeout(self.answer_time, worker_leases::adopt(&mut call.conn)).await;
        call.ended(adopted)
    }

    async fn workers(&self) -> Result<Vec<WorkerState>, StoreError> {
        let mut call = self.call("list the workers").await?;
        let listed = timeout(self.answer_time, worker_leases::list(&mut call.conn)).await;
        call.ended(listed)
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
