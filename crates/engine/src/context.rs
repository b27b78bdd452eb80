//! What the engine gives a runner.

use std::sync::atomic::{AtomicI64, Ordering};

use async_trait::async_trait;
use musterbeat_core::id::{Fence, RunId, Step};
use musterbeat_core::port::RunContext;
use musterbeat_core::run::{Run, StopCause, Token};
use tokio::sync::watch;

use crate::parts::PartWriter;
use crate::shutdown::Shutdown;

/// One run as its worker holds it: why it should stop, what it writes next, where its parts go.
pub(crate) struct Context {
    run: RunId,
    stop: watch::Sender<Option<StopCause>>,
    shutdown: Shutdown,
    claimed: Token,
    step: AtomicI64,
    parts: PartWriter,
}

impl Context {
    pub(crate) fn new(run: &Run, parts: PartWriter, shutdown: Shutdown) -> Self {
        parts.begin(run.token.fence, run.token.step);
        let stop = run.stop.then_some(StopCause::Interrupted);
        let step = AtomicI64::new(run.token.step.0);
        let stop = watch::Sender::new(stop);
        Self { run: run.id, stop, shutdown, claimed: run.token, step, parts }
    }

    /// Asks the run to stop; the first cause stays.
    pub(crate) fn stop(&self, cause: StopCause) {
        self.stop.send_if_modified(|stop| {
            let first = stop.is_none();
            stop.get_or_insert(cause);
            first
        });
    }

    /// Says whether the run was asked to stop.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stop.borrow().is_some()
    }

    pub(crate) fn run(&self) -> RunId {
        self.run
    }

    /// Returns the fence under which the run is owned.
    pub(crate) fn fence(&self) -> Fence {
        self.claimed.fence
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
        let mut stop = self.stop.subscribe();
        let cause = stop.wait_for(Option::is_some).await.map(|cause| *cause);
        // The sender lives as long as `self`.
        cause.ok().flatten().unwrap_or(StopCause::Shutdown)
    }

    fn is_draining(&self) -> bool {
        self.shutdown.is_requested()
    }

    fn begin(&self, step: Step) {
        self.step.store(step.0, Ordering::Relaxed);
        self.parts.begin(self.claimed.fence, step);
    }

    fn part(&self, part: Vec<u8>) {
        self.parts.publish(part);
    }
}
