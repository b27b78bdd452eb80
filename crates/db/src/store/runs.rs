use std::time::Duration;

use async_trait::async_trait;
use musterbeat_core::id::{Fence, RunId, WorkerId};
use musterbeat_core::port::{Backlog, Reach, Room, RunQueue, RunStore, StoreError, WriteError};
use musterbeat_core::roster::RollEntry;
use musterbeat_core::run::{
    Admission, NewRun, Run, RunEnd, RunKind, RunState, RunStatus, storable_error,
};
use musterbeat_core::timestamp::Timestamp;
use sqlx::{Connection, PgConnection};
use tokio::time::timeout;

use super::PgStore;
use crate::error::failed;
use crate::metrics::READY_TO_RUNNING;
use crate::run_heartbeats;
use crate::runs::{self, Caps, Rank, Transition};

#[async_trait]
impl RunStore for PgStore {
    async fn claim(
        &self,
        worker: WorkerId,
        kind: &RunKind,
        room: Room,
    ) -> Result<Vec<Run>, StoreError> {
        const CLAIM: &str = "claim runs";
        let mut call = self.call_of_owner(CLAIM).await?;
        let caps = self.caps_of(kind);
        let claim = async {
            match caps {
                Some(caps) => runs::claim_within(&mut call.conn, worker, kind, room, caps).await,
                None if room.depth_min == 0 => {
                    runs::claim(&mut call.conn, worker, kind, room.runs, None).await
                }
                None => runs::claim_deep(&mut call.conn, worker, kind, room, None).await,
            }
        };
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
        let mut call = self.call_of_owner("look for the next ready run").await?;
        let next = next_ready(&mut call.conn, kind, self.caps_of(kind));
        let next = timeout(self.answer_time, next).await;
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
        let mut call = self.call_of_owner("release runs").await?;
        let release = runs::release(&mut call.conn, worker, runs, pause, None);
        let released = timeout(self.answer_time, release).await;
        call.ended(released)
    }

    async fn touch_runs(&self, worker: WorkerId) -> Result<Vec<RollEntry>, StoreError> {
        let mut call = self.call("stamp runs").await?;
        let touch = run_heartbeats::touch(&mut call.conn, worker, None);
        let touched = timeout(self.answer_time, touch).await;
        call.ended(touched)
    }

    async fn stale_runs(&self, before: Timestamp) -> Result<Vec<RunId>, StoreError> {
        let mut call = self.call("look for stale runs").await?;
        let stale = run_heartbeats::stale(&mut call.conn, before, STALE_MAX);
        let stale = timeout(self.answer_time, stale).await;
        call.ended(stale)
    }
}

#[async_trait]
impl RunQueue for PgStore {
    async fn submit(&self, run: &NewRun) -> Result<bool, StoreError> {
        let mut call = self.call("submit a run").await?;
        let insert = runs::insert(&mut call.conn, run.id, &run.kind, run.owner, None);
        let inserted = timeout(self.answer_time, insert).await;
        call.ended(inserted)
    }

    async fn get(&self, run: RunId, reach: Reach) -> Result<Option<RunState>, StoreError> {
        let mut call = self.call("read a run").await?;
        let got = timeout(self.answer_time, runs::get(&mut call.conn, run, reach)).await;
        call.ended(got)
    }

    async fn interrupt(&self, run: RunId, reach: Reach) -> Result<Option<RunState>, StoreError> {
        let mut call = self.call("interrupt a run").await?;
        let interrupt = interrupt(&mut call.conn, run, reach);
        let interrupted = timeout(self.answer_time, interrupt).await;
        call.ended(interrupted)
    }

    async fn backlog(&self, kind: &RunKind) -> Result<Backlog, StoreError> {
        let mut call = self.call("count the backlog").await?;
        let backlog = timeout(self.answer_time, runs::backlog(&mut call.conn, kind, None)).await;
        call.ended(backlog)
    }
}

/// Pause before a claim is worth another look that the caps left nothing: no notice tells of room.
const CAPPED_PAUSE: Duration = Duration::from_secs(1);

impl PgStore {
    /// Returns the caps of a kind, `None` when it has none.
    pub(super) fn caps_of(&self, kind: &RunKind) -> Option<Caps> {
        (*kind == RunKind::CHAT && self.chat_caps.is_any()).then_some(self.chat_caps)
    }
}

async fn next_ready(
    conn: &mut PgConnection,
    kind: &RunKind,
    caps: Option<Caps>,
) -> sqlx::Result<Option<Duration>> {
    let next = runs::next_ready(conn, kind, None).await?;
    match caps {
        Some(caps) if next == Some(Duration::ZERO) => {
            let allowed = runs::is_any_allowed(conn, kind, caps).await?;
            Ok(Some(if allowed { Duration::ZERO } else { CAPPED_PAUSE }))
        }
        _ => Ok(next),
    }
}

/// Stale runs that one call returns.
const STALE_MAX: u32 = 1_000;

/// Changes, and reads what there is then, so that a repeated call is answered alike.
async fn interrupt(
    conn: &mut PgConnection,
    run: RunId,
    reach: Reach,
) -> sqlx::Result<Option<RunState>> {
    runs::interrupt(conn, run, reach).await?;
    runs::get(conn, run, reach).await
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

/// Says what the end of a run writes to it.
pub(super) fn ending(end: RunEnd) -> Transition {
    let (status, error) = match end {
        RunEnd::Done => (RunStatus::Waiting, None),
        RunEnd::Failed(error) => (RunStatus::Error, Some(storable_error(&error))),
    };
    Transition { status, stop: false, error, fences: false, by_owner: true, rank: Rank::Last }
}
