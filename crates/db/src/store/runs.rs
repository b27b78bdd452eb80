use std::time::Duration;

use async_trait::async_trait;
use musterbeat_core::id::{Fence, RunId, WorkerId};
use musterbeat_core::port::{Reach, RunStore, StoreError, WriteError};
use musterbeat_core::run::{Admission, Run, RunEnd, RunKind, RunStatus, storable_error};
use sqlx::{Connection, PgConnection};
use tokio::time::timeout;

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
        let mut call = self.call(CLAIM).await?;
        let claim = runs::claim(&mut call.conn, worker, kind, limit, None);
        let claimed = timeout(self.answer_time, claim).await;
        let claimed = call.ended(claimed)?;
        let waited = metrics::histogram!(READY_TO_RUNNING.name, "kind" => kind.to_string());
        let runs = claimed.into_iter().map(|claimed| {
            waited.record(claimed.waited);
            claimed.run
        });
        Ok(runs.collect())
    }

    async fn next_ready(&self, kind: &RunKind) -> Result<Option<Duration>, StoreError> {
        let mut call = self.call("look for the next ready run").await?;
        let next = timeout(self.answer_time, runs::next_ready(&mut call.conn, kind, None)).await;
        call.ended(next)
    }

    async fn finish(&self, run: &Run, end: RunEnd) -> Result<(), WriteError> {
        let mut call = self.call(FINISH).await?;
        let finished = timeout(self.answer_time, finish(&mut call.conn, run, end)).await;
        call.answered(finished)?
    }

    async fn release(
        &self,
        worker: WorkerId,
        runs: &[(RunId, Fence)],
        pause: Duration,
    ) -> Result<Vec<RunId>, StoreError> {
        let mut call = self.call("release runs").await?;
        let release = runs::release(&mut call.conn, worker, runs, pause, None);
        let released = timeout(self.answer_time, release).await;
        call.ended(released)
    }
}

const FINISH: &str = "finish a run";

async fn finish(conn: &mut PgConnection, run: &Run, end: RunEnd) -> Result<(), WriteError> {
    let mut tx = conn.begin().await.map_err(failed(FINISH))?;
    let locked =
        runs::lock(&mut tx, run.id, &run.kind, Reach::Everything).await.map_err(failed(FINISH))?;
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

fn ending(end: RunEnd) -> Transition {
    let (status, error) = match end {
        RunEnd::Done => (RunStatus::Waiting, None),
        RunEnd::Failed(error) => (RunStatus::Error, Some(storable_error(&error))),
    };
    Transition { status, stop: false, error, by_owner: true }
}
