//! What a program is told, and what becomes of what it says.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

use musterbeat_core::build::{Build, Transition};
use musterbeat_core::port::{ProvisionError, Provisioner};
use musterbeat_provision::{CommandLimits, CommandProvisioner, Program};

use crate::world::{World, build, owned};

#[tokio::test]
async fn a_build_is_handed_over_in_the_environment() {
    let expected = [
        "MUSTERBEAT_BUILD_ID=00000000-0000-0000-0000-000000000001",
        "MUSTERBEAT_PARAMETERS={\"size\":\"\\\"large\\\"\"}",
        "MUSTERBEAT_SOURCE=rust",
        "MUSTERBEAT_TRANSITION=start",
        "MUSTERBEAT_WORKSPACE_ID=00000000-0000-0000-0000-000000000002",
        "MUSTERBEAT_WORKSPACE_NAME=prebuild-7",
    ];
    assert_eq!(environment(build(Transition::Start)).await, expected);
    let expected = [
        "MUSTERBEAT_BUILD_ID=00000000-0000-0000-0000-000000000001",
        "MUSTERBEAT_OWNER_ID=00000000-0000-0000-0000-000000000003",
        "MUSTERBEAT_PARAMETERS={\"size\":\"\\\"large\\\"\"}",
        "MUSTERBEAT_SOURCE=rust",
        "MUSTERBEAT_TRANSITION=claim",
        "MUSTERBEAT_WORKSPACE_ID=00000000-0000-0000-0000-000000000002",
        "MUSTERBEAT_WORKSPACE_NAME=blue moon",
    ];
    assert_eq!(environment(owned(Transition::Claim, "blue moon")).await, expected);
}

/// Runs the test above once more, in a process that has secrets.
#[test]
fn secrets_are_not_inherited() {
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args(["--exact", "command::a_build_is_handed_over_in_the_environment"]);
    for name in ["DATABASE_URL", "PGPASSWORD", "MUSTERBEAT_CLUSTER_SECRET", "MUSTERBEAT_OWNER_ID"] {
        again.env(name, "secret");
    }
    let output = again.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
}

#[tokio::test]
async fn both_streams_are_logged_and_the_input_is_empty() {
    let world = World::new();
    // Standard output ends before the other begins, so that the order is certain.
    let script = "cat; printf 'out\\n\\na\\377b\\000c'; exec >&-; echo err >&2";
    provisioner(script).provision(&build(Transition::Start), world.clone()).await.unwrap();
    let mut lines = world.lines();
    lines.sort();
    assert_eq!(lines, ["", "a\u{fffd}bc", "err", "out"]);
}

#[tokio::test]
async fn an_endless_log_is_cut_and_the_program_ends_by_itself() {
    let limits =
        CommandLimits { log_lines_max: 2, log_line_bytes_max: 5, ..CommandLimits::default() };
    let script = "head -c 1000000 /dev/zero | tr '\\0' x; echo; yes | head -n 100000; echo end";
    let provisioner = CommandProvisioner { limits, ..provisioner(script) };
    let world = World::new();
    provisioner.provision(&build(Transition::Start), world.clone()).await.unwrap();
    let says = "further lines are discarded: a build's program logs 2 at most";
    assert_eq!(world.lines(), ["xxxxx…", "y", says]);
}

#[tokio::test]
async fn the_status_says_what_a_build_came_to() {
    let failed = |text: &str| Err(ProvisionError::Failed(text.to_owned()));
    let invalid = |text: &str| Err(ProvisionError::Invalid(text.to_owned()));
    check("true", Ok(())).await;
    check("exit 1", failed("sh: it failed with exit status 1 and wrote no error")).await;
    check("echo no >&2; exit 3", failed("sh: it failed with exit status 3: no")).await;
    check("kill -9 $$", failed("sh: it failed with signal 9 and wrote no error")).await;
    check(
        "echo 'no such size' >&2; echo >&2; exit 65",
        invalid("sh: it refused the build: no such size"),
    )
    .await;
}

#[tokio::test]
async fn replacements_are_what_the_program_names() {
    let script = "echo ::replacement vm.main; echo other; echo '::replacement disk \"home\"'";
    let world = World::new();
    let done =
        provisioner(script).provision(&build(Transition::Start), world.clone()).await.unwrap();
    assert_eq!(done.replacements, ["vm.main", "disk \"home\""]);
    assert_eq!(world.lines(), ["other"]);
}

#[tokio::test]
async fn each_transition_has_its_program_and_two_may_have_none() {
    let provisioner =
        CommandProvisioner { delete: shell("echo deleted"), ..provisioner("echo started") };
    for (transition, expected) in [
        (Transition::Start, &["started"][..]),
        (Transition::Claim, &[]),
        (Transition::Stop, &[]),
        (Transition::Delete, &["deleted"]),
    ] {
        let world = World::new();
        provisioner.provision(&build(transition), world.clone()).await.unwrap();
        assert_eq!(world.lines(), expected, "{transition:?}");
    }
}

