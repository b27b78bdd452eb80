//! Folders that are copied, claimed and removed.

use std::fs::{self, File, FileTimes, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::{Duration, SystemTime};

use musterbeat_core::build::{Build, Provisioned, Transition};
use musterbeat_core::port::{ProvisionError, Provisioner};
use musterbeat_provision::{DirectoryLimits, DirectoryProvisioner};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::estate::{Estate, Held, OWNER, WORKSPACE, eventually, failed, invalid, names};
use crate::world::{World, build, owned};

#[tokio::test]
async fn a_start_copies_everything_as_it_is() {
    let estate = Estate::new();
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    estate.template("src/main.rs", "fn main() {}");
    estate.template("empty/deep/file", "");
    estate.template("run.sh", "#!/bin/sh");
    estate.template("readonly/file", "r");
    estate.template(".musterbeat.json", "not ours");
    symlink("src/main.rs", estate.in_template("inside")).unwrap();
    symlink("/nowhere", estate.in_template("dangling")).unwrap();
    fs::set_permissions(estate.in_template("run.sh"), Permissions::from_mode(0o4755)).unwrap();
    fs::set_permissions(estate.in_template("readonly/file"), Permissions::from_mode(0o440))
        .unwrap();
    for path in ["src/main.rs", "readonly/file", "readonly"] {
        let times = FileTimes::new().set_modified(long_ago);
        File::open(estate.in_template(path)).unwrap().set_times(times).unwrap();
    }
    fs::set_permissions(estate.in_template("readonly"), Permissions::from_mode(0o555)).unwrap();

    let world = World::new();
    let done = estate.provisioner().provision(&build(Transition::Start), world.clone()).await;
    assert_eq!(done, Ok(Provisioned::default()));
    assert_eq!(world.lines(), ["copied 10 files, 22 bytes"]);

    assert_eq!(estate.read("src/main.rs"), "fn main() {}");
    assert_eq!(estate.read("empty/deep/file"), "");
    let mode = |path| fs::metadata(estate.workspace(path)).unwrap().mode() & 0o7777;
    assert_eq!(mode("run.sh"), 0o755, "the setuid bit is not kept");
    assert_eq!((mode("readonly"), mode("readonly/file")), (0o555, 0o440));
    for path in ["src/main.rs", "readonly/file", "readonly"] {
        let found = fs::metadata(estate.workspace(path)).unwrap();
        assert_eq!(found.modified().unwrap(), long_ago, "{path}");
    }
    let link = |path| fs::read_link(estate.workspace(path)).unwrap();
    assert_eq!(link("inside"), Path::new("src/main.rs"));
    assert_eq!(link("dangling"), Path::new("/nowhere"));
    assert_eq!(
        estate.read(".musterbeat.json"),
        format!(
            "{{\n  \"workspace_id\": \"{WORKSPACE}\",\n  \"name\": \"prebuild-7\",\n  \
             \"owner_id\": null,\n  \"parameters\": {{\n    \"size\": \"\\\"large\\\"\"\n  }}\n}}\n"
        )
    );
    assert_eq!(estate.root_entries(), [WORKSPACE, &format!(".lock-{WORKSPACE}")]);
}

#[tokio::test]
async fn a_repeated_start_leaves_what_the_user_changed() {
    let estate = Estate::new();
    estate.template("kept", "template's");
    estate.template("removed", "template's");
    estate.run(build(Transition::Start)).await.unwrap();
    fs::write(estate.workspace("kept"), "user's").unwrap();
    fs::remove_file(estate.workspace("removed")).unwrap();
    estate.run(build(Transition::Start)).await.unwrap();
    estate.run(build(Transition::Stop)).await.unwrap();
    estate.run(owned(Transition::Start, "blue")).await.unwrap();
    assert_eq!(estate.read("kept"), "user's");
    assert!(!estate.workspace("removed").exists());
    assert!(estate.read(".musterbeat.json").contains("blue"), "a label says who it is now");
    assert_eq!(estate.links(), ["blue"], "a workspace with an owner is linked");
}

#[tokio::test]
async fn what_a_process_left_behind_is_removed_by_the_next() {
    let estate = Estate::new();
    estate.template("file", "");
    let left = estate.root().join(format!(".start-{WORKSPACE}"));
    fs::create_dir_all(left.join("half/copied")).unwrap();
    fs::write(estate.root().join(format!(".label-{WORKSPACE}")), "half").unwrap();
    estate.run(build(Transition::Start)).await.unwrap();
    assert!(estate.workspace("file").exists() && !estate.workspace("half").exists());
    assert_eq!(estate.root_entries(), [WORKSPACE, &format!(".lock-{WORKSPACE}")]);

    let left = estate.root().join(format!(".delete-{WORKSPACE}"));
    fs::create_dir_all(left.join("half/removed")).unwrap();
    estate.run(build(Transition::Delete)).await.unwrap();
    assert_eq!(estate.root_entries(), [""; 0]);
}

#[tokio::test]
async fn a_claim_names_the_workspace_and_a_repeated_one_changes_nothing() {
    let estate = Estate::new();
    estate.template("file", "");
    estate.run(build(Transition::Start)).await.unwrap();
    let place = fs::metadata(estate.workspace("")).unwrap().ino();
    estate.run(owned(Transition::Claim, "blue moon")).await.unwrap();
    let link = estate.root().join("by-owner").join(OWNER).join("blue moon");
    assert!(link.join("file").exists(), "the link leads to the workspace");
    assert_eq!(fs::metadata(estate.workspace("")).unwrap().ino(), place);
    let label = estate.read(".musterbeat.json");
    assert!(label.contains("\"blue moon\"") && label.contains(OWNER), "{label}");

    let first = fs::symlink_metadata(&link).unwrap().ino();
    estate.run(owned(Transition::Claim, "blue moon")).await.unwrap();
    assert_eq!(fs::symlink_metadata(&link).unwrap().ino(), first);
    assert_eq!(estate.read(".musterbeat.json"), label);

    estate.run(owned(Transition::Claim, "red")).await.unwrap();
    assert_eq!(estate.links(), ["red"], "a workspace has one link");
    let left = ["by-owner", WORKSPACE, &format!(".lock-{WORKSPACE}")].map(str::to_owned);
    assert_eq!(estate.root_entries(), left);
}

#[tokio::test]
async fn a_claim_replaces_links_and_touches_nothing_that_the_label_leads_to() {
    let estate = Estate::new();
    estate.template("file", "");
    estate.run(build(Transition::Start)).await.unwrap();
    let outside = estate.folder.path().join("outside");
    fs::write(&outside, "kept").unwrap();
    fs::remove_file(estate.workspace(".musterbeat.json")).unwrap();
    symlink(&outside, estate.workspace(".musterbeat.json")).unwrap();
    let links = estate.root().join("by-owner").join(OWNER);
    fs::create_dir_all(&links).unwrap();
    symlink("../../gone", links.join("blue")).unwrap();
    symlink("../../gone", links.join("other")).unwrap();

    estate.run(owned(Transition::Claim, "blue")).await.unwrap();
    assert_eq!(fs::read_to_string(&outside).unwrap(), "kept");
    assert!(estate.read(".musterbeat.json").contains("blue"));
    assert!(links.join("blue/file").exists());
    assert_eq!(estate.links(), ["blue", "other"], "another's link stays");
}

#[tokio::test]
async fn a_name_that_no_file_can_have_is_not_linked() {
    let estate = Estate::new();
    estate.template("file", "");
    estate.run(build(Transition::Start)).await.unwrap();
    estate.run(owned(Transition::Claim, "blue")).await.unwrap();
    let world = World::new();
    let claim = owned(Transition::Claim, "../../blue");
    estate.provisioner().provision(&claim, world.clone()).await.unwrap();
    assert_eq!(world.lines(), ["the workspace is not linked: its name cannot be a file's"]);
    assert_eq!(estate.links(), [""; 0]);
    assert!(estate.read(".musterbeat.json").contains("../../blue"));
}

#[tokio::test]
async fn a_claim_needs_a_start() {
    let estate = Estate::new();
    let text = failed(estate.run(owned(Transition::Claim, "blue")).await);
    assert!(text.contains("start the workspace first"), "{text}");
    assert_eq!(estate.root_entries(), [""; 0]);
}

#[tokio::test]
async fn a_delete_takes_all_of_it_and_may_be_repeated() {
    let estate = Estate::new();
    let outside = estate.folder.path().join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("kept"), "").unwrap();
    estate.template("folder/file", "");
    symlink(&outside, estate.in_template("leads-out")).unwrap();
    estate.run(owned(Transition::Start, "blue")).await.unwrap();
    assert_eq!(fs::read_link(estate.workspace("leads-out")).unwrap(), outside);
    assert!(outside.join("kept").exists());
    let closed = Permissions::from_mode(0o555);
    fs::set_permissions(estate.workspace("folder"), closed).unwrap();

    for _ in 0..2 {
        estate.run(owned(Transition::Delete, "blue")).await.unwrap();
        assert_eq!(estate.root_entries(), ["by-owner"]);
        assert_eq!(estate.links(), [""; 0]);
    }
    assert!(outside.join("kept").exists());
}

