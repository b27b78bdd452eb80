//! What goes wrong with folders.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use musterbeat_core::port::ProvisionError;

use crate::explain::explained;

/// Why no workspaces can be made.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// A root that is not there or cannot be written.
    #[error(
        "the folder of workspaces {} cannot be written; create it or mount it, and let the user \
         of this process write there", root.display()
    )]
    Root {
        /// The folder.
        root: PathBuf,
        /// What was said when it was tried.
        source: io::Error,
    },
    /// A root whose files cannot be locked.
    #[error(
        "files in the folder of workspaces {} cannot be locked; put it on a filesystem with \
         locks, or mount it with them", root.display()
    )]
    Locks {
        /// The folder.
        root: PathBuf,
        /// What was said when it was tried.
        source: io::Error,
    },
    /// Templates that cannot be read.
    #[error(
        "the folder of templates {} cannot be read; create it or mount it, and let the user of \
         this process read it", templates.display()
    )]
    Templates {
        /// The folder.
        templates: PathBuf,
        /// What was said when it was tried.
        source: io::Error,
    },
}

/// Why a template was not added.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct AddTemplateError(pub(super) WorkError);

/// Why a build with folders did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(super) enum WorkError {
    #[error("it was stopped")]
    Stopped,
    #[error(transparent)]
    Check(#[from] CheckError),
    #[error("another process is at work on the workspace for longer than {0:?}")]
    Busy(Duration),
    #[error("failed to {action} {}", path.display())]
    File { action: &'static str, path: PathBuf, source: io::Error },
    #[error("there is no folder {} to claim; start the workspace first", .0.display())]
    Unstarted(PathBuf),
    #[error("{} is not a folder; move it away", .0.display())]
    Taken(PathBuf),
    #[error("{} is a mount point; unmount it before the workspace is deleted", .0.display())]
    Mounted(PathBuf),
    #[error(transparent)]
    Template(#[from] TemplateError),
}

/// What is wrong with a template, and stays so until it is changed.
#[derive(Debug, thiserror::Error)]
pub(super) enum TemplateError {
    #[error(
        "the source {0:?} is not a plain relative path: name a folder below the folder of \
         templates, without `.` and `..`"
    )]
    Source(String),
    #[error("there is a template {0:?} already; give the new one another name")]
    Added(String),
    #[error("there is no template {0:?} in the folder of templates")]
    Missing(String),
    #[error("the template {0:?} is a link that leads out of the folder of templates")]
    Outside(String),
    #[error("the template {0:?} holds the folder of workspaces; move one of them")]
    HoldsRoot(String),
    #[error(
        "the template has {}, which is {kind}: only folders, files and symbolic links can be \
         copied", path.display()
    )]
    Special { path: PathBuf, kind: &'static str },
    #[error("the template has more than {0} folders, files and links")]
    TooMany(u64),
    #[error("the template has more than {0} bytes")]
    TooLarge(u64),
    #[error("the template has {}, which is more than {depth_max} folders deep", path.display())]
    TooDeep { path: PathBuf, depth_max: usize },
}

impl WorkError {
    /// Returns what says that `action` failed at `path`.
    pub(super) fn file(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { action, path, source }
    }
}

impl From<WorkError> for ProvisionError {
    fn from(error: WorkError) -> Self {
        match &error {
            WorkError::Stopped => Self::Stopped,
            WorkError::Template(error) => Self::Invalid(explained(error)),
            _ => Self::Failed(explained(&error)),
        }
    }
}
