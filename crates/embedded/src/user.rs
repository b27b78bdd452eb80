//! The user that PostgreSQL runs as: oneself, but never root.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, fchown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{fmt, io};

use nix::unistd::{Uid, User, geteuid};

/// Users that root may become, best first. `nobody` exists everywhere.
const ACCOUNTS: [&str; 2] = ["postgres", "nobody"];

/// The user that PostgreSQL's programs run as.
#[derive(Clone, Debug)]
pub(crate) enum RunAs {
    /// Whoever we are, which is not root.
    Oneself,
    /// An unprivileged user, because we are root and PostgreSQL refuses root.
    Account(User),
}

impl RunAs {
    /// Chooses the user for the database folder `pgdata`, which need not exist.
    ///
    /// A database that exists keeps its owner. `None` when root finds nobody to become.
    pub(crate) fn choose(pgdata: Option<&Path>) -> Option<Self> {
        if !geteuid().is_root() {
            return Some(Self::Oneself);
        }
        let found = pgdata.and_then(|folder| fs::symlink_metadata(folder).ok());
        found
            .map(|found| found.uid())
            .filter(|uid| *uid != 0)
            // initdb and postgres look themselves up: a user without an entry does not do.
            .and_then(|uid| User::from_uid(Uid::from_raw(uid)).ok().flatten())
            .or_else(|| ACCOUNTS.iter().find_map(|name| User::from_name(name).ok().flatten()))
            .map(Self::Account)
    }

    /// Makes `command` run as this user.
    pub(crate) fn apply(&self, command: &mut Command) {
        if let Self::Account(user) = self {
            // Setting the user as root also empties the list of supplementary groups.
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
    }

    /// Gives the open file or folder to this user.
    pub(crate) fn own(&self, file: &File) -> io::Result<()> {
        match self {
            Self::Oneself => Ok(()),
            Self::Account(user) => fchown(file, Some(user.uid.as_raw()), Some(user.gid.as_raw())),
        }
    }

    /// Returns the first folder on the way to `path` that this user may not enter.
    pub(crate) fn barred_from(&self, path: &Path) -> Option<PathBuf> {
        let Self::Account(user) = self else { return None };
        let mut ancestors: Vec<&Path> = path.ancestors().collect();
        ancestors.reverse();
        ancestors.into_iter().find(|folder| !may_enter(user, folder)).map(Path::to_path_buf)
    }
}

impl fmt::Display for RunAs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Oneself => f.write_str("this user"),
            Self::Account(user) => write!(f, "user {}", user.name),
        }
    }
}

/// Tells whether `user` may enter `folder`; what is no folder, or not there, bars nobody.
fn may_enter(user: &User, folder: &Path) -> bool {
    let Ok(found) = fs::metadata(folder) else { return true };
    let entered_by = match () {
        () if found.uid() == user.uid.as_raw() => 0o100,
        () if found.gid() == user.gid.as_raw() => 0o010,
        () => 0o001,
    };
    // An access list may allow what the mode bits forbid, so the last word has a real try.
    !found.is_dir() || found.mode() & entered_by != 0 || enters(user, folder)
}

/// Tries to start a program of `user` inside `folder`.
fn enters(user: &User, folder: &Path) -> bool {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", ":"]).current_dir(folder).env_clear();
    command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok()
}