#[tokio::test]
async fn a_source_stays_within_the_templates() {
    let estate = Estate::new();
    estate.template("file", "");
    fs::create_dir(estate.folder.path().join("secret")).unwrap();
    let templates = estate.folder.path().join("templates");
    symlink("../secret", templates.join("leads-out")).unwrap();
    symlink("rust", templates.join("current")).unwrap();
    for (source, expected) in [
        ("../secret", "is not a plain relative path"),
        ("/etc", "is not a plain relative path"),
        ("", "is not a plain relative path"),
        ("rust/../../secret", "is not a plain relative path"),
        ("leads-out", "leads out of the folder of templates"),
        ("missing", "there is no template \"missing\""),
        ("rust/file", "there is no template \"rust/file\""),
    ] {
        let build = Build { source: source.to_owned(), ..build(Transition::Start) };
        let text = invalid(estate.run(build).await);
        assert!(text.contains(expected), "{source}: {text}");
        assert_eq!(estate.root_entries(), [""; 0], "{source}");
    }
    let current = Build { source: "current".to_owned(), ..build(Transition::Start) };
    estate.run(current).await.unwrap();
    assert!(estate.workspace("file").exists());
}

#[tokio::test]
async fn a_template_does_not_hold_the_workspaces() {
    let estate = Estate::new();
    let holder = DirectoryProvisioner {
        templates: estate.folder.path().parent().unwrap().to_owned(),
        ..estate.provisioner()
    };
    let name = estate.folder.path().file_name().unwrap().to_str().unwrap();
    let build = Build { source: name.to_owned(), ..build(Transition::Start) };
    let text = invalid(holder.provision(&build, World::new()).await);
    assert!(text.contains("holds the folder of workspaces"), "{text}");
}

