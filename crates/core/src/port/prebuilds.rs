use std::num::NonZeroU32;
use std::time::Duration;

use async_trait::async_trait;

use super::StoreError;
use crate::id::{BuildId, PresetId, WorkspaceId};
use crate::prebuild::{PoolName, PresetSnapshot};
use crate::timestamp::Timestamp;

/// Sees to it that one at a time supplies the pools, and tells it how they stand.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait PrebuildLead: Send + Sync {
    /// Returns how all presets stand, in one statement; `None` while somebody else leads.
    ///
    /// It is asked on the very connection that holds the lead, so an answer proves it. After a call
    /// that failed the lead is given up. Failures longer ago than `lookback` are forgotten.
    async fn snapshot(&self, lookback: Duration) -> Result<Option<GlobalSnapshot>, StoreError>;

    /// Gives the lead up, so that another may take it at once.
    async fn resign(&self);
}

/// How all presets stand at one moment.
#[derive(Clone, Debug)]
pub struct GlobalSnapshot {
    /// When, on the database's clock.
    pub taken_at: Timestamp,
    /// Whether nothing is to be created or deleted.
    pub paused: bool,
    /// How many presets there are.
    pub presets_total: u64,
    /// Those that cannot be skipped, each once; for who supplies them, none while paused.
    pub pools: Vec<Pool>,
}

/// A preset and its prebuilds, as people know it.
#[derive(Clone, Debug)]
pub struct Pool {
    /// What it is called.
    pub name: PoolName,
    /// How it stands.
    pub preset: PresetSnapshot,
    /// Age of the oldest prebuild that can be claimed.
    pub oldest: Option<Duration>,
}

/// Supplies pools: each call locks what it changes, and looks again before it does.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait PrebuildStore: Send + Sync {
    /// Has prebuilds built until `wanted` are there or coming; returns the builds.
    ///
    /// None is ordered for a preset that is no longer active or healthy. Two who call it at once
    /// do not order twice.
    async fn create(&self, preset: PresetId, wanted: u32) -> Result<Vec<BuildId>, StoreError>;

    /// Has up to `limit` prebuilds deleted, the oldest first; returns the builds that do it.
    ///
    /// One that is claimed is not touched, and one that somebody holds locked is left.
    async fn delete(
        &self,
        preset: PresetId,
        which: DeletionOf,
        limit: u32,
    ) -> Result<Vec<BuildId>, StoreError>;

    /// Takes back up to `limit` builds of a preset that is not active, which nobody has begun,
    /// with their workspaces; returns how many.
    async fn cancel(&self, preset: PresetId, limit: u32) -> Result<u64, StoreError>;

    /// Marks a preset as hard limited if its last builds failed so often; says whether it did.
    async fn mark_hard_limited(
        &self,
        preset: PresetId,
        failures: NonZeroU32,
    ) -> Result<bool, StoreError>;

    /// Returns how pools stand, by the names of templates and presets; those of a preset if one is
    /// named. Presets that neither want nor have prebuilds are left out.
    async fn pools(&self, preset: Option<PresetId>) -> Result<GlobalSnapshot, StoreError>;

    /// Returns the prebuilds of a preset, the oldest first; 1,000 at most.
    async fn prebuilds(&self, preset: PresetId) -> Result<Vec<Prebuild>, StoreError>;

    /// Forgets up to `limit` builds of workspaces that were deleted longer ago than `history`, with
    /// what they said, and the workspaces of which none is left; returns how many builds.
    ///
    /// Chats stay, without their workspace.
    async fn forget(
        &self,
        which: Deleted,
        history: Duration,
        limit: u32,
    ) -> Result<u64, StoreError>;

    /// Pauses the supply of all pools, or goes on with it.
    async fn pause(&self, paused: bool) -> Result<(), StoreError>;
}

/// Which deleted workspaces to forget.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deleted {
    /// Prebuilds that were never anybody's.
    Prebuilds,
    /// Those that were somebody's.
    Workspaces,
}

/// Which prebuilds of a preset to delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeletionOf {
    /// Those of a preset that is not active.
    Outdated,
    /// Those that are too old, or older than the last invalidation.
    Expired,
    /// Those that could not be started or deleted, when it is time.
    Failed,
    /// Those beyond a number.
    Extraneous {
        /// How many are to stay.
        wanted: u32,
    },
}

/// A prebuild.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Prebuild {
    /// Its workspace.
    pub workspace: WorkspaceId,
    /// What that is called for now.
    pub name: String,
    /// Where it stands.
    pub status: PrebuildStatus,
    /// Its newest build.
    pub build: BuildId,
    /// When it was ordered.
    pub created_at: Timestamp,
}

/// Where a prebuild stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PrebuildStatus {
    /// It is being built.
    Starting,
    /// It can be claimed.
    Ready,
    /// It is being deleted.
    Deleting,
    /// It could not be built or deleted, and is to be deleted.
    Failed,
}

impl PrebuildStatus {
    /// Returns the word that storage and the wire use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Deleting => "deleting",
            Self::Failed => "failed",
        }
    }
}
