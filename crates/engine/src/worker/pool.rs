//! The runs that a worker owns, each in a task of its own.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use musterbeat_core::id::{Fence, RunId};
use musterbeat_core::port::{RunContext, RunStore, Runner, StoreError, Topic, WriteError};
use musterbeat_core::run::{Outcome, Run, RunEnd, RunKind, StopCause};
use tokio::task::{JoinError, JoinSet};

use super::{Ports, Serving};
use crate::context::Context;
use crate::metrics::{
    CLAIM_FAILURES, CLAIMS, RUNS_CLAIMED, RUNS_ENDED, RUNS_OWNED, WRITES_GIVEN_UP,
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
    /// INVARIANT: holds a run from its claim until its end was written or given up.
    contexts: BTreeMap<RunId, Arc<Context>>,
    tasks: JoinSet<Ended>,
    parts: PartStreams,
    ports: Ports,
    shutdown: Shutdown,
}

struct KindPool {
    kind: RunKind,
    runner: Arc<dyn Runner>,
    capacity: usize,
    owned: usize,
    /// Whether more may be pending than there was room for.
    backlog: bool,
    failures: u32,
}

struct Ended {
    run: RunId,
    fence: Fence,
    index: usize,
}

impl Pool {
    pub(super) fn new(
        serving: Vec<Serving>,
        parts: PartStreams,
        ports: Ports,
        shutdown: Shutdown,
    ) -> Self {
        let kinds = serving.into_iter().map(|Serving { runner, capacity }| KindPool {
            kind: runner.kind(),
            runner,
            capacity,
            owned: 0,
            backlog: false,
            failures: 0,
        });
        Self {
            kinds: kinds.collect(),
            contexts: BTreeMap::new(),
            tasks: JoinSet::new(),
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

    /// Returns how many runs of a kind there is room for.
    pub(super) fn free(&self, index: usize) -> u32 {
        let kind = &self.kinds[index];
        u32::try_from(kind.capacity.saturating_sub(kind.owned)).unwrap_or(u32::MAX)
    }

    pub(super) fn set_backlog(&mut self, index: usize, backlog: bool) {
        self.kinds[index].backlog = backlog;
    }

    /// Says whether a free place is worth a look for work.
    pub(super) fn has_backlog(&self) -> bool {
        self.kinds.iter().any(|kind| kind.backlog)
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

    /// Starts what a claim returned.
    pub(super) fn start(&mut self, index: usize, runs: Vec<Run>) {
        let kind = &mut self.kinds[index];
        kind.failures = 0;
        kind.owned += runs.len();
        let label = kind.kind.to_string();
        metrics::counter!(CLAIMS.name, "kind" => label.clone()).increment(1);
        metrics::counter!(RUNS_CLAIMED.name, "kind" => label.clone()).increment(runs.len() as u64);
        #[expect(clippy::cast_precision_loss, reason = "a worker owns far less than 2^52 runs")]
        metrics::gauge!(RUNS_OWNED.name, "kind" => label).increment(runs.len() as f64);
        for run in runs {
            let parts = self.parts.open(run.id);
            let context = Arc::new(Context::new(&run, parts, self.shutdown.clone()));
            self.contexts.insert(run.id, Arc::clone(&context));
            let runner = Arc::clone(&self.kinds[index].runner);
            let ports = self.ports.clone();
            self.tasks.spawn(async move {
                let ended = Ended { run: run.id, fence: run.token.fence, index };
                work(run, &context, &*runner, &ports).await;
                ended
            });
        }
    }

    /// Waits until runs have ended, one at least; for ever while none runs.
    pub(super) async fn finished(&mut self) {
        match self.tasks.join_next().await {
            Some(joined) => self.forget(joined),
            None => std::future::pending().await,
        }
        // Those that ended with it: one claim then fills all their places.
        while let Some(joined) = self.tasks.try_join_next() {
            self.forget(joined);
        }
    }

    /// Waits until every run has ended.
    pub(super) async fn all_finished(&mut self) {
        while !self.tasks.is_empty() {
            self.finished().await;
        }
    }

    /// Ends every run where it stands; what they own is for the one who resigns.
    pub(super) async fn abort_all(&mut self) {
        for context in std::mem::take(&mut self.contexts).into_values() {
            tracing::warn!(run.id = %context.run(), "a run did not stop in time and is ended");
        }
        self.tasks.shutdown().await;
        for kind in &mut self.kinds {
            metrics::gauge!(RUNS_OWNED.name, "kind" => kind.kind.to_string()).set(0.0);
            kind.owned = 0;
        }
    }

    pub(super) fn stop_all(&self, cause: StopCause) {
        for context in self.contexts.values() {
            context.stop(cause);
        }
    }

    fn forget(&mut self, joined: Result<Ended, JoinError>) {
        // A task ends by itself, and its runner's panics are caught inside.
        let ended = joined.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        // A run may have been won back before its former end was noticed.
        if let Entry::Occupied(entry) = self.contexts.entry(ended.run)
            && entry.get().fence() == ended.fence
        {
            entry.remove();
        }
        let kind = &mut self.kinds[ended.index];
        kind.owned -= 1;
        metrics::gauge!(RUNS_OWNED.name, "kind" => kind.kind.to_string()).decrement(1.0);
    }
}

/// Has one run worked on and writes its end.
async fn work(run: Run, context: &Arc<Context>, runner: &dyn Runner, ports: &Ports) {
    let shared: Arc<dyn RunContext> = Arc::clone(context) as _;
    let outcome = caught(runner.run(run.clone(), shared)).await.unwrap_or_else(Outcome::Failed);
    let labels = [("kind", run.kind.to_string()), ("outcome", name(&outcome).to_owned())];
    metrics::counter!(RUNS_ENDED.name, &labels).increment(1);
    let run = Run { token: context.token(), ..run };
    let written = match outcome {
        Outcome::Settled => Ok(()),
        Outcome::Done => finish(&run, RunEnd::Done, &*ports.runs).await,
        Outcome::Failed(error) => finish(&run, RunEnd::Failed(error), &*ports.runs).await,
        Outcome::Stopped => release(&run, context, ports).await,
    };
    if let Err(error) = written {
        metrics::counter!(WRITES_GIVEN_UP.name, "kind" => run.kind.to_string()).increment(1);
        tracing::warn!(
            run.id = %run.id,
            error = &error as &dyn std::error::Error,
            "the end of a run could not be written"
        );
    }
}

async fn finish(run: &Run, end: RunEnd, runs: &dyn RunStore) -> Result<(), StoreError> {
    let mut retry = Retry::new();
    loop {
        match runs.finish(run, end.clone()).await {
            // Somebody else owns the run: its end is theirs to write.
            Ok(()) | Err(WriteError::Fenced) => return Ok(()),
            Err(WriteError::Store(error)) => retry.wait(error).await?,
        }
    }
}

async fn release(run: &Run, context: &Context, ports: &Ports) -> Result<(), StoreError> {
    // Who stopped unasked would be asked again at once, and might stop again, for ever.
    let pause = if context.is_stopped() { Duration::ZERO } else { RELEASE_PAUSE };
    let pause = pause.mul_f64(1.0 + rand::random::<f64>());
    let mut retry = Retry::new();
    loop {
        let named = [(run.id, run.token.fence)];
        match ports.runs.release(run.token.worker, &named, pause).await {
            Ok(released) => {
                for run in released {
                    ports.publish.publish(Topic::Pending, run.uuid());
                }
                return Ok(());
            }
            Err(error) => retry.wait(error).await?,
        }
    }
}

const fn name(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Settled => "settled",
        Outcome::Done => "done",
        Outcome::Failed(_) => "failed",
        Outcome::Stopped => "stopped",
    }
}
