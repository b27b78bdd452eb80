use std::collections::BTreeSet;
use std::error::Error;

use async_trait::async_trait;
use uuid::Uuid;

use crate::timestamp::Timestamp;

/// What sort of thing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// A pending run was claimed, so that nobody else need look for it; the id is the run's.
    Claimed,
    /// A run became pending; the id is the run's.
    Pending,
    /// A run is to stop, or was taken from its owner; the id is the run's.
    Stop,
    /// A chat's messages, queue or status changed; the id is the chat's.
    Chat,
    /// A chat of an owner changed in any way that their list shows; the id is the owner's.
    Owner,
    /// A token was revoked; the id is the token's.
    Token,
    /// A chat's branch was marked stale; the id is the chat's.
    Stale,
    /// What an agent reported changed; the id is the agent's.
    Agent,
    /// What an agent is to report changed, or it is gone; the id is the agent's.
    Definitions,
    /// A preset's prebuilds were claimed or failed, or what is wanted of it changed; the id is the
    /// preset's, or its template's.
    Pool,
}

impl Topic {
    /// Every topic, in the order in which changes that wait together are told: whoever hears that
    /// a run was claimed and is pending again must hear the latter last.
    pub const ALL: [Self; 10] = [
        Self::Claimed,
        Self::Pending,
        Self::Stop,
        Self::Chat,
        Self::Owner,
        Self::Token,
        Self::Stale,
        Self::Agent,
        Self::Definitions,
        Self::Pool,
    ];

    /// Returns the word that metrics use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Claimed => "claimed",
            Self::Pending => "pending",
            Self::Stop => "stop",
            Self::Chat => "chat",
            Self::Owner => "owner",
            Self::Token => "token",
            Self::Stale => "stale",
            Self::Agent => "agent",
            Self::Definitions => "definitions",
            Self::Pool => "pool",
        }
    }
}

/// Tells tasks and processes that something changed.
///
/// A notice carries an id and no content: whoever wakes reads the database.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Publish: Send + Sync {
    /// Marks `id` as changed; never waits and never fails.
    ///
    /// Call it after the commit: a watcher that wakes must find the change.
    fn publish(&self, topic: Topic, id: Uuid);

    /// Marks `ids` as changed, at once: what is told of them is told together.
    fn publish_all(&self, topic: Topic, ids: &[Uuid]);

    /// Waits until everything marked so far was handed to the transport.
    async fn flush(&self) -> Result<(), PublishError>;
}

/// Notices could not be handed to the transport; they stay marked.
#[derive(Debug, thiserror::Error)]
#[error("failed to publish what changed")]
pub struct PublishError(#[source] pub Box<dyn Error + Send + Sync>);

/// Gives notice of changes.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Watch: Send + Sync {
    /// Begins to watch.
    ///
    /// Each change published after this returns leads to a [`Notice`] within a bounded time.
    async fn watch(&self, topic: Topic, interest: Interest)
    -> Result<Box<dyn Watcher>, WatchError>;

    /// Says whether notices of other processes are known to arrive at present.
    ///
    /// Who looks by itself, too, may look seldom while this is true and must not while it is false.
    fn is_confirmed(&self) -> bool;
}

/// Watching could not begin.
#[derive(Debug, thiserror::Error)]
#[error("failed to watch for changes")]
pub struct WatchError(#[source] pub Box<dyn Error + Send + Sync>);

/// Which ids of a topic somebody watches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Every one.
    All,
    /// This one; it takes no room of its own.
    One(Uuid),
    /// These; of none, nothing is ever told.
    Ids(BTreeSet<Uuid>),
}

/// One who watches; dropping it ends the watch.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Watcher: Send {
    /// Waits for changes and returns all that were marked since the last call.
    ///
    /// Marks are a set, so a slow watcher loses nothing. Dropping the future loses nothing either.
    async fn recv(&mut self) -> Notice;
}

/// What a watcher learns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// These ids changed, each at least once.
    Changed(BTreeSet<Uuid>),
    /// Something may have changed that cannot be named: read everything again.
    Resync(Resync),
}

/// A change that cannot be named, or that may have been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resync {
    /// Why it cannot be named; of several causes the first.
    pub cause: ResyncCause,
    /// When notices were last known to arrive, by this process's clock; what was published and
    /// acknowledged before was told. `None` when that is not known.
    pub since: Option<Timestamp>,
}

impl Resync {
    /// Says that anything may have changed at any time.
    pub const fn of(cause: ResyncCause) -> Self {
        Self { cause, since: None }
    }

    /// Covers what `later` covers, too.
    #[must_use]
    pub fn and(self, later: Self) -> Self {
        // None is less than any time, and means the earliest.
        Self { cause: self.cause, since: self.since.min(later.since) }
    }
}

/// Why changes cannot be named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResyncCause {
    /// More ids changed than a watcher's marks hold.
    Overflow,
    /// So many ids changed that they were not named one by one.
    Unnamed,
    /// Notices of one publisher were missing between two others.
    Gap,
    /// The connection broke and was made anew.
    Reconnect,
    /// The connection was silent without an end and was made anew.
    Silence,
}

impl ResyncCause {
    /// Returns the word that metrics use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Overflow => "overflow",
            Self::Unnamed => "unnamed",
            Self::Gap => "gap",
            Self::Reconnect => "reconnect",
            Self::Silence => "silence",
        }
    }
}
