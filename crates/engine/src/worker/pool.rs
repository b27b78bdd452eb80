//! The runs that a worker owns, each in a task of its own.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use musterbeat_core::id::{Fence, RunId};
use musterbeat_core::port::{Room, RunContext, RunStore, Runner, StoreError, Topic, WriteError};
use musterbeat_core::roster::Entered;
use musterbeat_core::run::{Outcome, Run, RunEnd, RunKind, StopCause};
use tokio::sync::{Notify, OwnedRwLockWriteGuard, RwLock};
use tokio::task::{AbortHandle, Id, JoinError, JoinSet};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::tenure::Tenure;
use super::waits::{KindWaits, RunWaits};
use super::{Ports, STOP_TIMEOUT, Serving, places};
use crate::context::{Context, Stop};
use crate::metrics::{
    CLAIM_FAILURES, CLAIMS, RUNS_CLAIMED, RUNS_ENDED, RUNS_OWNED, WAITS_BOUND_MET, WRITES_GIVEN_UP,
};
use crate::panic::caught;
use crate::parts::PartStreams;
use crate::retry::{BACKOFF, Retry};
use crate::shutdown::Shutdown;

/// Wait before a run is ready again that was given back unasked; doubled at most, by jitter.
const RELEASE_PAUSE: Duration = Duration::from_secs(1);

/// What a worker runs, by kind.
pub(super) struct Pool {
    kinds: Vec<KindPool>,
    /// INVARIANT: has a run from its claim until its task was joined, under its last fence.
    tasks: BTreeMap<RunId, Task>,
    /// INVARIANT: has each task of `joins`.
    owned: BTreeMap<Id, Owned>,
    joins: JoinSet<()>,
    /// Told when a run begins to wait for another.
    freed: Arc<Notify>,
    /// Closed while claims go on: what runs read first would hold up the claims of the rest.
    gate: Arc<RwLock<()>>,
    parts: PartStreams,
    ports: Ports,
    shutdown: Shutdown,
}

struct KindPool {
    kind: RunKind,
    runner: Arc<dyn Runner>,
    capacity: usize,
    owned: usize,
    waits: Arc<KindWaits>,
    /// Whether more may be pending than there was room for.
    backlog: bool,
    /// Whether all that was ready at the last look was somebody else's to claim.
    locked: bool,
    failures: u32,
}

/// The task of a run, as a later claim of the run meets it.
struct Task {
    fence: Fence,
    abort: AbortHandle,
    ended: CancellationToken,
}

struct Owned {
    run: RunId,
    fence: Fence,
    index: usize,
    waits: Arc<RunWaits>,
    tenure: Arc<Tenure>,
}

/// The database gave out a fence that is not higher than one it gave out before.
pub(super) struct WentBack;

impl Pool {
    pub(super) fn new(
        serving: Vec<Serving>,
        parts: PartStreams,
        ports: Ports,
        shutdown: Shutdown,
    ) -> Self {
        let freed = Arc::default();
        let kinds = serving.into_iter().map(|Serving { runner, capacity }| KindPool {
            kind: runner.kind(),
            waits: KindWaits::new(runner.kind(), &freed),
            runner,
            capacity,
            owned: 0,
            backlog: false,
            locked: false,
            failures: 0,
        });
        Self {
            kinds: kinds.collect(),
            tasks: BTreeMap::new(),
            owned: BTreeMap::new(),
            joins: JoinSet::new(),
            freed,
            gate: Arc::default(),
            parts,
            ports,
            shutdown,
        }
    }

    pub(super) fn kinds(&self) -> usize {
        self.kinds.len()
    }

    pub(super) fn kind(&self, index: usize) -> RunKind {
        self.kinds[index].kind.clone()
    }

    /// Returns which runs of a kind there is room for, of which one claim takes `batch` at most.
    pub(super) fn room(&self, index: usize, batch: u32) -> Room {
        let kind = &self.kinds[index];
        let waiting = kind.waits.count();
        let room = places::room(kind.capacity, kind.owned, waiting);
        if 0 < room.depth_min {
            metrics::counter!(WAITS_BOUND_MET.name, "kind" => kind.kind.to_string()).increment(1);
        }
        Room { runs: room.runs.min(batch), ..room }
    }

    pub(super) fn set_backlog(&mut self, index: usize, backlog: bool) {
        self.kinds[index].backlog = backlog;
    }

