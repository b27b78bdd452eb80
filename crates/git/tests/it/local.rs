//! Local repositories, compared with what the program `git` says of them.

use std::fmt::Write as _;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use musterbeat_core::diff::{BranchState, DiffStatus};
use musterbeat_core::port::FetchError;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::ask;
use crate::repository::{Repository, Said, git};

#[tokio::test]
async fn every_kind_of_change_counts_as_git_counts_it() {
    for (name, before, change) in KINDS {
        let repository = Repository::new();
        before(&repository);
        repository.commit();
        repository.git(&["switch", "--quiet", "--create", "feature"]);
        change(&repository);
        repository.commit();
        check(&repository, name).await;
    }
}

#[tokio::test]
async fn commits_count_on_both_sides_and_a_merge_of_the_base_hides_its_changes() {
    let repository = Repository::new();
    repository.git(&["switch", "--quiet", "--create", "feature"]);
    repository.write("mine", "one\n");
    repository.commit();
    repository.git(&["switch", "--quiet", "main"]);
    repository.write("theirs", lines(0..50));
    repository.commit();
    let apart = Said { changed_files: 1, additions: 1, deletions: 0, ahead: 1, behind: 1 };
    assert_eq!(check(&repository, "apart").await, apart);

    repository.git(&["switch", "--quiet", "feature"]);
    repository.git(&["merge", "--quiet", "--no-edit", "main"]);
    let merged = Said { ahead: 2, behind: 0, ..apart };
    assert_eq!(check(&repository, "merged").await, merged);

    repository.git(&["switch", "--quiet", "main"]);
    repository.commit();
    check(&repository, "behind again").await;
}

#[tokio::test]
async fn random_work_counts_as_git_counts_it() {
    for seed in 0..12 {
        let mut random = StdRng::seed_from_u64(seed);
        let repository = Repository::new();
        for file in 0..12 {
            repository.write(&format!("{file}.txt"), text(&mut random));
        }
        repository.commit();
        repository.git(&["switch", "--quiet", "--create", "feature"]);
        for _ in 0..6 {
            work(&repository, &mut random);
            repository.commit();
        }
        check(&repository, &format!("seed {seed}")).await;
    }
}

#[tokio::test]
async fn many_files_that_come_and_go_are_not_compared_with_each_other() {
    let repository = Repository::new();
    for file in 0..1_100 {
        repository.write(&format!("old/{file}"), lines(file * 10..file * 10 + 10));
    }
    repository.commit();
    repository.git(&["switch", "--quiet", "--create", "feature"]);
    repository.git(&["mv", "old", "new"]);
    for file in 0..1_050 {
        remove(&repository, &format!("new/{file}"));
        // Another name too: files that only moved are compared by `git` nevertheless.
        repository.write(&format!("new/again{file}"), lines(file * 10..file * 10 + 11));
    }
    repository.commit();
    let said = check(&repository, "1050 similar and 50 equal").await;
    assert_eq!(said.changed_files, 2 * 1_050 + 50);
}

#[tokio::test]
async fn a_branch_that_its_base_has_is_merged() {
    let repository = Repository::new();
    repository.git(&["switch", "--quiet", "--create", "feature"]);
    repository.write("mine", "one\n");
    repository.commit();
    let hosts = repository.hosts();
    let told = async || ask(&hosts, &repository.origin(), None, "feature").await.unwrap().unwrap();
    assert_eq!(told().await.state, Some(BranchState::Open));
    repository.git(&["switch", "--quiet", "main"]);
    repository.git(&["merge", "--quiet", "--no-ff", "--no-edit", "feature"]);
    let merged = DiffStatus {
        state: Some(BranchState::Merged),
        behind: Some(1),
        base_branch: Some("main".into()),
        head_branch: Some("feature".into()),
        ..DiffStatus::default()
    };
    assert_eq!(told().await, merged);
}

#[tokio::test]
async fn the_base_differs_in_nothing_from_itself() {
    let repository = Repository::new();
    let told = ask(&repository.hosts(), &repository.origin(), None, "main").await;
    let expected = DiffStatus {
        state: Some(BranchState::Open),
        behind: Some(0),
        base_branch: Some("main".into()),
        head_branch: Some("main".into()),
        ..DiffStatus::default()
    };
    assert_eq!(told, Ok(Some(expected)));
}

