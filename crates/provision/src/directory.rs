//! A provisioner whose workspaces are folders, prepared as copies of templates' folders.
//!
//! # What is where
//! | path | is |
//! |---|---|
//! | `TEMPLATES/SOURCE/` | a template; `SOURCE` is the source of a build |
//! | `ROOT/WORKSPACE-ID/` | the workspace, from its first start until it is deleted |
//! | `ROOT/WORKSPACE-ID/.musterbeat.json` | who it is: its id, name, owner and parameters |
//! | `ROOT/by-owner/OWNER-ID/NAME` | a symbolic link to it, for people |
//! | `ROOT/.start-…`, `.delete-…`, `.label-…`, `.link-…`, `.lock-…` | work under way, or left behind by a process that died |
//!
//! The folder of a workspace is never renamed while it is one: programs that work in it stay
//! where they are when it is claimed. What a claim changes is the label and the link.
//!
//! # What a build does
//! *Start* copies the template beside the place and renames the copy into it, so that a workspace
//! is there as a whole or not at all. One that is there already is left as it is.
//! *Claim* writes the label anew and links the folder under its owner.
//! *Stop* does nothing.
//! *Delete* takes away the links of its owner, the folder with everything below it, and what is
//! left of earlier work.
//!
//! Each may be carried out again, by any process that sees the same root: locks of files let one
//! at a time work on a workspace, and end with their process. A root on a network needs them too.
//!
//! # What is copied
//! Folders, files and symbolic links, with their permissions; folders and files also with the
//! time of their last change, which tools that build look at. Links are copied as they are,
//! wherever they lead, and none is followed. Hard links become files of their own. Owners, setuid,
//! setgid and sticky bits are not kept: what is copied is this process's. Anything else, such as a
//! FIFO, makes the build invalid. A `.musterbeat.json` of the template is left out.
//!
//! Templates are the operator's: who may change them while they are copied decides what comes of
//! it. Workspaces are others': what happens in them while they are deleted does not lead out of
//! them.

mod brake;
mod copy;
mod error;
mod label;
mod link;
mod lock;
mod places;
mod remove;
mod template;
mod work;

use std::io;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use musterbeat_core::build::{Build, Provisioned, Transition};
use musterbeat_core::port::{BuildContext, ProvisionError, Provisioner};
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};

use self::brake::Brake;
use self::error::WorkError;
use self::lock::Lock;
use self::places::Places;
use self::work::Work;

pub use self::error::{AddTemplateError, CheckError};

/// Files of a template, at most, by default: a large tree of dependencies fits several times.
pub const FILES_MAX: u64 = 1_000_000;

/// Bytes of a template, at most, by default.
pub const BYTES_MAX: u64 = 100 * 1024 * 1024 * 1024;

/// Time to wait for another process at work on the same workspace. Then the build fails, and an
/// attempt later may find it done.
const LOCK_WAIT_MAX: Duration = Duration::from_mins(1);

/// Time between two looks for a lock: short beside a copy, and long beside a look.
const LOCK_LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Carries out builds with folders; the module describes where they are.
#[derive(Clone, Debug)]
pub struct DirectoryProvisioner {
    /// Holds the workspaces. It must be there: a root that is not mounted is not made anew.
    pub root: PathBuf,
    /// Holds the templates.
    pub templates: PathBuf,
    /// What a template may have.
    pub limits: DirectoryLimits,
}

/// What a template may have at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectoryLimits {
    /// Folders, files and links in it.
    pub files_max: u64,
    /// Bytes of its files.
    pub bytes_max: u64,
}

impl Default for DirectoryLimits {
    fn default() -> Self {
        Self { files_max: FILES_MAX, bytes_max: BYTES_MAX }
    }
}

