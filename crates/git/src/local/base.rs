//! What branches are compared with.

use git2::{Commit, Error, Reference, Repository};

const LOCAL: &str = "refs/heads/";
const REMOTE: &str = "refs/remotes/origin/";

/// The tip of a repository's default branch.
pub(super) struct Base<'a> {
    /// The branch's name; `None` when the repository stands on a commit without a branch.
    pub(super) name: Option<String>,
    pub(super) commit: Commit<'a>,
}

impl<'a> Base<'a> {
    /// Finds the default branch.
    ///
    /// A repository without work tree names it by `HEAD`. One with a work tree stands on any
    /// branch, so its remote's is asked for first, then the usual names, and `HEAD` last.
    pub(super) fn find(repository: &'a Repository) -> Result<Self, Error> {
        let of_remote = || repository.find_reference("refs/remotes/origin/HEAD")?.resolve();
        let named = |name: &str| repository.find_reference(&format!("{LOCAL}{name}"));
        let head = || repository.head();
        let found =
            if repository.is_bare() { head().or_else(|_| of_remote()) } else { of_remote() };
        let usual = || named("main").or_else(|_| named("master"));
        Self::at(&found.or_else(|_| usual()).or_else(|_| head())?)
    }

    fn at(reference: &Reference<'a>) -> Result<Self, Error> {
        let name = reference.name().ok().and_then(|name| {
            let branch = name.strip_prefix(LOCAL).or_else(|| name.strip_prefix(REMOTE))?;
            Some(branch.to_owned())
        });
        Ok(Self { name, commit: reference.peel_to_commit()? })
    }
}