#[tokio::test]
async fn the_base_is_the_default_branch_wherever_that_is_told() {
    let repository = Repository::new();
    repository.git(&["switch", "--quiet", "--create", "trunk"]);
    repository.write("trunk", "one\n");
    repository.commit();
    repository.git(&["switch", "--quiet", "--create", "feature"]);
    repository.write("mine", "one\n");
    repository.commit();
    let hosts = repository.hosts();
    let base = async |name: &str| {
        let origin = repository.folder().join(name).display().to_string();
        let told = ask(&hosts, &origin, None, "feature").await.unwrap().unwrap();
        (told.base_branch.unwrap(), told.commits)
    };
    // A work tree stands on any branch, so `HEAD` says nothing while there is a `main`.
    assert_eq!(base("repository").await, ("main".into(), 2));

    repository.git(&["switch", "--quiet", "trunk"]);
    for (kind, name) in [("--bare", "bare.git"), ("--no-bare", "clone")] {
        let args = ["clone", "--quiet", kind, "repository", name];
        let args = args.into_iter().filter(|&arg| arg != "--no-bare").collect::<Vec<_>>();
        git(repository.folder(), &args);
        assert_eq!(base(name).await, ("trunk".into(), 1), "{name}");
    }

    repository.git(&["branch", "--quiet", "--delete", "--force", "main"]);
    assert_eq!(base("repository").await, ("trunk".into(), 1));
    repository.git(&["branch", "master", "feature"]);
    assert_eq!(base("repository").await, ("master".into(), 0));
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let repository = Repository::new();
    fs::create_dir(repository.folder().join("empty")).unwrap();
    let hosts = repository.hosts();
    for (path, branch) in [
        ("repository", "missing"),
        ("repository", "a..b"),
        ("repository", "-"),
        ("repository/.git/refs", "main"),
        ("missing", "main"),
        ("empty", "main"),
        ("", "main"),
    ] {
        let origin = repository.folder().join(path).display().to_string();
        let told = ask(&hosts, &origin, None, branch).await;
        assert_eq!(told, Err(FetchError::NotFound), "{path} {branch}");
    }
    let told = ask(&hosts, &repository.origin(), None, "").await;
    assert!(matches!(told, Err(FetchError::Invalid(_))), "{told:?}");
}

#[tokio::test]
async fn a_broken_repository_is_the_hosts_fault() {
    let repository = Repository::new();
    repository.git(&["switch", "--quiet", "--create", "feature"]);
    repository.write("mine", "one\n");
    repository.commit();
    let blob = repository.git(&["rev-parse", "feature:mine"]);
    let (folder, file) = blob.trim().split_at(2);
    let object = repository.path().join(".git/objects").join(folder).join(file);
    fs::remove_file(&object).unwrap();
    fs::write(&object, "broken").unwrap();
    let told = ask(&repository.hosts(), &repository.origin(), None, "feature").await;
    assert!(matches!(told, Err(FetchError::Host(_))), "{told:?}");
}

#[tokio::test]
async fn a_branch_without_a_common_commit_is_refused() {
    let repository = Repository::new();
    repository.git(&["switch", "--quiet", "--orphan", "feature"]);
    repository.commit();
    let told = ask(&repository.hosts(), &repository.origin(), None, "feature").await;
    let reason = "the branch has no commit in common with its base";
    assert_eq!(told, Err(FetchError::Invalid(reason.into())));
}

#[tokio::test]
async fn nothing_outside_the_folder_is_served() {
    let (repository, other) = (Repository::new(), Repository::new());
    let link = repository.folder().join("link");
    symlink(other.path(), &link).unwrap();
    let up = repository.folder().join("..");
    let inside_out = up.join(other.folder().file_name().unwrap()).join("repository");
    let hosts = repository.hosts();
    for origin in [other.path(), link.clone(), link.join("missing"), inside_out, up] {
        let told = ask(&hosts, &origin.display().to_string(), None, "main").await;
        assert_eq!(told, Err(FetchError::NoHost), "{}", origin.display());
    }
    // A work tree inside whose repository is outside.
    let tree = repository.folder().join("tree").display().to_string();
    other.git(&["worktree", "add", "--quiet", "-b", "tree", &tree]);
    assert_eq!(ask(&hosts, &tree, None, "tree").await, Err(FetchError::Refused));
}

