//! Tries binaries: a folder counts when the server in it answers the user who will run it.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::command::{self, CommandError, Tail};
use crate::source::{Binaries, Origin};
use crate::user::RunAs;
use crate::version::{OLDEST_MAJOR, Version};

/// A version is told within milliseconds, unless the binary is not what it seems.
const VERSION_LIMIT: Duration = Duration::from_secs(20);

/// Programs without which a folder is not worth a try.
const PROGRAMS: [&str; 2] = ["postgres", "initdb"];

/// What binaries must be good for.
#[derive(Clone, Debug)]
pub(crate) struct Needs {
    /// Who must be able to run them.
    pub(crate) run_as: RunAs,
    /// The major version of the database that they are for, when it exists.
    pub(crate) major: Option<u32>,
}

/// Returns the first usable candidate, or why there is none; `None` when there are no candidates.
pub(crate) fn first_usable(
    candidates: impl IntoIterator<Item = PathBuf>,
    origin: Origin,
    needs: &Needs,
) -> Option<Result<Binaries, String>> {
    let mut rejects = Vec::new();
    for candidate in candidates {
        match probe(&candidate, origin, needs) {
            Ok(binaries) => return Some(Ok(binaries)),
            Err(reject) => rejects.push(in_full(&reject)),
        }
    }
    (!rejects.is_empty()).then(|| Err(rejects.join("; ")))
}

/// Returns the usable candidate of the highest version; otherwise as [`first_usable`].
pub(crate) fn newest_usable(
    candidates: impl IntoIterator<Item = PathBuf>,
    origin: Origin,
    needs: &Needs,
) -> Option<Result<Binaries, String>> {
    let (usable, rejects): (Vec<_>, Vec<_>) = candidates
        .into_iter()
        .map(|candidate| probe(&candidate, origin, needs))
        .partition(Result::is_ok);
    match usable.into_iter().flatten().max_by_key(|binaries| binaries.version) {
        Some(newest) => Some(Ok(newest)),
        None if rejects.is_empty() => None,
        None => {
            let reasons: Vec<_> =
                rejects.iter().filter_map(|reject| reject.as_ref().err()).map(in_full).collect();
            Some(Err(reasons.join("; ")))
        }
    }
}

/// Says an error with all its causes: a list of reasons has no place for a chain.
pub(crate) fn in_full(error: &(impl Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |cause| (*cause).source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

/// Tries the binaries of `folder`, whose real folder is found through symbolic links.
///
/// `initdb` looks for its templates beside itself, so a link to it in `/usr/local/bin` does not do.
pub(crate) fn probe(folder: &Path, origin: Origin, needs: &Needs) -> Result<Binaries, Reject> {
    let postgres = fs::canonicalize(folder.join(PROGRAMS[0]));
    let bin_dir = postgres.ok().and_then(|program| program.parent().map(Path::to_path_buf));
    let bin_dir = bin_dir.unwrap_or_else(|| folder.to_path_buf());
    if let Some(program) = PROGRAMS.into_iter().find(|name| !bin_dir.join(name).is_file()) {
        return Err(Reject::Missing { folder: bin_dir, program });
    }
    if let Some(barrier) = needs.run_as.barred_from(&bin_dir) {
        return Err(Reject::Unreachable {
            user: needs.run_as.to_string(),
            barrier,
            folder: bin_dir,
        });
    }
    // A package in pieces may hold an `initdb` that lacks a library.
    ask_version(&bin_dir.join(PROGRAMS[1]), needs)?;
    let answer = ask_version(&bin_dir.join(PROGRAMS[0]), needs)?;
    let Some(version) = Version::parse(&answer) else {
        return Err(Reject::NoVersion { folder: bin_dir, answer: Tail::of(&answer) });
    };
    match needs.major {
        _ if version.major < OLDEST_MAJOR => Err(Reject::TooOld { folder: bin_dir, version }),
        Some(major) if major != version.major => {
            Err(Reject::OtherMajor { folder: bin_dir, version })
        }
        _ => Ok(Binaries { bin_dir, version, origin }),
    }
}

/// Lets a program tell its version, as the user who will run it.
fn ask_version(program: &Path, needs: &Needs) -> Result<String, CommandError> {
    let mut ask = Command::new(program);
    ask.arg("--version").env_clear().current_dir("/");
    needs.run_as.apply(&mut ask);
    command::run(ask, VERSION_LIMIT)
}

/// Why binaries do not count.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Reject {
    #[error("{} has no `{program}`", folder.display())]
    Missing { folder: PathBuf, program: &'static str },
    #[error(
        "{user} may not enter {}, which is above {}: allow it with `chmod o+x`",
        barrier.display(), folder.display()
    )]
    Unreachable { user: String, barrier: PathBuf, folder: PathBuf },
    #[error(transparent)]
    Failed(#[from] CommandError),
    #[error("`postgres --version` in {} names no version{answer}", folder.display())]
    NoVersion { folder: PathBuf, answer: Tail },
    #[error("{} holds PostgreSQL {version}, older than {OLDEST_MAJOR}", folder.display())]
    TooOld { folder: PathBuf, version: Version },
    #[error("{} holds PostgreSQL {version}, another major version", folder.display())]
    OtherMajor { folder: PathBuf, version: Version },
}
