//! Runs of kinds of one's own: asked for, watched and interrupted.

use std::sync::Arc;

use musterbeat_core::id::RunId;
use musterbeat_core::port::{Publish, Reach, RunQueue, StoreError, Topic};
use musterbeat_core::run::{NewRun, RunState, RunStatus};

/// Takes runs in and wakes a worker for each, after its commit. Clones share the ports.
///
/// A [`Runner`](musterbeat_core::port::Runner) of the same kind does the work.
#[derive(Clone)]
pub struct Runs {
    queue: Arc<dyn RunQueue>,
    publish: Arc<dyn Publish>,
}

impl Runs {
    /// Puts runs into `queue`.
    pub fn new(queue: Arc<dyn RunQueue>, publish: Arc<dyn Publish>) -> Self {
        Self { queue, publish }
    }

    /// Takes a run in, pending; returns false, changing nothing, when its id is taken.
    pub async fn submit(&self, run: &NewRun) -> Result<bool, StoreError> {
        let new = self.queue.submit(run).await?;
        // Also the second time: the wake of the first may have been lost.
        self.publish.publish(Topic::Pending, run.id.uuid());
        Ok(new)
    }

    /// Returns a run, `None` when it is not there or out of reach.
    pub async fn get(&self, run: RunId, reach: Reach) -> Result<Option<RunState>, StoreError> {
        self.queue.get(run, reach).await
    }

    /// Asks for a run to be stopped; see [`RunQueue::interrupt`].
    ///
    /// Its owner learns of it at once, or by its next beat at the latest.
    pub async fn interrupt(
        &self,
        run: RunId,
        reach: Reach,
    ) -> Result<Option<RunState>, StoreError> {
        let state = self.queue.interrupt(run, reach).await?;
        match state.as_ref().map(|state| state.status) {
            Some(RunStatus::Pending) => self.publish.publish(Topic::Pending, run.uuid()),
            Some(RunStatus::Interrupting) => self.publish.publish(Topic::Stop, run.uuid()),
            _ => {}
        }
        Ok(state)
    }
}
