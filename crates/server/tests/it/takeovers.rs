//! Agents whose replica dies or ends in the middle of what they do.

use std::fs::OpenOptions;
use std::path::Path;
use std::time::Duration;

use musterbeat_testkit::{Answer, Asked, FakeModels, Gate, TestDatabase, demo, eventually};
use serde_json::json;

use crate::client::{Client, PATIENCE, Running};
use crate::mcp::Desk;
use crate::models::{answered_by, soon, told};
use crate::ownership::{SHORT_LEASE, shorten_lease};
use crate::replica::{Replica, musterbeat};
use crate::spawning::{ASK_TWO, REPORTS};

/// Starts a replica whose chats `models` answers, in a process that may be killed.
fn replica(folder: &Path, database: &TestDatabase, models: &FakeModels) -> Replica {
    let mut command = musterbeat(folder);
    command.args(["--dev", "--runner", "agent", "--database-url", database.url()]);
    command.envs(SHORT_LEASE).env("MUSTERBEAT_MODEL", "demo");
    command.env("MUSTERBEAT_MODEL_URL", models.base_url());
    let log = OpenOptions::new().create(true).append(true).open(folder.join("log"));
    Replica::start_logged(&mut command, log.unwrap())
}

/// Starts one beside it, in this process.
async fn survivor(database: &TestDatabase, models: &FakeModels) -> Running {
    let answered = answered_by(models);
    Running::start_beside(database.url(), |settings| {
        answered(settings);
        shorten_lease(settings);
        settings.dev = true;
        settings.drain_timeout = Duration::from_millis(100);
    })
    .await
}

/// Answers as the demo does, but agents only once the gate is open.
fn patient(gate: &Gate) -> impl Fn(&Asked) -> Answer + use<> {
    let gate = gate.clone();
    move |asked| {
        let answer = demo(asked);
        let is_agent = asked.last_said("user").starts_with("You are agent");
        if is_agent { answer.hold_head(&gate) } else { answer }
    }
}

/// Asks for two agents; returns the chat once it waits for both, which are at work.
async fn waiting_parent(client: &Client, gate: &Gate) -> String {
    let chat = client.create_chat(ASK_TWO).await;
    soon(gate.holds(2)).await;
    eventually(PATIENCE, "the waits are stored", async || told(client, &chat).await.len() == 4)
        .await;
    chat
}

/// Lets the agents answer once the survivor has asked for both, and reads what became of the wait.
async fn resumed(client: &Client, chat: &str, models: &FakeModels, gate: &Gate) {
    // Two steps of the parent and the agents were asked for before, and now the agents again.
    soon(models.nth(6)).await.unwrap();
    gate.open();
    client.chat_in(chat, "waiting").await;
    let history = told(client, chat).await;
    assert_eq!(history.len(), 6, "a wait is taken up, not made again: {history:#?}");
    let answer = &history[5];
    assert!(REPORTS.iter().all(|report| answer.contains(report)), "{history:#?}");
    assert!(!history.concat().contains("interrupted"), "{history:#?}");
    assert_eq!(models.asked_total(), 7, "only the last step is asked for after the wait");
    let children = client.get_json(&format!("/api/v1/chats/{chat}/children")).await;
    assert_eq!(children["chats"].as_array().unwrap().len(), 2, "each child was made once");
}

#[tokio::test]
async fn parent_whose_replica_is_killed_gets_the_reports_on_another() {
    let (database, folder) = (TestDatabase::create().await.unwrap(), tempfile::tempdir().unwrap());
    let (models, gate) = (FakeModels::start().await.unwrap(), Gate::new());
    models.answer_by(patient(&gate));
    let victim = replica(folder.path(), &database, &models);
    let chat = waiting_parent(&victim.client, &gate).await;
    let other = survivor(&database, &models).await;
    victim.kill();
    resumed(&other.client, &chat, &models, &gate).await;
    other.stop().await;
}

#[tokio::test]
async fn wait_of_a_replica_that_drains_is_taken_up_by_another() {
    let database = TestDatabase::create().await.unwrap();
    let (models, gate) = (FakeModels::start().await.unwrap(), Gate::new());
    models.answer_by(patient(&gate));
    let leaving = survivor(&database, &models).await;
    let chat = waiting_parent(&leaving.client, &gate).await;
    let other = survivor(&database, &models).await;
    leaving.stop().await;
    resumed(&other.client, &chat, &models, &gate).await;
    other.stop().await;
}

/// Both replicas read the description of the tools from a file, as operators write it.
#[tokio::test]
async fn call_that_must_not_be_repeated_was_made_once_and_the_model_learns_that() {
    let (database, folder) = (TestDatabase::create().await.unwrap(), tempfile::tempdir().unwrap());
    let (models, desk) = (FakeModels::start().await.unwrap(), Desk::start().await);
    models.queue(Answer::new().call("desk__pay", &json!({ "sum": 7 })));
    models.queue(Answer::text("I do not know whether I paid."));
    let tools = format!(
        "[[mcp]]\nname = \"desk\"\nurl = \"{}\"\nallow = [\"pay\"]\ncall_timeout = \"1m\"\n",
        desk.url()
    );
    std::fs::write(folder.path().join("musterbeat.toml"), tools).unwrap();
    let victim = replica(folder.path(), &database, &models);
    let chat = victim.client.create_chat("Pay.").await;
    desk.is_paid(1).await;
    let other = replica(folder.path(), &database, &models);
    victim.kill();

    other.client.chat_in(&chat, "waiting").await;
    assert_eq!(desk.paid(), 1);
    let asked = soon(models.nth(2)).await.unwrap();
    let result = &asked.results()[0];
    assert!(result.starts_with("Error: outcome unknown"), "{result}");
    let history = told(&other.client, &chat).await;
    assert_eq!(history[1], r#"assistant: desk__pay{"sum":7}"#);
    assert!(history[2].starts_with("tool: ! outcome unknown"), "{history:?}");
    assert_eq!(history[3], "assistant: I do not know whether I paid.");
    other.stop();
    let log = std::fs::read_to_string(folder.path().join("log")).unwrap();
    assert!(log.contains("an MCP server is connected"), "{log}");
    assert!(!log.contains("rmcp"), "each connection's life is no rare event: {log}");
}
