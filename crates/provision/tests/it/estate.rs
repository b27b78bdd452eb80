//! A root with templates, and those who look at them.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use musterbeat_core::build::{Build, Provisioned};
use musterbeat_core::port::{BuildContext, ProvisionError, Provisioner};
use musterbeat_core::run::StopCause;
use musterbeat_provision::{DirectoryLimits, DirectoryProvisioner};
use tempfile::TempDir;
use tokio::time::timeout;

use crate::world::World;

/// Longest wait for anything; a test that meets it has failed.
const PATIENCE: Duration = Duration::from_mins(1);

/// The id of the one workspace of a test.
pub(crate) const WORKSPACE: &str = "00000000-0000-0000-0000-000000000002";

/// The id of its owner.
pub(crate) const OWNER: &str = "00000000-0000-0000-0000-000000000003";

/// A root, and templates of which one is `rust`.
pub(crate) struct Estate {
    /// Holds both, and what is outside of them.
    pub(crate) folder: TempDir,
}

impl Estate {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("root")).unwrap();
        fs::create_dir_all(folder.path().join("templates/rust")).unwrap();
        Self { folder }
    }

    pub(crate) fn provisioner(&self) -> DirectoryProvisioner {
        DirectoryProvisioner {
            root: self.root(),
            templates: self.folder.path().join("templates"),
            limits: DirectoryLimits::default(),
        }
    }

    pub(crate) async fn run(&self, build: Build) -> Result<Provisioned, ProvisionError> {
        self.provisioner().provision(&build, World::new()).await
    }

    pub(crate) fn template(&self, path: &str, content: &str) {
        let path = self.in_template(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Fills the template with what is made and copied fast.
    pub(crate) fn template_of_many(&self, files: usize) {
        for number in 0..files {
            symlink("nowhere", self.in_template(&number.to_string())).unwrap();
        }
    }

    pub(crate) fn in_template(&self, path: &str) -> PathBuf {
        self.folder.path().join("templates/rust").join(path)
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    pub(crate) fn workspace(&self, path: &str) -> PathBuf {
        self.root().join(WORKSPACE).join(path)
    }

    pub(crate) fn read(&self, path: &str) -> String {
        fs::read_to_string(self.workspace(path)).unwrap()
    }

    /// Returns what is in the root, that of work under way last.
    pub(crate) fn root_entries(&self) -> Vec<String> {
        let mut names = names(&self.root());
        names.sort_by_key(|name| (name.starts_with('.'), name != "by-owner"));
        names
    }

    pub(crate) fn links(&self) -> Vec<String> {
        names(&self.root().join("by-owner").join(OWNER))
    }
}

pub(crate) fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Holds up who logs the first line, until it is told to go on or the build was stopped.
pub(crate) struct Held {
    pub(crate) world: Arc<World>,
    pub(crate) stopped: mpsc::Sender<()>,
    pub(crate) wait: Mutex<mpsc::Receiver<()>>,
}

#[async_trait]
impl BuildContext for Held {
    async fn stopped(&self) -> StopCause {
        let cause = self.world.stopped().await;
        // Nobody may be held up any more.
        let _ = self.stopped.send(());
        cause
    }

    fn log(&self, line: &str) {
        self.world.log(line);
        self.wait.lock().unwrap().recv_timeout(PATIENCE).unwrap();
    }
}

pub(crate) fn failed(ended: Result<Provisioned, ProvisionError>) -> String {
    match ended {
        Err(error @ ProvisionError::Failed(_)) => error.to_string(),
        other => panic!("it did not fail: {other:?}"),
    }
}

pub(crate) fn invalid(ended: Result<Provisioned, ProvisionError>) -> String {
    match ended {
        Err(ProvisionError::Invalid(text)) => text,
        other => panic!("it was valid: {other:?}"),
    }
}

pub(crate) async fn eventually(what: &str, reached: impl Fn() -> bool) {
    let looking = async {
        while !reached() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(timeout(PATIENCE, looking).await.is_ok(), "this did not come: {what}");
}
