//! Where installed binaries may lie.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{env, fs};

use crate::command;

/// `pg_config` only prints; this is for a file system that is slow to wake.
const PG_CONFIG_LIMIT: Duration = Duration::from_secs(10);

/// Where packages put binaries; a star stands for part of one name.
pub(crate) const USUAL: &[&str] = &[
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/usr/local/pgsql/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/home/linuxbrew/.linuxbrew/opt/postgresql@*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
];

/// Returns the folders of `PATH` that hold `postgres`.
pub(crate) fn path() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    // An empty entry means the current folder, which is no place to take a server from.
    env::split_paths(&path)
        .filter(|folder| folder.is_absolute() && folder.join("postgres").is_file())
        .collect()
}

/// Returns the folder that `pg_config` names, or why it names none.
pub(crate) fn pg_config() -> Result<PathBuf, String> {
    let mut ask = Command::new("pg_config");
    ask.arg("--bindir");
    match command::run(ask, PG_CONFIG_LIMIT) {
        Ok(answer) => Ok(PathBuf::from(answer.trim())),
        Err(error) if error.is_missing() => Err("it is not installed".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Returns the usual folders that exist.
pub(crate) fn usual() -> Vec<PathBuf> {
    USUAL.iter().flat_map(|pattern| expand(pattern)).collect()
}

/// Returns the folders that `pattern` means.
fn expand(pattern: &str) -> Vec<PathBuf> {
    let Some((before, after)) = pattern.split_once('*') else {
        return Some(PathBuf::from(pattern)).filter(|folder| folder.is_dir()).into_iter().collect();
    };
    let (parent, prefix) = before.rsplit_once('/').unwrap_or((".", before));
    let (suffix, rest) = after.split_once('/').unwrap_or((after, ""));
    // A parent at the root is an empty text before its slash.
    let parent = if parent.is_empty() { Path::new("/") } else { Path::new(parent) };
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    let named = entries.filter(|entry| {
        let name = entry.file_name();
        name.to_str().is_some_and(|name| name.starts_with(prefix) && name.ends_with(suffix))
    });
    named.map(|entry| entry.path().join(rest)).filter(|folder| folder.is_dir()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_part_of_one_name() {
        let root = tempfile::tempdir().unwrap();
        for folder in ["pgsql-15/bin", "pgsql-18/bin", "pgsql-19/lib", "other/bin"] {
            fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        let mut found = expand(&format!("{}/pgsql-*/bin", root.path().display()));
        found.sort();
        assert_eq!(found, ["pgsql-15/bin", "pgsql-18/bin"].map(|folder| root.path().join(folder)));
    }
}
