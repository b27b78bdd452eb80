use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{StoreError, WatchError};
use crate::chat::{Refused, Report};
use crate::id::{ChatId, OwnerId, RunId, Step};
use crate::message::{Content, Message, Model, NewMessage};
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
}

/// Answers one turn of a chat.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait ChatRunner: Send + Sync {
    /// Answers what `turn` asks.
    ///
    /// The same rules hold as for [`Runner::run`].
    async fn turn(&self, turn: ChatTurn, context: Arc<dyn ChatContext>) -> TurnEnd;
}

/// What a [`ChatRunner`] is given beside what every runner is; implemented by the engine.
#[async_trait]
pub trait ChatContext: RunContext {
    /// Stores messages in the midst of a turn, which goes on; they are seen at once.
    ///
    /// It is sent again until storage answers, and goes on when the future is dropped. Parts
    /// published before it belong to it.
    async fn step(&self, messages: Vec<NewMessage>) -> Result<(), StepError>;

    /// Waits until `descendant` of this chat has nothing to do, for `timeout` at most, and returns
    /// how it stands then.
    async fn await_chat(
        &self,
        descendant: ChatId,
        timeout: Option<Duration>,
    ) -> Result<Report, AwaitError>;
}

/// A step was not stored.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// Somebody else owns the run: end the turn.
    #[error("the chat's run is owned by somebody else")]
    Fenced,
    /// The messages do not fit the history.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// There are too many of them.
    #[error("a step has {count} messages, at most {max} are allowed")]
    TooMany {
        /// How many there were.
        count: usize,
        /// The bound.
        max: usize,
    },
    /// Storage failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A chat was not waited for, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum AwaitError {
    /// It is not there.
    #[error("there is no such chat")]
    NotFound,
    /// It does not descend from the chat that would wait.
    #[error("chat {0} is no descendant of the chat that waits for it")]
    NotADescendant(ChatId),
    /// The chat that waits has to stop.
    #[error("the wait was stopped: {}", .0.as_str())]
    Stopped(StopCause),
    /// Changes cannot be watched.
    #[error(transparent)]
    Watch(#[from] WatchError),
    /// Storage failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// One turn of a chat, for a [`ChatRunner`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChatTurn {
    /// The chat.
    pub chat: ChatId,
    /// Whose it is.
    pub owner: OwnerId,
    /// The model to answer with.
    pub model: Option<Model>,
    /// The history as a model should see it, oldest first; its end is what is asked.
    pub prompt: Vec<Message>,
}

/// How a turn of a chat ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TurnEnd {
    /// With these messages.
    Answer(Vec<NewMessage>),
    /// In an error, for the user to read.
    Failed(String),
    /// It stopped as it was asked to, with what it had by then.
    Stopped(Option<Content>),
}
