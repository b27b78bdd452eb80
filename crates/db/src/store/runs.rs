use std::time::Duration;

use async_trait::async_trait;
use musterbeat_core::id::{Fence, RunId, WorkerId};
use musterbeat_core::port::{Reach, RunStore, StoreError, WriteError};
use musterbeat_core::run::{Admission, Run, RunEnd, RunKind, RunStatus, storable_error};

use super::PgStore;
use crate::error::failed;
use crate::metrics::READY_TO_RUNNING;
use crate::runs::{self, Transition};

#[async_trait]
impl RunStore for PgStore {
    async fn claim(
        &self,
        worker: WorkerId,
        kind: &RunKind,
        limit: u32,
    ) -> Result<Vec<Run>, StoreError> {
        const CLAIM: &str = "claim runs";
        let mut conn = self.acquire(CLAIM).await?;
        let claimed =
            runs::claim(&mut conn, worker, kind, limit, None).await.map_err(failed(CLAIM))?;
        let waited = metrics::histogram!(READY_TO_RUNNING.name, "kind" => kind.to_string());
        let runs = claimed.into_iter().map(|claimed| {
            waited.record(claimed.waited);
            claimed.run
        });
        Ok(runs.collect())
    }

    async fn next_ready(&self, kind: &RunKind) -> Result<Option<Duration>, StoreError> {
        const NEXT: &str = "look for the next ready run";
        let mut conn = self.acquire(NEXT).await?;
        runs::next_ready(&mut conn, kind, None).await.map_err(failed(NEXT))
    }

    async fn finish(&self, run: &Run, end: RunEnd) -> Result<(), WriteError> {
        const FINISH: &str = "finish a run";
        let mut tx = self.begin(FINISH).await?;
        let locked = runs::lock(&mut tx, run.id, &run.kind, Reach::Everything)
            .await
            .map_err(failed(FINISH))?;
        let Some(locked) = locked else { return Err(WriteError::Fenced) };
        match locked.ownership.admit(&run.token) {
            Admission::Fenced => return Err(WriteError::Fenced),
            Admission::Repeated => return Ok(()),
            Admission::Write => {}
        }
        runs::write(&mut tx, run.id, &ending(end), None).await.map_err(failed(FINISH))?;
        tx.commit().await.map_err(failed(FINISH))?;
        Ok(())
    }

    async fn release(
        &self,
        worker: WorkerId,
        runs: &[(RunId, Fence)],
    ) -> Result<Vec<RunId>, StoreError> {
        const RELEASE: &str = "release runs";
        let mut conn = self.acquire(RELEASE).await?;
        runs::release(&mut conn, worker, runs, None).await.map_err(failed(RELEASE))
    }
}

fn ending(end: RunEnd) -> Transition {
    let (status, error) = match end {
        RunEnd::Done => (RunStatus::Waiting, None),
        RunEnd::Failed(error) => (RunStatus::Error, Some(storable_error(&error))),
    };
    Transition { status, stop: false, error, by_owner: true }
}
