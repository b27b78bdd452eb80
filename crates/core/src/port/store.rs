use std::error::Error;
use std::time::Duration;

use async_trait::async_trait;

use crate::chat::{Applied, Changes, Chat, Event, NewChat, Refused};
use crate::id::{ChatId, Fence, OwnerId, RunId, Version, WorkerId};
use crate::message::Message;
use crate::page::{Cursor, Limit};
use crate::run::{Run, RunEnd, RunKind, Token};

/// Says who works: one lease a worker, whatever it owns.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait LeaseStore: Send + Sync {
    /// Registers a worker; repeating it changes nothing.
    async fn register(&self, lease: &Lease) -> Result<(), StoreError>;

    /// Ends a worker's lease and returns its runs to pending; returns them, for their wakes.
    ///
    /// Several transactions: what it has done stays done when it fails, and it may be repeated.
    /// From the first on the worker claims nothing, not even by a claim that is on its way.
    async fn resign(&self, worker: WorkerId) -> Result<Vec<RunId>, StoreError>;
}

/// A worker as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// This start of its process.
    pub worker: WorkerId,
    /// What an operator calls it, such as its host's name.
    pub name: String,
    /// Where other replicas reach it.
    pub advertise_url: Option<String>,
    /// The release that it runs.
    pub release: String,
    /// How many runs it takes.
    pub capacity: u32,
}

/// Says which worker owns which run.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait RunStore: Send + Sync {
    /// Makes `worker` the owner of up to `limit` pending runs of `kind`; fair between owners.
    ///
    /// Nothing is claimed for a worker without a lease. No run is given to two workers.
    async fn claim(
        &self,
        worker: WorkerId,
        kind: &RunKind,
        limit: u32,
    ) -> Result<Vec<Run>, StoreError>;

    /// Returns how long until a run of `kind` is ready, zero when one is; none is pending: `None`.
    async fn next_ready(&self, kind: &RunKind) -> Result<Option<Duration>, StoreError>;

    /// Writes the end of a run that its runner did not settle.
    async fn finish(&self, run: &Run, end: RunEnd) -> Result<(), WriteError>;

    /// Returns runs of `worker` to pending, each only under its fence; returns those it released.
    ///
    /// They are ready again after `pause`.
    async fn release(
        &self,
        worker: WorkerId,
        runs: &[(RunId, Fence)],
        pause: Duration,
    ) -> Result<Vec<RunId>, StoreError>;
}

/// Keeps chats.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait ChatStore: Send + Sync {
    /// Creates a chat with its first turn, pending.
    ///
    /// Repeated with the same id and owner, it changes nothing and returns the chat as it stands.
    async fn create(&self, chat: NewChat) -> Result<Applied, ApplyError>;

    /// Applies `event` to a chat: locks its run, decides, writes, commits.
    ///
    /// For an owner a repeated write changes nothing and returns the chat as it stands.
    async fn apply(&self, chat: ChatId, by: By, event: Event) -> Result<Applied, ApplyError>;

    /// Returns a chat, `None` when it is not there or out of reach.
    async fn get(&self, chat: ChatId, reach: Reach) -> Result<Option<Chat>, StoreError>;

    /// Returns chats of one owner, the last updated first.
    async fn list(&self, filter: ChatFilter) -> Result<Vec<Chat>, StoreError>;

    /// Returns what changed since a version, from the beginning when `since` is `None`.
    async fn changes(
        &self,
        chat: ChatId,
        reach: Reach,
        since: Option<Version>,
    ) -> Result<Option<Changes>, StoreError>;

    /// Returns the history as a model should see it, oldest first.
    ///
    /// It begins at the newest summary, if there is one, with the system messages before it.
    async fn prompt(&self, chat: ChatId) -> Result<Vec<Message>, StoreError>;
}

/// Who changes a chat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// A user, within reach.
    User(Reach),
    /// The worker that owns its run.
    Owner(Token),
}

/// Which objects a caller reaches; the rest is not there for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// All.
    Everything,
    /// What this owner owns.
    Of(OwnerId),
}

/// Which chats to list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChatFilter {
    /// Whose.
    pub owner: OwnerId,
    /// Only archived ones, only others, or both.
    pub archived: Option<bool>,
    /// Where the page before ended.
    pub after: Option<Cursor>,
    /// How many.
    pub limit: Limit,
}

/// Storage could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached or is overloaded; the same call may succeed later.
    #[error("failed to {operation}: the database is not available")]
    Unavailable {
        /// What was asked.
        operation: &'static str,
        /// What went wrong.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// It refused; the same call fails again.
    #[error("failed to {operation}")]
    Broken {
        /// What was asked.
        operation: &'static str,
        /// What went wrong.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

/// An owner's write to a run did not happen.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Somebody else owns the run, or nobody does.
    #[error("the run is owned by somebody else")]
    Fenced,
    /// Storage failed; the write may or may not have happened and may be sent again.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An event did not happen to a chat.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// There is no such chat within the caller's reach.
    #[error("there is no such chat")]
    NotFound,
    /// Somebody else owns the chat's run, or nobody does.
    #[error("the chat's run is owned by somebody else")]
    Fenced,
    /// The chat's state does not allow it.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Storage failed; an owner's write may be sent again.
    #[error(transparent)]
    Store(#[from] StoreError),
}
