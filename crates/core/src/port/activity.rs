use async_trait::async_trait;

use super::StoreError;
use crate::activity::Activity;

/// Keeps when workspaces were last used, and until when they run.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait ActivityStore: Send + Sync {
    /// Moves the last use of workspaces forward, and their deadlines as their templates say, in
    /// one statement; returns how many workspaces it found.
    ///
    /// A deadline moves only forward, never beyond the workspace's last one, and not while it has
    /// been extended lately. Repeated, it changes nothing more.
    async fn touch(&self, activity: &Activity) -> Result<u64, StoreError>;
}
