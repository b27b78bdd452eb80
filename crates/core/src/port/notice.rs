use std::collections::BTreeSet;
use std::error::Error;

use async_trait::async_trait;
use uuid::Uuid;

/// What sort of thing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Topic {
    /// A run became pending; the id is the run's.
    Pending,
    /// A chat's messages, queue or status changed; the id is the chat's.
    Chat,
    /// A token was revoked; the id is the token's.
    Token,
}

impl Topic {
    /// Every topic.
    pub const ALL: [Self; 3] = [Self::Pending, Self::Chat, Self::Token];

    /// Returns the word that metrics use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Chat => "chat",
            Self::Token => "token",
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
    /// These.
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
    Resync(ResyncCause),
}

/// Why changes cannot be named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResyncCause {
    /// More ids changed than a watcher's marks hold.
    Overflow,
    /// The transport lost notices, or may have.
    Gap,
}

impl ResyncCause {
    /// Returns the word that metrics use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Overflow => "overflow",
            Self::Gap => "gap",
        }
    }
}
