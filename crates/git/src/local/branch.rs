//! One branch, compared with its base.

use std::path::Path;
use std::sync::atomic::AtomicBool;

use git2::{BranchType, Commit, Error, ErrorCode, Oid, Repository};
use musterbeat_core::diff::{BranchState, DiffStatus};
use musterbeat_core::port::FetchError;

use super::base::Base;
use super::figures::Figures;
use super::folder::Folder;

/// Reads all that a repository tells of the branch `name`; blocks, and ends early once nobody
/// waits.
pub(super) fn read(
    folder: &Folder,
    path: &Path,
    name: &str,
    given_up: &AtomicBool,
) -> Result<DiffStatus, FetchError> {
    if name.is_empty() {
        let reason = "the reference names no branch, and a local repository has no pull requests";
        return Err(FetchError::Invalid(reason.to_owned()));
    }
    let repository = folder.open(path)?;
    let tip = find(&repository, name)?;
    let base = Base::find(&repository).map_err(|error| failed(&error))?;
    let mut status = DiffStatus {
        state: Some(BranchState::Open),
        behind: Some(0),
        base_branch: base.name.clone(),
        head_branch: Some(name.to_owned()),
        ..DiffStatus::default()
    };
    if base.name.as_deref() == Some(name) {
        return Ok(status);
    }
    let (ahead, behind) = repository
        .graph_ahead_behind(tip.id(), base.commit.id())
        .map_err(|error| failed(&error))?;
    status.commits = count(ahead);
    status.behind = Some(count(behind));
    if ahead == 0 {
        // The base has all its commits, so its tip is among them and no file differs from there.
        status.state = Some(BranchState::Merged);
        return Ok(status);
    }
    let fork = fork(&repository, base.commit.id(), tip.id())?;
    let figures = Figures::read(&repository, &fork, &tip, given_up)?;
    status.additions = count(figures.additions);
    status.deletions = count(figures.deletions);
    status.changed_files = count(figures.changed_files);
    Ok(status)
}

/// Finds a branch of the repository, otherwise what it knows of the same branch of `origin`.
fn find<'a>(repository: &'a Repository, name: &str) -> Result<Commit<'a>, FetchError> {
    let local = repository.find_branch(name, BranchType::Local);
    let branch = local
        .or_else(|_| repository.find_branch(&format!("origin/{name}"), BranchType::Remote))
        .map_err(|error| failed(&error))?;
    branch.get().peel_to_commit().map_err(|error| failed(&error))
}

/// Finds the commit from which a branch went its own way.
fn fork(repository: &Repository, base: Oid, tip: Oid) -> Result<Commit<'_>, FetchError> {
    let found = repository.merge_base(base, tip).map_err(|error| match error.code() {
        ErrorCode::NotFound => {
            FetchError::Invalid("the branch has no commit in common with its base".to_owned())
        }
        _ => failed(&error),
    })?;
    repository.find_commit(found).map_err(|error| failed(&error))
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// Says what went wrong with a repository.
pub(super) fn failed(error: &Error) -> FetchError {
    match error.code() {
        ErrorCode::NotFound | ErrorCode::InvalidSpec | ErrorCode::UnbornBranch => {
            FetchError::NotFound
        }
        _ => FetchError::Host(format!("the repository was not read: {}", error.message())),
    }
}
