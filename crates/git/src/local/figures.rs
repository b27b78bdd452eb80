//! How much differs between two commits, as `git diff --shortstat` counts it.

use std::sync::atomic::{AtomicBool, Ordering};

use git2::{Commit, Delta, Diff, DiffFindOptions, DiffOptions, Error, Patch, Repository};
use musterbeat_core::port::FetchError;

use super::branch::failed;

/// Files that may differ: comparing more takes minutes.
const FILES_MAX: usize = 100_000;

/// Files taken away, and files added, whose contents are compared to find renames; `git` has the
/// same limit on the product of both.
const RENAMES_MAX: usize = 1_000;

/// What differs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Figures {
    pub(super) additions: usize,
    pub(super) deletions: usize,
    pub(super) changed_files: usize,
}

impl Figures {
    /// Counts what `to` changed since `from`; ends between two files once nobody waits.
    pub(super) fn read(
        repository: &Repository,
        from: &Commit<'_>,
        to: &Commit<'_>,
        given_up: &AtomicBool,
    ) -> Result<Self, FetchError> {
        let diff = compare(repository, from, to, given_up)?;
        let mut figures = Self { changed_files: diff.deltas().len(), ..Self::default() };
        for file in 0..figures.changed_files {
            go_on(given_up)?;
            // A binary file has no lines.
            if let Some(patch) = Patch::from_diff(&diff, file).map_err(|error| failed(&error))? {
                let (_, additions, deletions) =
                    patch.line_stats().map_err(|error| failed(&error))?;
                figures.additions += additions;
                figures.deletions += deletions;
            }
        }
        Ok(figures)
    }
}

/// Finds the files that differ, and which of them were renamed.
fn compare<'a>(
    repository: &'a Repository,
    from: &Commit<'_>,
    to: &Commit<'_>,
    given_up: &AtomicBool,
) -> Result<Diff<'a>, FetchError> {
    let error = |error: Error| failed(&error);
    let (from, to) = (from.tree().map_err(error)?, to.tree().map_err(error)?);
    let mut options = DiffOptions::new();
    options.context_lines(0).include_typechange(true);
    let diff = repository.diff_tree_to_tree(Some(&from), Some(&to), Some(&mut options));
    let mut diff = diff.map_err(error)?;
    go_on(given_up)?;
    let files = diff.deltas().len();
    if FILES_MAX < files {
        let reason = format!("the branch differs in {files} files, at most {FILES_MAX} are read");
        return Err(FetchError::Invalid(reason));
    }
    find_renames(&mut diff, given_up)?;
    Ok(diff)
}

/// Pairs files taken away with files added: equal ones first, then similar ones unless too many.
fn find_renames(diff: &mut Diff<'_>, given_up: &AtomicBool) -> Result<(), FetchError> {
    let mut exact = DiffFindOptions::new();
    exact.renames(true).exact_match_only(true);
    diff.find_similar(Some(&mut exact)).map_err(|error| failed(&error))?;
    go_on(given_up)?;
    let count = |wanted| diff.deltas().filter(|delta| delta.status() == wanted).count();
    let (deleted, added) = (count(Delta::Deleted), count(Delta::Added));
    if RENAMES_MAX * RENAMES_MAX < deleted * added {
        return Ok(());
    }
    let mut similar = DiffFindOptions::new();
    similar.renames(true).dont_ignore_whitespace(true).rename_limit(deleted.max(1));
    diff.find_similar(Some(&mut similar)).map_err(|error| failed(&error))
}

/// Ends the reading once nobody waits for it.
fn go_on(given_up: &AtomicBool) -> Result<(), FetchError> {
    if given_up.load(Ordering::Relaxed) {
        return Err(FetchError::Host("nobody waits for the answer".to_owned()));
    }
    Ok(())
}
