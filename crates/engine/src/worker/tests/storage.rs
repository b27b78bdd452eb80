//! A table for the mocks to share, and calls that take time on either side of it.

use std::collections::BTreeMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Mutex, MutexGuard};

use musterbeat_core::id::{Fence, RunId, Step};
use musterbeat_core::port::{Backlog, MockRunQueue};
use musterbeat_core::roster::RollEntry;
use musterbeat_core::run::{Run, RunEnd, RunKind, Token};
use musterbeat_core::sighting::{Overdue, SeenLease};
use musterbeat_core::timestamp::Timestamp;

use super::*;

/// What the worker owns in the database's eyes, and what befalls the next calls.
#[derive(Default)]
pub(super) struct Storage {
    owned: Mutex<BTreeMap<RunId, (Fence, bool)>>,
    fences: Mutex<BTreeMap<RunId, i64>>,
    pub(super) others: Mutex<Vec<SeenLease>>,
    pub(super) away: AtomicBool,
    pub(super) marked: AtomicBool,
    /// The number of the first run of the next claim.
    pub(super) claim_from: Mutex<Option<u128>>,
    /// Time before the next calls reach the table, and after it until they are answered.
    pub(super) beat_lags: Mutex<VecDeque<(Duration, Duration)>>,
    pub(super) claim_lags: Mutex<VecDeque<(Duration, Duration)>>,
    /// Rung when a beat has reached the table.
    pub(super) beaten: Notify,
    /// Rung when a claim has reached the table.
    pub(super) claimed: Notify,
}

impl Storage {
    pub(super) fn table(&self) -> MutexGuard<'_, BTreeMap<RunId, (Fence, bool)>> {
        self.owned.lock().unwrap()
    }

    pub(super) fn others(&self) -> Vec<SeenLease> {
        self.others.lock().unwrap().clone()
    }

    pub(super) fn there(&self) -> Result<(), StoreError> {
        if self.away.load(Ordering::Relaxed) { Err(unavailable()) } else { Ok(()) }
    }

    /// Gives a run to the worker, under its next fence.
    pub(super) fn claimed(&self, id: u128, worker: WorkerId) -> Token {
        let mut fences = self.fences.lock().unwrap();
        let fence = fences.entry(run_id(id)).or_default();
        *fence += 1;
        self.table().insert(run_id(id), (Fence(*fence), false));
        Token { worker, fence: Fence(*fence), step: Step(0) }
    }

    /// Has somebody else own a run and give it back.
    pub(super) fn stolen(&self, id: u128) {
        *self.fences.lock().unwrap().get_mut(&run_id(id)).unwrap() += 2;
        self.table().remove(&run_id(id));
    }

    /// Has the database forget the commits that gave out fences.
    pub(super) fn forget_fences(&self) {
        self.fences.lock().unwrap().clear();
    }

    pub(super) fn interrupt(&self, id: u128) {
        self.table().get_mut(&run_id(id)).unwrap().1 = true;
    }

    pub(super) fn lease_of_another(&self, beat: i64) {
        let worker = WorkerId::new(Uuid::from_u128(2));
        let heartbeat_at = Timestamp::from_micros(beat).unwrap();
        *self.others.lock().unwrap() = vec![SeenLease { worker, heartbeat_at, dead: false }];
    }
}

fn next_lag(lags: &Mutex<VecDeque<(Duration, Duration)>>) -> (Duration, Duration) {
    lags.lock().unwrap().pop_front().unwrap_or_default()
}

/// A port whose calls take the time that the storage says.
pub(super) struct Lagging<S> {
    pub(super) inner: Arc<S>,
    pub(super) storage: Arc<Storage>,
}

#[async_trait]
impl BeatStore for Lagging<MockBeatStore> {
    async fn beat(&self, worker: WorkerId) -> Result<BeatAnswer, StoreError> {
        let (before, after) = next_lag(&self.storage.beat_lags);
        sleep(before).await;
        let answer = self.inner.beat(worker).await;
        self.storage.beaten.notify_one();
        sleep(after).await;
        answer
    }

    async fn look(&self, worker: WorkerId) -> Result<Vec<SeenLease>, StoreError> {
        self.inner.look(worker).await
    }

    async fn mark(&self, overdue: &[Overdue], ttl: Duration) -> Result<Vec<WorkerId>, StoreError> {
        self.inner.mark(overdue, ttl).await
    }
}

#[async_trait]
impl RunStore for Lagging<MockRunStore> {
    async fn claim(
        &self,
        worker: WorkerId,
        kind: &RunKind,
        room: Room,
    ) -> Result<Vec<Run>, StoreError> {
        let (before, after) = next_lag(&self.storage.claim_lags);
        let (inner, storage, kind) =
            (Arc::clone(&self.inner), Arc::clone(&self.storage), kind.clone());
        // What was sent reaches the table, whether or not anybody still waits for the answer.
        let sent = tokio::spawn(async move {
            sleep(before).await;
            let answer = inner.claim(worker, &kind, room).await;
            storage.claimed.notify_one();
            answer
        });
        let answer = sent.await.unwrap();
        sleep(after).await;
        answer
    }

    async fn next_ready(&self, kind: &RunKind) -> Result<Option<Duration>, StoreError> {
        self.inner.next_ready(kind).await
    }

    async fn finish(&self, run: &Run, end: RunEnd) -> Result<(), WriteError> {
        self.inner.finish(run, end).await
    }

    async fn release(
        &self,
        worker: WorkerId,
        runs: &[(RunId, Fence)],
        pause: Duration,
    ) -> Result<Vec<RunId>, StoreError> {
        self.inner.release(worker, runs, pause).await
    }

    async fn touch_runs(&self, worker: WorkerId) -> Result<Vec<RollEntry>, StoreError> {
        self.inner.touch_runs(worker).await
    }

    async fn stale_runs(&self, before: Timestamp) -> Result<Vec<RunId>, StoreError> {
        self.inner.stale_runs(before).await
    }
}

pub(super) fn queue() -> MockRunQueue {
    let mut queue = MockRunQueue::new();
    queue.expect_backlog().returning(|_| Ok(Backlog::default()));
    queue
}
