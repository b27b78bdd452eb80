use std::path::Path;
use std::sync::Mutex;

use musterbeat_core::id::{BuildId, WorkspaceId};
use musterbeat_core::run::StopCause;
use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use tokio::sync::Notify;

use super::*;

/// Longest wait for anything; a test that meets it has failed.
const PATIENCE: Duration = Duration::from_mins(1);

#[tokio::test]
async fn a_timeout_kills_the_grandchild_too_and_tells_what_was_said() {
    let folder = tempfile::tempdir().unwrap();
    let script = format!("echo 'waiting' >&2; {}; wait", start_grandchild(folder.path()));
    let limits = CommandLimits { stop_grace: Duration::from_millis(50), ..short() };
    let over = async { drop(grandchild(folder.path()).await) };
    let context = Arc::new(Listener::default());
    let error = run(&shell(&script), &build(), context, &limits, over).await.unwrap_err();
    assert_eq!(error.to_string(), "it took longer than 60s and was stopped: waiting");
    gone(&grandchild(folder.path()).await).await;
}

#[tokio::test]
async fn what_it_leaves_behind_is_killed_and_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let script = format!("{}; echo done", start_grandchild(folder.path()));
    let context = Arc::new(Listener::default());
    run_it(&script, &context).await.unwrap();
    assert_eq!(context.lines(), ["done"]);
    gone(&grandchild(folder.path()).await).await;
}

#[tokio::test]
async fn a_stop_asks_first_and_is_heard_to_the_end() {
    // No `sleep`, of which a shell would tell that it was terminated.
    let script = "trap 'echo cleaned up; exit 0' TERM; echo ready; while :; do :; done";
    let context = Arc::new(Listener { stop_at: Some("ready"), ..Listener::default() });
    let error = run_it(script, &context).await.unwrap_err();
    assert!(matches!(error, RunError::Stopped), "{error:?}");
    assert_eq!(context.lines(), ["ready", "cleaned up"]);
}

#[tokio::test]
async fn who_does_not_heed_a_stop_is_killed_with_its_group() {
    let folder = tempfile::tempdir().unwrap();
    let begin = start_grandchild(folder.path());
    let script = format!("trap '' TERM; {begin}; echo ready; while :; do sleep 0.01; done");
    let context = Arc::new(Listener { stop_at: Some("ready"), ..Listener::default() });
    let limits = CommandLimits { stop_grace: Duration::from_millis(50), ..short() };
    let never = std::future::pending();
    let error = run(&shell(&script), &build(), context, &limits, never).await.unwrap_err();
    assert!(matches!(error, RunError::Stopped), "{error:?}");
    gone(&grandchild(folder.path()).await).await;
}

#[tokio::test]
async fn a_build_that_is_stopped_already_starts_nothing() {
    let context = Arc::new(Listener::default());
    context.stop.notify_one();
    let error = run_it("echo started", &context).await.unwrap_err();
    assert!(matches!(error, RunError::Stopped), "{error:?}");
    assert_eq!(context.lines(), [""; 0]);
}

#[tokio::test]
async fn who_is_not_waited_for_any_more_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let script = format!("{}; wait", start_grandchild(folder.path()));
    let context = Arc::new(Listener::default());
    let running = tokio::spawn(async move { run_it(&script, &context).await });
    let pid = grandchild(folder.path()).await;
    running.abort();
    assert!(running.await.unwrap_err().is_cancelled());
    gone(&pid).await;
}

#[tokio::test]
async fn output_that_was_taken_out_of_the_group_does_not_hold_up_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let grandchild_of_another_session = format!("setsid {}", start_grandchild(folder.path()));
    let context = Arc::new(Listener::default());
    run_it(&grandchild_of_another_session, &context).await.unwrap();
    let pid = grandchild(folder.path()).await;
    kill(Pid::from_raw(pid.parse().unwrap()), Signal::SIGKILL).unwrap();
    gone(&pid).await;
}

async fn run_it(script: &str, context: &Arc<Listener>) -> Result<Provisioned, RunError> {
    let never = std::future::pending();
    run(&shell(script), &build(), context.clone(), &short(), never).await
}

fn shell(script: &str) -> Program {
    Program { path: "sh".into(), args: vec!["-c".to_owned(), script.to_owned()] }
}

/// Limits that no test is to meet.
fn short() -> CommandLimits {
    CommandLimits { time_max: PATIENCE, stop_grace: PATIENCE, ..CommandLimits::default() }
}

fn build() -> Build {
    Build {
        id: BuildId::new(uuid::Uuid::from_u128(1)),
        workspace: WorkspaceId::new(uuid::Uuid::from_u128(2)),
        transition: Transition::Start,
        name: "blue".to_owned(),
        owner: None,
        source: "rust".to_owned(),
        parameters: std::collections::BTreeMap::new(),
    }
}

/// Keeps the log, and stops the build when a certain line comes.
#[derive(Default)]
struct Listener {
    stop_at: Option<&'static str>,
    stop: Notify,
    lines: Mutex<Vec<String>>,
}

impl Listener {
    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }
}

#[async_trait]
impl BuildContext for Listener {
    async fn stopped(&self) -> StopCause {
        self.stop.notified().await;
        StopCause::Interrupted
    }

    fn log(&self, line: &str) {
        self.lines.lock().unwrap().push(line.to_owned());
        if self.stop_at == Some(line) {
            self.stop.notify_one();
        }
    }
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