#[tokio::test]
async fn special_files_are_refused_and_nothing_is_left() {
    let estate = Estate::new();
    estate.template("folder/file", "");
    mkfifo(&estate.in_template("folder/fifo"), Mode::S_IRWXU).unwrap();
    let text = invalid(estate.run(build(Transition::Start)).await);
    assert!(text.starts_with("the template has folder/fifo, which is a FIFO"), "{text}");
    assert_eq!(estate.root_entries(), [""; 0]);

    fs::remove_file(estate.in_template("folder/fifo")).unwrap();
    let _listener = UnixListener::bind(estate.in_template("socket")).unwrap();
    let text = invalid(estate.run(build(Transition::Start)).await);
    assert!(text.starts_with("the template has socket, which is a socket"), "{text}");
}

#[tokio::test]
async fn a_template_has_bounds() {
    let estate = Estate::new();
    estate.template("folder/a", "12345");
    estate.template("folder/b", "12345");
    let with = |files_max, bytes_max| DirectoryProvisioner {
        limits: DirectoryLimits { files_max, bytes_max },
        ..estate.provisioner()
    };
    let start = build(Transition::Start);
    let text = invalid(with(2, 10).provision(&start, World::new()).await);
    assert_eq!(text, "the template has more than 2 folders, files and links");
    let text = invalid(with(3, 9).provision(&start, World::new()).await);
    assert_eq!(text, "the template has more than 9 bytes");
    assert_eq!(estate.root_entries(), [""; 0]);
    with(3, 10).provision(&start, World::new()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_starts_at_once_end_in_one_whole_folder() {
    let estate = Arc::new(Estate::new());
    for number in 0..300 {
        estate.template(&format!("{}/{number}", number % 7), "x");
    }
    let starts = [0, 1].map(|_| {
        let estate = estate.clone();
        tokio::spawn(async move { estate.run(owned(Transition::Start, "blue")).await })
    });
    for start in starts {
        start.await.unwrap().unwrap();
    }
    for number in 0..300 {
        assert_eq!(estate.read(&format!("{}/{number}", number % 7)), "x");
    }
    let left = ["by-owner", WORKSPACE, &format!(".lock-{WORKSPACE}")].map(str::to_owned);
    assert_eq!(estate.root_entries(), left);
}

#[tokio::test(start_paused = true)]
async fn who_else_works_on_it_is_not_waited_for_for_ever() {
    let estate = Estate::new();
    estate.template("file", "");
    let lock = File::create(estate.root().join(format!(".lock-{WORKSPACE}"))).unwrap();
    lock.lock().unwrap();
    let text = failed(estate.run(build(Transition::Start)).await);
    assert_eq!(
        text,
        "the build failed: another process is at work on the workspace for longer than 60s"
    );
}

#[tokio::test]
async fn a_stop_ends_the_wait_for_who_else_works_on_it() {
    let estate = Estate::new();
    let lock = File::create(estate.root().join(format!(".lock-{WORKSPACE}"))).unwrap();
    lock.lock().unwrap();
    let world = World::new();
    let provisioner = estate.provisioner();
    let start = build(Transition::Start);
    let (ended, ()) = tokio::join!(provisioner.provision(&start, world.clone()), async {
        world.stop();
    });
    assert_eq!(ended, Err(ProvisionError::Stopped));
}

#[tokio::test]
async fn a_stop_ends_a_copy_and_the_next_start_begins_anew() {
    let estate = Estate::new();
    estate.template_of_many(5_000);
    let (stopped, wait) = mpsc::channel();
    let held = Held { world: World::that_stops_at("copied 2000"), stopped, wait: wait.into() };
    let ended = estate.provisioner().provision(&build(Transition::Start), Arc::new(held)).await;
    assert_eq!(ended, Err(ProvisionError::Stopped));
    assert!(!estate.workspace("").exists());
    fs::remove_dir_all(estate.in_template("")).unwrap();
    estate.template("file", "");
    estate.run(build(Transition::Start)).await.unwrap();
    assert_eq!(names(&estate.workspace("")), [".musterbeat.json", "file"]);
    assert_eq!(estate.root_entries(), [WORKSPACE, &format!(".lock-{WORKSPACE}")]);
}

#[tokio::test]
async fn a_future_that_is_dropped_stops_its_copy() {
    let estate = Arc::new(Estate::new());
    estate.template_of_many(2_005);
    let (go_on, wait) = mpsc::channel();
    let held = Held {
        world: World::that_stops_at("nothing"),
        stopped: mpsc::channel().0,
        wait: wait.into(),
    };
    let held = Arc::new(held);
    let running = {
        let (estate, held) = (estate.clone(), held.clone());
        tokio::spawn(async move {
            estate.provisioner().provision(&build(Transition::Start), held).await
        })
    };
    eventually("the copy has begun", || held.world.lines() == ["copied 2000 files, 0 bytes"]).await;
    running.abort();
    assert!(running.await.unwrap_err().is_cancelled());
    go_on.send(()).unwrap();
    let lock = File::open(estate.root().join(format!(".lock-{WORKSPACE}"))).unwrap();
    eventually("the copy has ended", || lock.try_lock().is_ok()).await;
    let left = estate.root().join(format!(".start-{WORKSPACE}"));
    assert_eq!(fs::read_dir(left).unwrap().count(), 2_000);
}

#[tokio::test]
async fn a_root_that_cannot_be_written_is_named_with_its_remedy() {
    let estate = Estate::new();
    estate.template("file", "");
    estate.provisioner().check().unwrap();
    assert_eq!(estate.root_entries(), [""; 0]);
    let missing = estate.folder.path().join("missing");
    let file = estate.folder.path().join("file");
    fs::write(&file, "").unwrap();
    for root in [missing, file] {
        let provisioner = DirectoryProvisioner { root: root.clone(), ..estate.provisioner() };
        let says = format!(
            "the folder of workspaces {} cannot be written; create it or mount it, and let the \
             user of this process write there",
            root.display()
        );
        assert_eq!(provisioner.check().unwrap_err().to_string(), says);
        let text = failed(provisioner.provision(&build(Transition::Start), World::new()).await);
        assert!(text.starts_with(&format!("the build failed: {says}: ")), "{text}");
    }
}

#[tokio::test]
async fn templates_that_cannot_be_read_are_worth_another_attempt() {
    let estate = Estate::new();
    let templates = estate.folder.path().join("missing");
    let provisioner = DirectoryProvisioner { templates: templates.clone(), ..estate.provisioner() };
    let says = format!("the folder of templates {} cannot be read", templates.display());
    let error = provisioner.check().unwrap_err().to_string();
    assert!(error.starts_with(&says), "{error}");
    let text = failed(provisioner.provision(&build(Transition::Start), World::new()).await);
    assert!(text.contains(&says), "{text}");
}
