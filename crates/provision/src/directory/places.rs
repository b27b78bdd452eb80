//! Where the things of a workspace are.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use musterbeat_core::id::{OwnerId, WorkspaceId};

/// The paths of one workspace.
///
/// Those of work under way have one name each, so that what a process left behind is found
/// without a look through the root.
#[derive(Clone, Debug)]
pub(super) struct Places {
    root: PathBuf,
    workspace: WorkspaceId,
}

impl Places {
    pub(super) fn new(root: &Path, workspace: WorkspaceId) -> Self {
        Self { root: root.to_owned(), workspace }
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Returns the one true place of the workspace.
    pub(super) fn workspace(&self) -> PathBuf {
        self.root.join(self.workspace.to_string())
    }

    /// Returns where the copy of a template grows.
    pub(super) fn start(&self) -> PathBuf {
        self.under_way("start")
    }

    /// Returns where the workspace is while it is removed.
    pub(super) fn delete(&self) -> PathBuf {
        self.under_way("delete")
    }

    /// Returns where a label is before it is in its place.
    ///
    /// It is not in the workspace, where others could lay a link for it.
    pub(super) fn label(&self) -> PathBuf {
        self.under_way("label")
    }

    /// Returns where a link is before it is in its place.
    pub(super) fn link(&self) -> PathBuf {
        self.under_way("link")
    }

    pub(super) fn lock(&self) -> PathBuf {
        self.under_way("lock")
    }

    /// Returns the folder of the links of `owner`.
    pub(super) fn links_of(&self, owner: OwnerId) -> PathBuf {
        self.root.join("by-owner").join(owner.to_string())
    }

    /// Returns what links of an owner hold.
    pub(super) fn link_target(&self) -> PathBuf {
        Path::new("../..").join(self.workspace.to_string())
    }

    fn under_way(&self, work: &str) -> PathBuf {
        self.root.join(format!(".{work}-{}", self.workspace))
    }
}

/// Says whether a folder can have something of this name.
pub(super) fn is_file_name(name: &str) -> bool {
    // Of every filesystem that is likely.
    const BYTES_MAX: usize = 255;
    name.len() <= BYTES_MAX
        && !name.contains('\0')
        && Path::new(name).file_name() == Some(OsStr::new(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_lead_nowhere_else() {
        for name in ["a", "blue moon", "...", ".a", "grün"] {
            assert!(is_file_name(name), "{name:?}");
        }
        let long = "a".repeat(256);
        for name in ["", ".", "..", "/", "a/b", "/a", "a/", "a/.", "a\0", &long] {
            assert!(!is_file_name(name), "{name:?}");
        }
    }
}
