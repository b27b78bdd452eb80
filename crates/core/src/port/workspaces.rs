use async_trait::async_trait;

use super::{Reach, StoreError};
use crate::build::Transition;
use crate::id::{BuildId, OwnerId, WorkspaceId};
use crate::page::Limit;
use crate::prebuild::PoolName;
use crate::workspace::{BuildState, Order, Workspace};

/// Keeps workspaces.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait WorkspaceStore: Send + Sync {
    /// Gives the oldest prebuild that can be claimed to somebody, and has it built over for them.
    ///
    /// Two who claim at once never get the same one and never wait for each other. Repeated with
    /// the same build, the same workspace is returned.
    async fn claim(&self, order: &Order) -> Result<Claimed, WorkspaceError>;

    /// Makes a workspace, and has it built; repeated with the same build, it is returned again.
    async fn create(&self, order: &Order) -> Result<WorkspaceId, WorkspaceError>;

    /// Has a workspace started, stopped or deleted; repeated with the same build, nothing changes.
    async fn build(
        &self,
        workspace: WorkspaceId,
        reach: Reach,
        build: BuildId,
        transition: Transition,
    ) -> Result<(), WorkspaceError>;

    /// Returns a workspace that is not deleted; `None` when it is not there or out of reach.
    async fn get(
        &self,
        workspace: WorkspaceId,
        reach: Reach,
    ) -> Result<Option<Workspace>, StoreError>;

    /// Returns an owner's workspaces, the youngest first; those that are older than `after`.
    async fn list(
        &self,
        owner: OwnerId,
        after: Option<WorkspaceId>,
        limit: Limit,
    ) -> Result<Vec<Workspace>, StoreError>;

    /// Returns the builds of a workspace, the youngest first; 200 at most, `None` without it.
    async fn builds(
        &self,
        workspace: WorkspaceId,
        reach: Reach,
    ) -> Result<Option<Vec<BuildState>>, StoreError>;
}

/// A prebuild that is somebody's now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claimed {
    /// Which workspace it is.
    pub workspace: WorkspaceId,
    /// Of which pool it was; `None` when it was claimed before, by the same build.
    pub pool: Option<PoolName>,
}

/// A workspace was not made, claimed or built.
#[derive(Debug, thiserror::Error)]
pub enum WorkspaceError {
    /// There is no such workspace within the caller's reach, or no such preset.
    #[error("there is no such workspace or preset")]
    NotFound,
    /// No prebuild of the preset can be claimed now.
    #[error("no prebuild of the preset is ready")]
    NoClaimable,
    /// The preset is not of the active version of a template that may be used.
    #[error("the preset is not of an active version")]
    NotActive,
    /// Another workspace of the owner bears the name.
    #[error("the name is taken")]
    NameTaken,
    /// A build of it is under way.
    #[error("a build of the workspace is under way")]
    Busy,
    /// Storage failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
