use async_trait::async_trait;

use super::{Reach, StoreError};
use crate::diff::{ChatDiff, Reference};
use crate::id::{ChatId, OwnerId, WorkspaceId};
use crate::refresh::{HostLimit, Refreshed, StaleDiff};

/// Keeps the states of chats' branches.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait DiffStore: Send + Sync {
    /// Returns what is stored of chats; one of which nothing is, or out of reach, is absent.
    async fn read(&self, chats: &[ChatId], reach: Reach) -> Result<Vec<ChatDiff>, StoreError>;

    /// Makes chats stale and keeps what `reference` says; returns them with their owners.
    ///
    /// What `reference` leaves out stays as it was. Another branch or origin takes with it what
    /// was told of the one before, its pull request too. A chat that is out of reach is none.
    async fn mark(
        &self,
        target: DiffTarget,
        reach: Reach,
        reference: &Reference,
    ) -> Result<Vec<(ChatId, OwnerId)>, StoreError>;

    /// Leases what is to be asked for [`LEASE`](crate::refresh::LEASE); nobody else gets it.
    ///
    /// What somebody holds locked is passed over, and so is, of what is stale, whatever would be
    /// asked of a host that wants to be left alone by this owner.
    async fn acquire(&self, select: Select) -> Result<Vec<StaleDiff>, StoreError>;

    /// Writes what was found, and which hosts want to be left alone; returns what changed.
    ///
    /// Of a lease that somebody else has by now nothing is written. What was marked since it was
    /// leased stays stale.
    async fn write(
        &self,
        refreshed: &[Refreshed],
        limits: &[HostLimit],
    ) -> Result<Vec<(ChatId, OwnerId)>, StoreError>;
}

/// Which chats to mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiffTarget {
    /// This one.
    Chat(ChatId),
    /// Those of a workspace that are on the named branch, or on none yet.
    Workspace(WorkspaceId),
}

/// What to lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Select {
    /// The stalest, up to a number, with other stale ones that the same questions answer.
    Stale(u32),
    /// This one, stale or not, even if somebody else is at it.
    Chat(ChatId, Reach),
}
