//! A repository that the program `git` makes, and what it says of it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use musterbeat_git::{HostConfig, Hosts, ProviderConfig};
use tempfile::TempDir;

/// A repository with a work tree, in a folder of its own.
pub(crate) struct Repository {
    folder: TempDir,
}

/// What `git` says of a branch.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Said {
    pub(crate) changed_files: u32,
    pub(crate) additions: u32,
    pub(crate) deletions: u32,
    pub(crate) ahead: u32,
    pub(crate) behind: u32,
}

impl Repository {
    /// Makes a repository on its branch `main`, with one commit of one file.
    pub(crate) fn new() -> Self {
        let repository = Self { folder: tempfile::tempdir().unwrap() };
        fs::create_dir(repository.path()).unwrap();
        repository.git(&["init", "--quiet", "--initial-branch=main"]);
        repository.write("README", "hello\n");
        repository.commit();
        repository
    }

    /// Returns the folder that holds the repository.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the work tree.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("repository")
    }

    /// Returns the origin.
    pub(crate) fn origin(&self) -> String {
        self.path().display().to_string()
    }

    /// Returns hosts that serve the folder.
    pub(crate) fn hosts(&self) -> Hosts {
        let origin = self.folder().display().to_string();
        Hosts::new(vec![HostConfig { origin, provider: ProviderConfig::Local }]).unwrap()
    }

    /// Writes a file of the work tree, with the folders above it.
    pub(crate) fn write(&self, file: &str, content: impl AsRef<[u8]>) {
        let path = self.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    /// Commits all that changed.
    pub(crate) fn commit(&self) {
        self.git(&["add", "--all"]);
        self.git(&["commit", "--quiet", "--allow-empty", "--message=work"]);
    }

    /// Runs `git` in the work tree, with no settings but its own defaults.
    pub(crate) fn git(&self, args: &[&str]) -> String {
        git(&self.path(), args)
    }

    /// Asks `git` how a branch differs from its base.
    pub(crate) fn said(&self, base: &str, branch: &str) -> Said {
        let range = format!("{base}...{branch}");
        let mut said = Said::default();
        for part in self.git(&["diff", "--shortstat", &range]).trim().split(", ") {
            let Some((number, what)) = part.split_once(' ') else { continue };
            let number = number.parse().unwrap();
            match &what[..4] {
                "file" => said.changed_files = number,
                "inse" => said.additions = number,
                "dele" => said.deletions = number,
                _ => panic!("git said: {part}"),
            }
        }
        let counts = self.git(&["rev-list", "--left-right", "--count", &range]);
        let mut counts = counts.split_whitespace().map(|count| count.parse().unwrap());
        (said.behind, said.ahead) = (counts.next().unwrap(), counts.next().unwrap());
        said
    }
}

/// Runs `git` in a folder, with no settings but its own defaults.
pub(crate) fn git(folder: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "protocol.file.allow=always"])
        .args(args)
        .current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_AUTHOR_NAME", "Ann")
        .env("GIT_AUTHOR_EMAIL", "ann@example.com")
        .env("GIT_COMMITTER_NAME", "Ann")
        .env("GIT_COMMITTER_EMAIL", "ann@example.com")
        .env("LC_ALL", "C")
        .output()
        .expect("the program `git` is installed");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "git {args:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}
