//! Repositories in a folder of this machine.
//!
//! They have no pull requests: a branch is compared with the repository's default branch.

mod base;
mod branch;
mod figures;
mod folder;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use musterbeat_core::diff::{DiffStatus, Reference};
use musterbeat_core::port::{FetchError, GitProvider};
use tokio::sync::Semaphore;

pub(crate) use folder::Folder;

/// Repositories read at the same time by all who ask: each reading takes a thread and a disk.
pub(crate) const READERS: usize = 4;

/// A repository that a folder serves.
#[derive(Debug)]
pub(crate) struct LocalRepository {
    folder: Arc<Folder>,
    path: PathBuf,
    readers: Arc<Semaphore>,
}

impl LocalRepository {
    /// Returns who tells of the repository at `path`; `None` when it is not in the folder.
    pub(crate) async fn open(
        folder: Arc<Folder>,
        path: PathBuf,
        readers: Arc<Semaphore>,
    ) -> Option<Self> {
        let (asked, wanted) = (Arc::clone(&folder), path.clone());
        let serves = tokio::task::spawn_blocking(move || asked.serves(&wanted)).await;
        serves.unwrap_or(false).then_some(Self { folder, path, readers })
    }
}

#[async_trait]
impl GitProvider for LocalRepository {
    async fn fetch(&self, reference: &Reference) -> Result<Option<DiffStatus>, FetchError> {
        let gone = || FetchError::Host("it is shutting down".to_owned());
        let permit = Arc::clone(&self.readers).acquire_owned().await.map_err(|_| gone())?;
        let given_up = GivenUp::default();
        let (folder, path) = (Arc::clone(&self.folder), self.path.clone());
        let (name, flag) = (reference.branch.clone(), given_up.flag());
        let reading = tokio::task::spawn_blocking(move || {
            // Held until the thread ends, so that questions that were given up count too.
            let _permit = permit;
            branch::read(&folder, &path, &name, &flag)
        });
        reading.await.map_err(|_| gone())?.map(Some)
    }
}

/// Tells a thread that nobody waits for it any more, once this is dropped.
#[derive(Default)]
struct GivenUp(Arc<AtomicBool>);

impl GivenUp {
    fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }
}

impl Drop for GivenUp {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