    /// Says whether a free place is worth a look for work.
    pub(super) fn has_backlog(&self) -> bool {
        self.kinds.iter().any(|kind| kind.backlog)
    }

    pub(super) fn set_locked(&mut self, index: usize, locked: bool) {
        self.kinds[index].locked = locked;
    }

    /// Says, once, whether all that was ready at the last look was locked.
    pub(super) fn take_locked(&mut self, index: usize) -> bool {
        std::mem::take(&mut self.kinds[index].locked)
    }

    /// Counts a failed claim; returns how long to wait before the next.
    pub(super) fn claim_failed(&mut self, index: usize, error: &StoreError) -> Duration {
        let kind = &mut self.kinds[index];
        kind.failures += 1;
        metrics::counter!(CLAIM_FAILURES.name, "kind" => kind.kind.to_string()).increment(1);
        tracing::warn!(
            run.kind = %kind.kind,
            error = error as &dyn std::error::Error,
            "a claim failed and is tried again"
        );
        BACKOFF.delay(kind.failures, rand::random())
    }

    /// Returns who works on each kind.
    pub(super) fn runners(&self) -> BTreeMap<RunKind, Arc<dyn Runner>> {
        let runners = self.kinds.iter().map(|kind| (kind.kind.clone(), Arc::clone(&kind.runner)));
        runners.collect()
    }

    /// Keeps what is started waiting until the guard is dropped.
    pub(super) async fn close_gate(&self) -> OwnedRwLockWriteGuard<()> {
        Arc::clone(&self.gate).write_owned().await
    }

    /// Starts what a claim returned.
    pub(super) fn start(
        &mut self,
        index: usize,
        runs: Vec<Run>,
        tenure: &Arc<Tenure>,
    ) -> Result<(), WentBack> {
        let kind = &mut self.kinds[index];
        kind.failures = 0;
        let label = kind.kind.to_string();
        metrics::counter!(CLAIMS.name, "kind" => label.clone()).increment(1);
        metrics::counter!(RUNS_CLAIMED.name, "kind" => label).increment(runs.len() as u64);
        runs.into_iter().try_for_each(|run| self.start_one(index, run, tenure))
    }

    fn start_one(&mut self, index: usize, run: Run, tenure: &Arc<Tenure>) -> Result<(), WentBack> {
        let (id, fence) = (run.id, run.token.fence);
        let stop = Arc::new(Stop::new(&run));
        if tenure.enter(id, fence, &stop) == Entered::WentBack {
            return Err(WentBack);
        }
        let former = self.tasks.remove(&id);
        let parts = self.parts.open(id, run.token.fence);
        let waits = RunWaits::new(&self.kinds[index].waits);
        let (shutdown, lease) = (self.shutdown.clone(), Arc::clone(tenure));
        let context = Context::new(&run, stop, lease, parts, Arc::clone(&waits), shutdown);
        let runner = Arc::clone(&self.kinds[index].runner);
        let (ports, ended) = (self.ports.clone(), CancellationToken::new());
        let gate = Arc::clone(&self.gate);
        let guard = ended.clone().drop_guard();
        let abort = self.joins.spawn(async move {
            let _ended = guard;
            if let Some(former) = former {
                former.end().await;
            }
            drop(gate.read().await);
            work(run, &Arc::new(context), &*runner, &ports).await;
        });
        let owned = Owned { run: id, fence, index, waits, tenure: Arc::clone(tenure) };
        self.owned.insert(abort.id(), owned);
        self.tasks.insert(id, Task { fence, abort, ended });
        let kind = &mut self.kinds[index];
        kind.owned += 1;
        metrics::gauge!(RUNS_OWNED.name, "kind" => kind.kind.to_string()).increment(1.0);
        Ok(())
    }

    /// Waits until runs have ended or begun to wait, one at least; for ever while none runs.
    pub(super) async fn freed(&mut self) {
        tokio::select! {
            Some(joined) = self.joins.join_next_with_id() => self.forget(joined),
            () = self.freed.notified() => {}
        }
        // Those that ended with it: one claim then fills all their places.
        while let Some(joined) = self.joins.try_join_next_with_id() {
            self.forget(joined);
        }
    }

    /// Waits until every run has ended.
    pub(super) async fn all_finished(&mut self) {
        while !self.joins.is_empty() {
            self.freed().await;
        }
    }

    /// Ends every run where it stands; what they own is for the one who resigns.
    pub(super) async fn abort_all(&mut self) {
        for owned in self.owned.values() {
            tracing::warn!(run.id = %owned.run, "a run did not stop in time and is ended");
        }
        self.joins.abort_all();
        self.all_finished().await;
    }