impl DirectoryProvisioner {
    /// Says whether workspaces can be made: whether the root can be written and locked, and the
    /// templates can be read. It blocks for as long as the filesystem does.
    ///
    /// # Errors
    /// What is wrong, with its remedy. A replica for which something is should serve no builds.
    pub fn check(&self) -> Result<(), CheckError> {
        let probe = self.root.join(".probe");
        let root_error = |source| CheckError::Root { root: self.root.clone(), source };
        let file = std::fs::File::create(&probe).map_err(root_error)?;
        match file.try_lock() {
            // Somebody else may be at it: the name is the same for all.
            Ok(()) | Err(std::fs::TryLockError::WouldBlock) => {}
            Err(std::fs::TryLockError::Error(source)) => {
                return Err(CheckError::Locks { root: self.root.clone(), source });
            }
        }
        match std::fs::remove_file(&probe) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(root_error(error)),
            _ => self.templates.read_dir().map(drop).map_err(|source| CheckError::Templates {
                templates: self.templates.clone(),
                source,
            }),
        }
    }

    async fn carry_out(
        &self,
        build: &Build,
        context: Arc<dyn BuildContext>,
    ) -> Result<(), WorkError> {
        let places = Places::new(&self.root, build.workspace);
        let mut stopped = pin!(context.stopped());
        let lock = tokio::select! {
            biased;
            _ = &mut stopped => return Err(WorkError::Stopped),
            lock = lock(&places) => lock?,
        };
        let brake = Brake::default();
        // Nobody waits any more for a future that is dropped.
        let _pulled_at_last = brake.pulled_on_drop();
        let work = Work {
            places,
            templates: self.templates.clone(),
            limits: self.limits,
            build: build.clone(),
            brake: brake.clone(),
            context: context.clone(),
        };
        let mut task = pin!(blocking(move || work.carry_out(lock)));
        tokio::select! {
            biased;
            ended = &mut task => return ended,
            _ = stopped => brake.pull(),
        }
        task.await
    }
}

/// Copies `folder` to the template `source` in `templates`, whole or not at all; it blocks.
///
/// A template that is there already is left as it is: prebuilds may be made of it at any moment.
///
/// # Errors
/// What is wrong with the folder or the source, or that the template is there.
pub fn add_template(
    folder: &Path,
    templates: &Path,
    source: &str,
    limits: DirectoryLimits,
) -> Result<(), AddTemplateError> {
    template::add(folder, templates, source, limits).map_err(AddTemplateError)
}

#[async_trait]
impl Provisioner for DirectoryProvisioner {
    async fn provision(
        &self,
        build: &Build,
        context: Arc<dyn BuildContext>,
    ) -> Result<Provisioned, ProvisionError> {
        if build.transition != Transition::Stop {
            self.carry_out(build, context).await?;
        }
        Ok(Provisioned::default())
    }
}

/// Waits until nobody else works on the workspace.
async fn lock(places: &Places) -> Result<Lock, WorkError> {
    let locked = async {
        loop {
            let places = places.clone();
            if let Some(lock) = blocking(move || Lock::attempt(&places)).await? {
                return Ok(lock);
            }
            sleep(LOCK_LOOK_INTERVAL).await;
        }
    };
    timeout(LOCK_WAIT_MAX, locked).await.unwrap_or(Err(WorkError::Busy(LOCK_WAIT_MAX)))
}

/// Does what blocks where it may.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, WorkError> + Send + 'static,
) -> Result<T, WorkError> {
    match spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime ends, and took it off its queue.
        Err(_) => Err(WorkError::Stopped),
    }
}

#[cfg(test)]
mod tests {
    use musterbeat_core::run::StopCause;

    use super::*;

    /// Pulls a brake at each line of the log.
    #[derive(Default)]
    pub(super) struct Pulls(pub(super) Brake);

    #[async_trait]
    impl BuildContext for Pulls {
        async fn stopped(&self) -> StopCause {
            std::future::pending().await
        }

        fn log(&self, _line: &str) {
            self.0.pull();
        }
    }
}
