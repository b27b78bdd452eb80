//! What the engine gives a runner.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use musterbeat_core::id::{RunId, Step};
use musterbeat_core::port::{RunContext, Waiting};
use musterbeat_core::run::{Run, StopCause, Token};
use tokio::sync::watch;

use crate::parts::PartWriter;
use crate::shutdown::Shutdown;
use crate::worker::{RunWaits, Tenure};

/// Why a run should stop, once it should.
pub(crate) struct Stop(watch::Sender<Option<StopCause>>);

impl Stop {
    /// A run claimed with an interrupt begins stopped.
    pub(crate) fn new(run: &Run) -> Self {
        Self(watch::Sender::new(run.stop.then_some(StopCause::Interrupted)))
    }

    /// Asks the run to stop; returns false when that is nothing new.
    ///
    /// The first cause stays, but for those after which nothing may be written any more.
    pub(crate) fn now(&self, cause: StopCause) -> bool {
        self.0.send_if_modified(|stop| {
            let moves = match *stop {
                None => true,
                Some(before) => before.allows_writes() && !cause.allows_writes(),
            };
            if moves {
                *stop = Some(cause);
            }
            moves
        })
    }

    fn cause(&self) -> Option<StopCause> {
        *self.0.borrow()
    }
}

/// One run as its worker holds it: why it should stop, what it writes next, where its parts go.
pub(crate) struct Context {
    run: RunId,
    stop: Arc<Stop>,
    tenure: Arc<Tenure>,
    shutdown: Shutdown,
    claimed: Token,
    step: AtomicI64,
    parts: PartWriter,
    waits: Arc<RunWaits>,
}

impl Context {
    pub(crate) fn new(
        run: &Run,
        stop: Arc<Stop>,
        tenure: Arc<Tenure>,
        parts: PartWriter,
        waits: Arc<RunWaits>,
        shutdown: Shutdown,
    ) -> Self {
        parts.begin(run.token.fence, run.token.step);
        let step = AtomicI64::new(run.token.step.0);
        Self { run: run.id, stop, tenure, shutdown, claimed: run.token, step, parts, waits }
    }

    /// Returns the name of the run's next write.
    pub(crate) fn token(&self) -> Token {
        // One task writes and reads it; others only see it after they have joined that task.
        Token { step: Step(self.step.load(Ordering::Relaxed)), ..self.claimed }
    }
}

#[async_trait]
impl RunContext for Context {
    async fn stopped(&self) -> StopCause {
        let mut stop = self.stop.0.subscribe();
        let cause = stop.wait_for(Option::is_some).await.map(|cause| *cause);
        // The sender lives as long as `self`.
        cause.ok().flatten().unwrap_or(StopCause::Shutdown)
    }

    fn stop_cause(&self) -> Option<StopCause> {
        match self.stop.cause() {
            Some(cause) if !cause.allows_writes() => Some(cause),
            _ if !self.tenure.is_believed() => Some(StopCause::Fenced),
            cause => cause,
        }
    }

    fn is_draining(&self) -> bool {
        self.shutdown.is_requested()
    }

    fn ending(&self) {
        self.tenure.end(self.run, self.claimed.fence);
    }

    fn begin(&self, step: Step) {
        self.step.store(step.0, Ordering::Relaxed);
        self.tenure.go_on(self.run, self.claimed.fence);
        self.parts.begin(self.claimed.fence, step);
    }

    fn part(&self, part: Vec<u8>) {
        self.parts.publish(&part);
    }

    fn waiting(&self) -> Waiting {
        self.waits.begin()
    }
}
