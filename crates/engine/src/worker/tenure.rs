//! One lease of a worker: whether it may be believed in, what is owned under it, and who else
//! has one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use musterbeat_core::id::{Fence, RunId, WorkerId};
use musterbeat_core::lease::{Belief, LeaseTimes, Moment};
use musterbeat_core::port::Clock;
use musterbeat_core::roster::{Beat, Entered, Muster, RollEntry, Roster};
use musterbeat_core::run::StopCause;
use tokio::time::sleep;
use uuid::Uuid;

use crate::context::Stop;

/// A worker from its registration until its lease lapses or it resigns.
pub(crate) struct Tenure {
    worker: WorkerId,
    times: LeaseTimes,
    clock: Arc<dyn Clock>,
    /// End of belief in nanoseconds of the clock: asked before each write, by every run.
    until: AtomicU64,
    owned: Mutex<Owned>,
    others: Mutex<Arc<[WorkerId]>>,
}

#[derive(Default)]
struct Owned {
    roster: Roster,
    /// INVARIANT: has the runs of the roster, each under its fence there.
    stops: BTreeMap<RunId, (Fence, Arc<Stop>)>,
}

/// A claim on its way; dropped when its runs were entered, or its answer will not be used.
pub(super) struct ClaimInFlight<'a>(&'a Tenure);

impl Drop for ClaimInFlight<'_> {
    fn drop(&mut self) {
        self.0.owned().roster.claim_settled();
    }
}

/// What a roll call changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Called {
    pub(super) muster: Muster,
    /// How many runs were told now that they are lost.
    pub(super) lost: u64,
    /// How many runs were told now to stop for their user.
    pub(super) interrupted: u64,
}

impl Tenure {
    /// Begins with a registration that was sent at `sent` and succeeded.
    pub(crate) fn new(
        worker: WorkerId,
        sent: Moment,
        times: LeaseTimes,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let until = AtomicU64::new(nanos(Belief::new(sent, &times)));
        let (owned, others) = (Mutex::default(), Mutex::default());
        Self { worker, times, clock, until, owned, others }
    }

    pub(crate) fn worker(&self) -> WorkerId {
        self.worker
    }

    pub(super) fn now(&self) -> Moment {
        self.clock.now()
    }

    /// Returns who else worked at the last look, nobody before the first.
    pub(super) fn others(&self) -> Arc<[WorkerId]> {
        Arc::clone(&self.others.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn set_others(&self, others: Arc<[WorkerId]>) {
        *self.others.lock().unwrap_or_else(PoisonError::into_inner) = others;
    }

    /// Says whether the worker may act as the owner of its runs.
    pub(crate) fn is_believed(&self) -> bool {
        !self.left().is_zero()
    }

    fn left(&self) -> Duration {
        let until = Duration::from_nanos(self.until.load(Ordering::Acquire));
        until.saturating_sub(self.now().since_start())
    }

    /// Waits until the lease may be believed in no longer.
    pub(super) async fn lapsed(&self) {
        loop {
            let left = self.left();
            if left.is_zero() {
                return;
            }
            // Beats move the end meanwhile.
            sleep(left).await;
        }
    }

    /// Goes on with a beat that was sent at `sent` and succeeded.
    pub(super) fn renew(&self, sent: Moment) {
        self.until.fetch_max(nanos(Belief::new(sent, &self.times)), Ordering::AcqRel);
    }

    pub(super) fn claim_sent(&self) -> ClaimInFlight<'_> {
        self.owned().roster.claim_sent();
        ClaimInFlight(self)
    }

    /// Enters a claimed run, which is told to stop through `stop`; a former task is told so.
    pub(super) fn enter(&self, run: RunId, fence: Fence, stop: &Arc<Stop>) -> Entered {
        let mut owned = self.owned();
        let entered = owned.roster.enter(run, fence);
        if entered != Entered::WentBack
            && let Some((_, former)) = owned.stops.insert(run, (fence, Arc::clone(stop)))
        {
            former.now(StopCause::Lost);
        }
        entered
    }

    pub(crate) fn end(&self, run: RunId, fence: Fence) {
        self.owned().roster.end(run, fence);
    }

    pub(crate) fn go_on(&self, run: RunId, fence: Fence) {
        self.owned().roster.go_on(run, fence);
    }

    /// Strikes off a run whose task has ended.
    pub(super) fn strike(&self, run: RunId, fence: Fence) {
        let mut owned = self.owned();
        owned.roster.strike(run, fence);
        if owned.stops.get(&run).is_some_and(|(entered, _)| *entered == fence) {
            owned.stops.remove(&run);
        }
    }

    /// Says whether a task of one of these runs is at work.
    pub(super) fn owns_any(&self, runs: &BTreeSet<Uuid>) -> bool {
        let owned = self.owned();
        runs.iter().any(|run| owned.stops.contains_key(&RunId::new(*run)))
    }

    pub(super) fn stop_all(&self, cause: StopCause) {
        for (_, stop) in self.owned().stops.values() {
            stop.now(cause);
        }
    }

    pub(super) fn beat_sent(&self) -> Beat {
        self.owned().roster.beat_sent()
    }

    /// Calls the roll that `beat` returned, and tells the lost and the interrupted to stop.
    pub(super) fn call_roll(&self, beat: Beat, roll: Vec<RollEntry>) -> Called {
        let owned = self.owned();
        let muster = owned.roster.muster(beat, roll);
        let told = |runs: &[(RunId, Fence)], cause| {
            let stops = runs.iter().filter_map(|(run, _)| owned.stops.get(run));
            stops.filter(|(_, stop)| stop.now(cause)).count() as u64
        };
        let lost = told(&muster.lost, StopCause::Lost);
        let interrupted = told(&muster.interrupted, StopCause::Interrupted);
        Called { muster, lost, interrupted }
    }

    fn owned(&self) -> MutexGuard<'_, Owned> {
        // Nothing panics halfway through a change of it.
        self.owned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// 2^64 nanoseconds are 584 years of uptime.
fn nanos(belief: Belief) -> u64 {
    u64::try_from(belief.until().since_start().as_nanos()).unwrap_or(u64::MAX)
}