    fn forget(&mut self, joined: Result<(Id, ()), JoinError>) {
        let id = match joined {
            Ok((id, ())) => id,
            Err(error) if error.is_cancelled() => error.id(),
            // Its runner's panics are caught inside.
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        };
        let Some(owned) = self.owned.remove(&id) else { return };
        let Owned { run, fence, index, waits, tenure } = owned;
        waits.end();
        tenure.strike(run, fence);
        // A run may have been won back before its former end was noticed.
        if self.tasks.get(&run).is_some_and(|task| task.fence == fence) {
            self.tasks.remove(&run);
        }
        let kind = &mut self.kinds[index];
        kind.owned -= 1;
        metrics::gauge!(RUNS_OWNED.name, "kind" => kind.kind.to_string()).decrement(1.0);
    }
}

impl Task {
    /// Waits for a task that was told to stop, and ends it when it takes too long.
    async fn end(self) {
        if timeout(STOP_TIMEOUT, self.ended.cancelled()).await.is_err() {
            self.abort.abort();
            self.ended.cancelled().await;
        }
    }
}

/// Has one run worked on and writes its end.
async fn work(run: Run, context: &Arc<Context>, runner: &dyn Runner, ports: &Ports) {
    let outcome = if context.stop_cause().is_none_or(StopCause::allows_writes) {
        let shared: Arc<dyn RunContext> = Arc::clone(context) as _;
        caught("the runner", runner.run(run.clone(), shared)).await.unwrap_or_else(Outcome::Failed)
    } else {
        // It was lost before it began.
        Outcome::GivenBack
    };
    let labels = [("kind", run.kind.to_string()), ("outcome", name(&outcome).to_owned())];
    metrics::counter!(RUNS_ENDED.name, &labels).increment(1);
    let end = match outcome {
        Outcome::Settled => return,
        Outcome::Done => Some(RunEnd::Done),
        Outcome::Failed(error) => Some(RunEnd::Failed(error)),
        Outcome::Stopped if context.stop_cause() == Some(StopCause::Interrupted) => {
            Some(RunEnd::Done)
        }
        Outcome::Stopped | Outcome::GivenBack => None,
    };
    let run = Run { token: context.token(), ..run };
    context.ending();
    let written = match end {
        Some(end) => finish(&run, end, context, &*ports.runs).await,
        None => release(&run, context, ports).await,
    };
    match written {
        Ok(()) => runner.changed(run.id, run.owner),
        Err(error) => {
            metrics::counter!(WRITES_GIVEN_UP.name, "kind" => run.kind.to_string()).increment(1);
            tracing::warn!(
                run.id = %run.id,
                error = &error as &dyn std::error::Error,
                "the end of a run could not be written"
            );
        }
    }
}

/// Writes the end of a run; somebody else's run is left to them.
async fn finish(
    run: &Run,
    end: RunEnd,
    context: &Context,
    runs: &dyn RunStore,
) -> Result<(), StoreError> {
    let mut retry = Retry::new(context);
    while context.stop_cause().is_none_or(StopCause::allows_writes) {
        match runs.finish(run, end.clone()).await {
            Ok(()) | Err(WriteError::Fenced) => break,
            Err(WriteError::Store(error)) => retry.wait(error).await?,
        }
    }
    Ok(())
}

async fn release(run: &Run, context: &Context, ports: &Ports) -> Result<(), StoreError> {
    // Who stopped unasked would be asked again at once, and might stop again, for ever.
    let asked = context.stop_cause().is_some();
    let pause = if asked { Duration::ZERO } else { RELEASE_PAUSE };
    let pause = pause.mul_f64(1.0 + rand::random::<f64>());
    let mut retry = Retry::new(context);
    while context.stop_cause().is_none_or(StopCause::allows_writes) {
        let named = [(run.id, run.token.fence)];
        match ports.runs.release(run.token.worker, &named, pause).await {
            Ok(released) => {
                for run in released {
                    ports.publish.publish(Topic::Pending, run.uuid());
                }
                break;
            }
            Err(error) => retry.wait(error).await?,
        }
    }
    Ok(())
}

const fn name(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Settled => "settled",
        Outcome::Done => "done",
        Outcome::Failed(_) => "failed",
        Outcome::Stopped => "stopped",
        Outcome::GivenBack => "given_back",
    }
}
