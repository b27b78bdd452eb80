use std::path::Path;

use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;

use super::*;

/// Longest wait for anything; a test that meets it has failed.
const PATIENCE: Duration = Duration::from_mins(1);

#[tokio::test]
async fn what_it_writes_is_the_value() {
    assert_eq!(run_it("printf '\\n  a\\nb \\n\\n'").await, Reading::of("a\nb"));
    assert_eq!(run_it("cat; echo quiet >&2; echo end").await, Reading::of("end"));
}

#[tokio::test]
async fn a_failure_is_told_with_its_status_and_what_it_said() {
    let failed = run_it("echo value; echo 'no such thing' >&2; exit 3").await;
    assert_eq!(failed, Reading::failed("failed with exit status 3: no such thing"));
    assert_eq!(run_it("exit 1").await, Reading::failed("failed with exit status 1"));
    assert_eq!(run_it("kill -9 $$").await, Reading::failed("failed with signal 9"));
}

#[tokio::test]
async fn an_endless_output_is_cut_and_the_script_ends_by_itself() {
    let reading = run_it("head -c 1000000 /dev/zero | tr '\\0' x").await;
    assert_eq!(reading.value, "x".repeat(2_048));
    assert_eq!(reading.error, "1000000 bytes were cut to 2048");
}

#[tokio::test]
async fn what_is_no_utf8_is_said() {
    let reading = run_it("printf 'a\\377b'").await;
    let expected = Reading::of("a\u{fffd}b").with_error("what is not UTF-8 was replaced");
    assert_eq!(reading, expected);
}

#[tokio::test]
async fn a_timeout_kills_the_grandchild_too_and_tells_what_was_said() {
    let folder = tempfile::tempdir().unwrap();
    let script = format!("echo 'waiting' >&2; {}; wait", start_grandchild(folder.path()));
    let time_max = Duration::from_secs(1);
    let over = async { drop(grandchild(folder.path()).await) };
    let error = find(&script, time_max, over).await.unwrap_err();
    assert_eq!(error.to_string(), "took longer than 1s and was killed: waiting");
    gone(&grandchild(folder.path()).await).await;
}

#[tokio::test]
async fn its_time_has_a_bound() {
    let reading = run("while :; do sleep 1; done", Duration::from_millis(100)).await;
    assert_eq!(reading, Reading::failed("took longer than 100ms and was killed"));
}

#[tokio::test]
async fn what_it_leaves_behind_is_killed_and_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let script = format!("{}; echo done", start_grandchild(folder.path()));
    assert_eq!(run_it(&script).await, Reading::of("done"));
    gone(&grandchild(folder.path()).await).await;
}

#[tokio::test]
async fn who_is_not_waited_for_any_more_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let script = format!("{}; wait", start_grandchild(folder.path()));
    let running = tokio::spawn(async move { run(&script, PATIENCE).await });
    let pid = grandchild(folder.path()).await;
    running.abort();
    assert!(running.await.unwrap_err().is_cancelled());
    gone(&pid).await;
}

#[test]
fn the_token_is_kept_from_scripts() {
    let names = ["HOME", "MUSTERBEAT_TOKEN", "PATH", "MUSTERBEAT_AGENT_ID"];
    let command = command("true", names.into_iter().map(OsString::from));
    let removed: Vec<_> = command.as_std().get_envs().map(|(name, _)| name).collect();
    assert_eq!(removed, ["MUSTERBEAT_AGENT_ID", "MUSTERBEAT_TOKEN"]);
}

async fn run_it(script: &str) -> Reading {
    run(script, PATIENCE).await
}

/// Starts a process that ignores what asks it to end, and leaves its number in `folder`.
fn start_grandchild(folder: &Path) -> String {
    let (part, pid) = (folder.join("part"), folder.join("pid"));
    let (part, pid) = (part.display(), pid.display());
    format!(
        "sh -c 'trap \"\" TERM HUP; echo $$ > {part}; mv {part} {pid}; while :; do sleep 1; done' &"
    ) + &format!(" while ! [ -e {pid} ]; do sleep 0.01; done")
}

async fn grandchild(folder: &Path) -> String {
    let pid = folder.join("pid");
    eventually("the grandchild has begun", || pid.exists()).await;
    std::fs::read_to_string(pid).unwrap().trim().to_owned()
}

/// Waits until the process is gone; one that only its parent can still see counts as gone.
async fn gone(pid: &str) {
    let is_zombie = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(") ").next().is_some_and(|state| state.starts_with('Z'))
    };
    let number = Pid::from_raw(pid.parse().unwrap());
    eventually("the process is gone", || kill(number, None) == Err(Errno::ESRCH) || is_zombie())
        .await;
}

async fn eventually(what: &str, reached: impl Fn() -> bool) {
    let looking = async {
        while !reached() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(timeout(PATIENCE, looking).await.is_ok(), "this did not come: {what}");
}
