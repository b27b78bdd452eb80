use std::sync::Arc;

use async_trait::async_trait;

use crate::id::{OwnerId, RunId, Step};
use crate::run::{Outcome, Run, RunKind, StopCause};

/// Does the work of one kind of run.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Runner: Send + Sync {
    /// Returns the kind of runs that it takes.
    fn kind(&self) -> RunKind;

    /// Works on `run` until it is done or asked to stop.
    ///
    /// It should return soon after [`RunContext::stopped`] does. A panic ends the run in error.
    /// After the death of its process another worker calls this again for the same run.
    async fn run(&self, run: Run, context: Arc<dyn RunContext>) -> Outcome;

    /// Learns that a run of its kind changed hands or ended without its runner; never waits.
    ///
    /// It is for those who tell others of such changes.
    fn changed(&self, run: RunId, owner: OwnerId) {
        let _ = (run, owner);
    }
}

/// What a runner is given to meet the world with; implemented by the engine.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait RunContext: Send + Sync {
    /// Waits until the run should stop, and says why; returns at once when it already should.
    async fn stopped(&self) -> StopCause;

    /// Returns why the run should stop, `None` while it may go on.
    ///
    /// Ask before each side effect. It compares the time: a process that was frozen learns here
    /// that its lease has passed, before any timer has told it.
    fn stop_cause(&self) -> Option<StopCause>;

    /// Says whether the worker drains, so that the runner should begin nothing new.
    fn is_draining(&self) -> bool;

    /// Tells that the next write may give the run up, so that the roll call leaves it out.
    ///
    /// A runner that settles runs itself calls it before each such write.
    fn ending(&self);

    /// Tells which write comes next, after one that left the run running.
    ///
    /// Pieces of the answer published before belong to the write that was made.
    fn begin(&self, step: Step);

    /// Publishes a piece of the answer to those who follow it live; never waits.
    ///
    /// Pieces live in memory only. The stored message is the truth.
    fn part(&self, part: Vec<u8>);

    /// Counts the run as waiting for another until what is returned is dropped.
    ///
    /// A run that waits takes no room of its worker's capacity, so what it waits for can be
    /// claimed. It may be counted several times at once. Without a worker nobody counts.
    fn waiting(&self) -> Waiting {
        Waiting::default()
    }
}

/// A run's wait for another; over when it is dropped.
#[derive(Default)]
#[must_use = "the wait is over when it is dropped"]
pub struct Waiting {
    _counted: Option<Box<dyn Send + Sync>>,
}

impl Waiting {
    /// Makes a wait whose end is the drop of `counted`.
    pub fn new(counted: impl Send + Sync + 'static) -> Self {
        Self { _counted: Some(Box::new(counted)) }
    }
}
