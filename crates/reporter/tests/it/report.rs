use std::path::Path;
use std::time::Duration;

use musterbeat_core::id::AgentId;
use musterbeat_core::metadata::Key;
use musterbeat_reporter::{Reporter, ReporterError, ReporterOptions};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::server::{FakeServer, PATIENCE};

const AGENT: AgentId = AgentId::new(Uuid::from_u128(7));

#[tokio::test]
async fn a_machine_is_reported_and_a_redefinition_followed() {
    let server = FakeServer::start(vec![
        definition("load", ""),
        definition("memory", ""),
        definition("disk", ""),
        definition("who", "echo theirs"),
        definition("broken", "echo 'not today' >&2; exit 4"),
        definition("fortune", ""),
    ])
    .await;
    server.script(|script| script.token = Some("mba_of_an_agent".to_owned()));
    let running = Running::start(&server, |options| {
        options.token = Some("mba_of_an_agent".into());
        options.allow_scripts = true;
        options.commands.insert(Key::new("who").unwrap(), "echo ours".to_owned());
    });
    server.until("all keys", |script| script.stored.len() == 6).await;
    let stored = server.script(|script| script.stored.clone());
    assert_eq!(stored["who"], json!({"key": "who", "value": "ours"}));
    let error = "failed with exit status 4: not today";
    assert_eq!(stored["broken"], json!({"key": "broken", "value": "", "error": error}));
    assert!(stored["load"]["value"].as_str().unwrap().parse::<f64>().is_ok(), "{stored:?}");
    assert!(stored["memory"]["value"].as_str().unwrap().ends_with("%)"), "{stored:?}");
    assert!(stored["disk"]["value"].as_str().unwrap().ends_with("%)"), "{stored:?}");
    let error = stored["fortune"]["error"].as_str().unwrap();
    assert!(error.contains("it knows cpu, disk, load, memory, uptime"), "{error}");
    assert!(server.script(|script| script.agents.iter().all(|agent| *agent == AGENT.to_string())));

    server.script(|script| {
        script.definitions.push(definition("uptime", ""));
        script.version += 1;
    });
    server.until("a key that is new", |script| script.stored.contains_key("uptime")).await;
    running.finish().await.unwrap();
}

#[tokio::test]
async fn a_server_in_dev_needs_no_token() {
    let server = FakeServer::start(vec![definition("load", "")]).await;
    let running = Running::start(&server, |_| {});
    server.until("the load", |script| script.stored.contains_key("load")).await;
    running.finish().await.unwrap();
}

#[tokio::test]
async fn a_token_that_is_revoked_and_an_agent_that_is_deleted_end_it() {
    let server = FakeServer::start(vec![definition("load", "")]).await;
    let running = Running::start(&server, |options| options.token = Some("mba_old".into()));
    let error = running.ended().await.unwrap_err();
    assert!(matches!(error, ReporterError::TokenRefused(AGENT)), "{error}");

    let running = Running::start(&server, |_| {});
    server.until("the load", |script| script.stored.contains_key("load")).await;
    server.script(|script| script.problem = Some((404, "no such agent")));
    let error = running.ended().await.unwrap_err();
    assert!(matches!(error, ReporterError::AgentGone(AGENT)), "{error}");
}

#[tokio::test]
async fn a_server_that_is_away_is_waited_for() {
    let server = FakeServer::start(vec![definition("load", "")]).await;
    server.script(|script| script.problem = Some((503, "starting")));
    let running = Running::start(&server, |_| {});
    let asked = |count| move |script: &mut crate::server::Script| script.agents.len() >= count;
    eventually("the server was asked again", || server.script(asked(2))).await;
    server.script(|script| script.problem = None);
    server.until("the load", |script| script.stored.contains_key("load")).await;
    running.finish().await.unwrap();
}

#[tokio::test]
async fn the_end_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let (part, pid) = (folder.path().join("part"), folder.path().join("pid"));
    let script = format!(
        "echo $$ > {0}; mv {0} {1}; while :; do sleep 1; done",
        part.display(),
        pid.display()
    );
    let server = FakeServer::start(vec![definition("endless", &script)]).await;
    let running = Running::start(&server, |options| options.allow_scripts = true);
    eventually("the script has begun", || pid.exists()).await;
    running.finish().await.unwrap();
    let pid = std::fs::read_to_string(pid).unwrap();
    let stat = format!("/proc/{}/stat", pid.trim());
    let is_gone = || {
        let stat = std::fs::read_to_string(Path::new(&stat)).unwrap_or_default();
        stat.rsplit(") ").next().is_none_or(|state| state.is_empty() || state.starts_with('Z'))
    };
    eventually("the script is gone", is_gone).await;
}

/// A reporter that runs in this process.
struct Running {
    end: CancellationToken,
    task: JoinHandle<Result<(), ReporterError>>,
}

impl Running {
    fn start(server: &FakeServer, change: impl FnOnce(&mut ReporterOptions)) -> Self {
        let mut options = ReporterOptions::new(server.url(), AGENT);
        options.report_interval = Duration::from_millis(50);
        change(&mut options);
        let end = CancellationToken::new();
        let task = tokio::spawn(Reporter::new(options).unwrap().run(end.clone()));
        Self { end, task }
    }

    async fn finish(self) -> Result<(), ReporterError> {
        self.end.cancel();
        self.ended().await
    }

    async fn ended(self) -> Result<(), ReporterError> {
        timeout(PATIENCE, self.task).await.expect("the reporter does not end").unwrap()
    }
}

fn definition(key: &str, script: &str) -> Value {
    json!({
        "key": key, "display_name": key, "script": script, "interval_seconds": 1,
        "timeout_seconds": 10, "display_order": 1, "value": null, "error": null,
        "collected_at": null,
    })
}

async fn eventually(what: &str, reached: impl Fn() -> bool) {
    let looking = async {
        while !reached() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(timeout(PATIENCE, looking).await.is_ok(), "this did not come: {what}");
}
