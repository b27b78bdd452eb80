//! How much differs between two commits, as `git diff --shortstat` counts it.
//!
//! The one difference is in what counts as a rename. Both ask whether at least half of a file is
//! the same, but measure it differently, so that a file near one half may be a rename for one of
//! them and a file taken away and another added for the other. And where too many files came and
//! went to compare them all, `git` still compares those that only moved to another folder.

use std::sync::atomic::{AtomicBool, Ordering};

use git2::{
    Commit, Delta, Diff, DiffFile, DiffFindOptions, DiffOptions, Error, FileMode, Patch, Repository,
};
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
            let (additions, deletions) =
                lines(repository, &diff, file).map_err(|error| failed(&error))?;
            figures.additions += additions;
            figures.deletions += deletions;
        }
        Ok(figures)
    }
}

/// Counts the lines that one file gained and lost; a binary file has none.
fn lines(repository: &Repository, diff: &Diff<'_>, file: usize) -> Result<(usize, usize), Error> {
    let count = |patch: &Patch<'_>| {
        patch.line_stats().map(|(_, additions, deletions)| (additions, deletions))
    };
    match diff.get_delta(file) {
        // No lines are told of a file that became a link, or the reverse.
        Some(delta) if delta.status() == Delta::Typechange => {
            let old = content(repository, &delta.old_file())?;
            let new = content(repository, &delta.new_file())?;
            let mut options = DiffOptions::new();
            options.context_lines(0);
            count(&Patch::from_buffers(&old, None, &new, None, Some(&mut options))?)
        }
        _ => Patch::from_diff(diff, file)?.as_ref().map_or(Ok((0, 0)), count),
    }
}

/// Reads what is compared of a file: for a submodule, a line that names its commit.
fn content(repository: &Repository, file: &DiffFile<'_>) -> Result<Vec<u8>, Error> {
    if file.mode() == FileMode::Commit {
        return Ok(format!("Subproject commit {}\n", file.id()).into_bytes());
    }
    Ok(repository.find_blob(file.id())?.content().to_owned())
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

#[cfg(test)]
mod tests {
    use git2::Signature;

    use super::*;

    #[test]
    fn nothing_is_counted_for_nobody() {
        let folder = tempfile::tempdir().unwrap();
        let repository = Repository::init_bare(folder.path()).unwrap();
        let (empty, full) = (commit(&repository, &[]), commit(&repository, &["a", "b"]));
        let read = |given_up| Figures::read(&repository, &empty, &full, &AtomicBool::new(given_up));
        let expected = Figures { additions: 2, deletions: 0, changed_files: 2 };
        assert_eq!(read(false), Ok(expected));
        assert!(read(true).is_err());
    }

    /// Commits files of one line, of which each holds its name.
    fn commit<'a>(repository: &'a Repository, files: &[&str]) -> Commit<'a> {
        let mut tree = repository.treebuilder(None).unwrap();
        for file in files {
            let blob = repository.blob(format!("{file}\n").as_bytes()).unwrap();
            tree.insert(file, blob, FileMode::Blob.into()).unwrap();
        }
        let tree = repository.find_tree(tree.write().unwrap()).unwrap();
        let ann = Signature::now("Ann", "ann@example.com").unwrap();
        let commit = repository.commit(None, &ann, &ann, "work", &tree, &[]).unwrap();
        repository.find_commit(commit).unwrap()
    }
}
