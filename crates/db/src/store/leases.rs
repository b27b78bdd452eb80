use async_trait::async_trait;
use musterbeat_core::id::{RunId, WorkerId};
use musterbeat_core::port::{Lease, LeaseStore, StoreError};

use super::PgStore;
use crate::error::failed;
use crate::{runs, worker_leases};

/// Runs requeued by one statement: more would hold their locks for long.
const REQUEUE_BATCH: u32 = 500;

#[async_trait]
impl LeaseStore for PgStore {
    async fn register(&self, lease: &Lease) -> Result<(), StoreError> {
        const REGISTER: &str = "register the worker";
        let mut conn = self.acquire(REGISTER).await?;
        worker_leases::insert(&mut conn, lease).await.map_err(failed(REGISTER))
    }

    /// Three kinds of statement, each with its own snapshot: mark, requeue in batches, forget.
    async fn resign(&self, worker: WorkerId) -> Result<Vec<RunId>, StoreError> {
        const RESIGN: &str = "resign the worker's lease";
        let mut conn = self.acquire(RESIGN).await?;
        worker_leases::mark_dead(&mut conn, worker).await.map_err(failed(RESIGN))?;
        let mut requeued = Vec::new();
        loop {
            let batch = runs::requeue_of(&mut conn, worker, REQUEUE_BATCH, None)
                .await
                .map_err(failed(RESIGN))?;
            if batch.is_empty() {
                break;
            }
            requeued.extend(batch);
        }
        worker_leases::forget(&mut conn, worker).await.map_err(failed(RESIGN))?;
        Ok(requeued)
    }
}
