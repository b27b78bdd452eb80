use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{RunContext, StoreError, WatchError};
use crate::chat::{Chat, Refused, Report, Title, WhenBusy};
use crate::id::{ChatId, OwnerId};
use crate::message::{Content, Message, Model, NewMessage};
use crate::run::StopCause;

/// Answers one turn of a chat.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait ChatRunner: Send + Sync {
    /// Answers what `turn` asks.
    ///
    /// The same rules hold as for [`Runner::run`](super::Runner::run).
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
    ///
    /// Meanwhile the run takes no room of its worker. An outage of storage that passes is waited
    /// for, too.
    async fn await_chat(
        &self,
        descendant: ChatId,
        timeout: Option<Duration>,
    ) -> Result<Report, AwaitError>;

    /// Creates a child of this chat and has it work.
    ///
    /// Repeated with the same id it changes nothing, also when the first attempt was another
    /// owner's of this run. It is sent again while storage is away.
    async fn spawn(&self, child: NewChild) -> Result<(), KinError>;

    /// Sends a turn to `descendant` of this chat; says whether it waits in its queue.
    ///
    /// Sent twice, it is asked twice; so after an error of storage, which may have come after the
    /// turn was stored, it is not sent again.
    async fn send(
        &self,
        descendant: ChatId,
        content: Content,
        when_busy: WhenBusy,
    ) -> Result<bool, KinError>;

    /// Stops what `descendant` of this chat does; one that does nothing stays as it is.
    ///
    /// [`Halt::Everything`] is sent again while storage is away. [`Halt::Turn`] is not: it may
    /// have ended its turn, and would end the next.
    async fn halt(&self, descendant: ChatId, halt: Halt) -> Result<(), KinError>;

    /// Returns the children of this chat, the oldest first, [`CHILDREN_MAX`] at most.
    async fn children(&self) -> Result<Vec<Chat>, KinError>;
}

/// Children that a chat is shown, at most.
pub const CHILDREN_MAX: u32 = 200;

/// A child for a chat that works; it inherits owner, workspace and model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewChild {
    /// Names it; made of what names the wish, so that the wish may be repeated.
    pub id: ChatId,
    /// What it is called.
    pub title: Title,
    /// What it is to do.
    pub content: Content,
}

/// How far a chat is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Halt {
    /// Its turn ends; what waits in its queue comes next.
    Turn,
    /// Its turn ends, and its queue is emptied first.
    Everything,
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

/// A chat did nothing with another of its family.
#[derive(Debug, thiserror::Error)]
pub enum KinError {
    /// It is not there.
    #[error("there is no such chat")]
    NotFound,
    /// It does not descend from the chat that works.
    #[error("chat {0} is no descendant of this one")]
    NotADescendant(ChatId),
    /// How it stands, or a limit, does not allow it.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The chat that works has to stop.
    #[error("the chat was stopped: {}", .0.as_str())]
    Stopped(StopCause),
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
    /// How many ancestors it has.
    pub depth: usize,
    /// Whether its depth allows it to have children of its own.
    pub may_spawn: bool,
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
    ///
    /// After an interrupt it is kept, and calls of tools that it leaves open are answered; after
    /// anything else it is dropped.
    Stopped(Vec<NewMessage>),
}
