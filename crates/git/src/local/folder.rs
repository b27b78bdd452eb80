//! The folder whose repositories are served, and no others.

use std::io::{self, ErrorKind};
use std::path::{Component, Path, PathBuf};

use git2::{ErrorCode, Repository, RepositoryOpenFlags};
use musterbeat_core::port::FetchError;

use super::branch::failed;

/// A folder of this machine.
#[derive(Debug)]
pub(crate) struct Folder {
    /// INVARIANT: absolute, and without symbolic links when it was made.
    root: PathBuf,
}

impl Folder {
    /// Finds the folder; blocks.
    pub(crate) fn new(path: &Path) -> io::Result<Self> {
        let root = path.canonicalize()?;
        if root.is_dir() { Ok(Self { root }) } else { Err(ErrorKind::NotADirectory.into()) }
    }

    /// Returns the folder itself.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Says whether `path` is at or below the folder, wherever links lead; blocks.
    ///
    /// What is not there is judged by the folder that it would be in.
    pub(crate) fn serves(&self, path: &Path) -> bool {
        let leads_up = path.components().any(|part| part == Component::ParentDir);
        let mut existing = path.ancestors().map(Path::canonicalize);
        match path.canonicalize() {
            Ok(real) => real.starts_with(&self.root),
            Err(_) if leads_up => false,
            Err(_) => existing.find_map(Result::ok).is_some_and(|at| at.starts_with(&self.root)),
        }
    }

    /// Opens the repository at `path` and looks for none above it; blocks.
    pub(super) fn open(&self, path: &Path) -> Result<Repository, FetchError> {
        // The path is judged anew, for links may have changed.
        if !self.serves(path) {
            return Err(FetchError::Refused);
        }
        let none: [&Path; 0] = [];
        let opened = Repository::open_ext(path, RepositoryOpenFlags::NO_SEARCH, none);
        let repository = opened.map_err(|error| match error.code() {
            ErrorCode::Owner => FetchError::Host(
                "the repository belongs to another user: add it to safe.directory of git's \
                 configuration"
                    .to_owned(),
            ),
            _ => failed(&error),
        })?;
        // A work tree names the folder of its repository in a file, which may lead anywhere.
        let is_inside = self.serves(repository.path()) && self.serves(repository.commondir());
        if is_inside { Ok(repository) } else { Err(FetchError::Refused) }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_what_is_inside_is_served() {
        let outer = tempfile::tempdir().unwrap();
        let at = |path: &str| outer.path().join(path);
        fs::create_dir_all(at("root/group")).unwrap();
        fs::create_dir_all(at("root-too")).unwrap();
        symlink(at("root/group"), at("root/inward")).unwrap();
        symlink(at("root-too"), at("root/outward")).unwrap();
        let folder = Folder::new(&at("root")).unwrap();
        for (path, is_served) in [
            ("root", true),
            ("root/", true),
            ("root/group", true),
            ("root/inward", true),
            ("root/group/..", true),
            ("root/missing", true),
            ("root/missing/deeper", true),
            ("root-too", false),
            ("root/..", false),
            ("root/../root-too", false),
            ("root/missing/../../root-too", false),
            ("root/missing/../../missing", false),
            ("root/outward", false),
            ("root/outward/missing", false),
            ("", false),
        ] {
            assert_eq!(folder.serves(&at(path)), is_served, "{path}");
        }
    }
}