#[tokio::test]
async fn its_time_has_a_bound() {
    let limits = CommandLimits {
        time_max: Duration::from_millis(100),
        stop_grace: Duration::from_millis(100),
        ..CommandLimits::default()
    };
    let provisioner = CommandProvisioner { limits, ..provisioner("while :; do sleep 1; done") };
    let error = provisioner.provision(&build(Transition::Start), World::new()).await.unwrap_err();
    let text = "sh: it took longer than 100ms and was stopped and wrote no error";
    assert_eq!(error, ProvisionError::Failed(text.to_owned()));
}

#[tokio::test]
async fn a_stop_ends_it() {
    let world = World::that_stops_at("ready");
    let script = "echo ready; while :; do sleep 0.01; done";
    let ended = provisioner(script).provision(&build(Transition::Start), world).await;
    assert_eq!(ended, Err(ProvisionError::Stopped));
}

#[tokio::test]
async fn a_program_that_cannot_be_started_is_named_with_its_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    let plain = folder.path().join("plain");
    fs::write(&plain, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o644)).unwrap();
    for (path, remedy) in [(missing, "name a program by its path"), (plain, "chmod +x")] {
        let program = Program { path: path.clone(), args: Vec::new() };
        let provisioner = CommandProvisioner { start: program, ..provisioner("true") };
        let ended = provisioner.provision(&build(Transition::Start), World::new()).await;
        let Err(ProvisionError::Failed(text)) = ended else { panic!("{ended:?}") };
        assert!(text.starts_with(path.to_str().unwrap()) && text.contains(remedy), "{text}");
    }
}

#[tokio::test]
async fn what_no_environment_can_hold_is_not_valid() {
    let nul = Build { source: "a\0b".to_owned(), ..build(Transition::Start) };
    let long = Build { source: "a".repeat(1 << 20), ..build(Transition::Start) };
    for (build, expected) in [(nul, "MUSTERBEAT_SOURCE has a NUL"), (long, "too long")] {
        let ended = provisioner("true").provision(&build, World::new()).await;
        let Err(ProvisionError::Invalid(text)) = ended else { panic!("{ended:?}") };
        assert!(text.contains(expected), "{text}");
    }
}

#[tokio::test]
async fn the_example_of_the_documentation_works() {
    let example = include_str!("../../src/command/example.sh");
    assert!(include_str!("../../../../docs/provisioners.md").contains(example));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("example.sh");
    fs::write(&path, example).unwrap();
    let workspaces = format!("WORKSPACES={}", folder.path().display());
    let args = vec![workspaces, "sh".to_owned(), path.display().to_string()];
    let example = Program { path: "env".into(), args };
    let provisioner = CommandProvisioner {
        start: example.clone(),
        claim: Some(example.clone()),
        stop: Some(example.clone()),
        delete: example,
        limits: CommandLimits::default(),
    };
    let refused = provisioner.provision(&build(Transition::Start), World::new()).await;
    let text = "env: it refused the build: there is no template rust";
    assert_eq!(refused, Err(ProvisionError::Invalid(text.to_owned())));

    let place = folder.path().join("00000000-0000-0000-0000-000000000002");
    for (transition, replacements, is_there) in [
        (Transition::Start, &[][..], true),
        (Transition::Start, &[], true),
        (Transition::Claim, &["hostname"], true),
        (Transition::Stop, &[], true),
        (Transition::Delete, &[], false),
        (Transition::Delete, &[], false),
    ] {
        let build = Build { source: "plain".to_owned(), ..owned(transition, "blue") };
        let done = provisioner.provision(&build, World::new()).await.unwrap();
        assert_eq!(done.replacements, replacements, "{transition:?}");
        assert_eq!(place.exists(), is_there, "{transition:?}");
    }
}

/// Returns what a program finds that is the server's, sorted.
async fn environment(build: Build) -> Vec<String> {
    let program = Program { path: "env".into(), args: Vec::new() };
    let claim = Some(program.clone());
    let provisioner = CommandProvisioner { start: program, claim, ..provisioner("true") };
    let world = World::new();
    provisioner.provision(&build, world.clone()).await.unwrap();
    let mut lines = world.lines();
    let ours = ["MUSTERBEAT_", "DATABASE_URL=", "PGPASSWORD="];
    lines.retain(|line| ours.iter().any(|name| line.starts_with(name)));
    lines.sort();
    lines
}

async fn check(script: &str, expected: Result<(), ProvisionError>) {
    let ended = provisioner(script).provision(&build(Transition::Start), World::new()).await;
    assert_eq!(ended.map(drop), expected, "{script}");
}

fn provisioner(script: &str) -> CommandProvisioner {
    CommandProvisioner {
        start: shell(script),
        claim: None,
        stop: None,
        delete: shell("true"),
        limits: CommandLimits::default(),
    }
}

fn shell(script: &str) -> Program {
    Program { path: "sh".into(), args: vec!["-c".to_owned(), script.to_owned()] }
}