#[tokio::test]
async fn a_question_that_is_given_up_leaves_room_for_the_next() {
    let repository = Repository::new();
    let hosts = repository.hosts();
    let origin = repository.origin();
    for _ in 0..50 {
        let question = ask(&hosts, &origin, None, "main");
        // The first turn starts the reading and the end of the block drops the question.
        let _ = tokio::time::timeout(std::time::Duration::ZERO, question).await;
    }
    assert!(ask(&hosts, &origin, None, "main").await.is_ok());
}

/// A kind of change: its name, what the base has, and what the branch makes of it.
type Kind = (&'static str, fn(&Repository), fn(&Repository));

const KINDS: &[Kind] = &[
    ("lines added", |at| at.write("a", lines(0..9)), |at| at.write("a", lines(0..20))),
    ("lines removed", |at| at.write("a", lines(0..20)), |at| at.write("a", lines(5..11))),
    (
        "lines changed",
        |at| at.write("a", lines(0..20)),
        |at| {
            at.write("a", lines(0..20).replace("line 7\n", "line seven\n"));
        },
    ),
    ("file added", |_| {}, |at| at.write("deep/er/a", lines(0..9))),
    ("file removed", |at| at.write("a", lines(0..9)), |at| remove(at, "a")),
    ("empty file added", |_| {}, |at| at.write("a", "")),
    ("empty file removed", |at| at.write("a", ""), |at| remove(at, "a")),
    ("empty file renamed", |at| at.write("a", ""), |at| rename(at, "a", "b")),
    ("file emptied", |at| at.write("a", lines(0..9)), |at| at.write("a", "")),
    ("renamed", |at| at.write("a", lines(0..9)), |at| rename(at, "a", "deep/b")),
    (
        "renamed twice the same",
        |at| both(at, ["a", "b"]),
        |at| {
            rename(at, "a", "c");
            rename(at, "b", "d");
        },
    ),
    (
        "renamed with an edit",
        |at| at.write("a", lines(0..40)),
        |at| {
            rename(at, "a", "b");
            at.write("b", lines(2..44));
        },
    ),
    (
        "renamed with an edit of blanks",
        |at| at.write("a", lines(0..40)),
        |at| {
            rename(at, "a", "b");
            at.write("b", lines(0..40).replace("line", "    line"));
        },
    ),
    (
        "replaced by another",
        |at| at.write("a", lines(0..40)),
        |at| {
            rename(at, "a", "b");
            at.write("b", lines(100..130));
        },
    ),
    ("copied", |at| at.write("a", lines(0..40)), |at| at.write("b", lines(0..40))),
    (
        "exchanged",
        |at| {
            at.write("a", lines(0..9));
            at.write("b", lines(50..80));
        },
        |at| {
            at.write("b", lines(0..9));
            at.write("a", lines(50..80));
        },
    ),
    ("binary file added", |_| {}, |at| at.write("a", b"\x00\x01\n\x02")),
    ("binary file changed", |at| at.write("a", b"\x00\x01\n"), |at| at.write("a", b"\x00\n\n")),
    ("text became binary", |at| at.write("a", lines(0..9)), |at| at.write("a", b"\x00\n\n")),
    ("binary file renamed", |at| at.write("a", [0; 999]), |at| rename(at, "a", "b")),
    ("mode changed", |at| at.write("a", lines(0..9)), |at| make_executable(at, "a")),
    (
        "mode and lines changed",
        |at| at.write("a", lines(0..9)),
        |at| {
            at.write("a", lines(0..8));
            make_executable(at, "a");
        },
    ),
    ("end of the last line removed", |at| at.write("a", "a\nb\n"), |at| at.write("a", "a\nb")),
    ("line after an open end", |at| at.write("a", "a\nb"), |at| at.write("a", "a\nb\nc")),
    (
        "ends of lines changed",
        |at| at.write("a", lines(0..9)),
        |at| {
            at.write("a", lines(0..9).replace('\n', "\r\n"));
        },
    ),
    ("link added", |_| {}, |at| symlink("README", at.path().join("a")).unwrap()),
    (
        "file became a link",
        |at| at.write("a", lines(0..9)),
        |at| {
            remove(at, "a");
            symlink("README", at.path().join("a")).unwrap();
        },
    ),
    (
        "file became a folder",
        |at| at.write("a", lines(0..9)),
        |at| {
            remove(at, "a");
            at.write("a/b", lines(0..9));
        },
    ),
    ("submodule added", |_| {}, |at| submodule(at, 'a')),
    ("submodule changed", |at| submodule(at, 'a'), |at| submodule(at, 'b')),
    (
        "attributes say binary",
        |at| at.write(".gitattributes", "*.dat binary\n"),
        |at| {
            at.write("a.dat", lines(0..9));
        },
    ),
    ("odd names", |_| {}, |at| at.write("ä b\"c\td", lines(0..9))),
    ("nothing", |_| {}, |_| {}),
];

/// Compares what is told of the branch `feature` with what `git` says of it.
async fn check(repository: &Repository, what: &str) -> Said {
    let told = ask(&repository.hosts(), &repository.origin(), None, "feature").await;
    let told = told.unwrap().unwrap();
    let DiffStatus { changed_files, additions, deletions, .. } = told;
    let (ahead, behind) = (told.commits, told.behind.unwrap());
    let told = Said { changed_files, additions, deletions, ahead, behind };
    let said = repository.said("main", "feature");
    assert_eq!(told, said, "{what}:\n{}", repository.git(&["diff", "--stat", "main...feature"]));
    said
}

fn lines(numbers: std::ops::Range<u32>) -> String {
    numbers.fold(String::new(), |mut text, number| {
        let _ = writeln!(text, "line {number}");
        text
    })
}

fn both(repository: &Repository, files: [&str; 2]) {
    for file in files {
        repository.write(file, lines(0..9));
    }
}

fn remove(repository: &Repository, file: &str) {
    fs::remove_file(repository.path().join(file)).unwrap();
}

fn rename(repository: &Repository, from: &str, to: &str) {
    let content = fs::read(repository.path().join(from)).unwrap();
    remove(repository, from);
    repository.write(to, content);
}

fn make_executable(repository: &Repository, file: &str) {
    let path = repository.path().join(file);
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// Notes a commit of another repository, which need not be there.
fn submodule(repository: &Repository, digit: char) {
    let commit = digit.to_string().repeat(40);
    let path = repository.path().join("module");
    fs::create_dir_all(&path).unwrap();
    let entry = format!("160000,{commit},module");
    repository.git(&["update-index", "--add", "--cacheinfo", &entry]);
}

/// Returns up to two hundred lines, of which many are the same.
fn text(random: &mut StdRng) -> String {
    let count = random.random_range(0..200);
    let line = |_| {
        let number = random.random_range(0..60);
        lines(number..number + 1)
    };
    (0..count).map(line).collect()
}

/// Changes some files at random places; a tenth of the time a file comes or goes.
fn work(repository: &Repository, random: &mut StdRng) {
    for _ in 0..random.random_range(1..5) {
        let file = format!("{}.txt", random.random_range(0..14));
        let path = repository.path().join(&file);
        let content = fs::read_to_string(&path).unwrap_or_default();
        let mut lines: Vec<&str> = content.split_inclusive('\n').collect();
        for _ in 0..random.random_range(1..8) {
            let at = random.random_range(0..=lines.len());
            match random.random_range(0..3) {
                0 if at < lines.len() => drop(lines.remove(at)),
                1 if at < lines.len() => lines[at] = "changed\n",
                _ => lines.insert(at, "inserted\n"),
            }
        }
        match random.random_range(0..10) {
            0 if path.exists() => remove(repository, &file),
            _ => repository.write(&file, lines.concat()),
        }
    }
}
