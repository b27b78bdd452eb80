//! Subagents, as a model uses them; what they do to chats is tested with storage.

use std::sync::Arc;

use musterbeat_agent::agent::{Agent, AgentOptions};
use musterbeat_agent::subagents::Subagents;
use musterbeat_core::port::{ChatRunner, ChatTurn};
use musterbeat_core::run::RunStatus;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::script::{Line, Script, call, chosen, end, says};
use crate::stage::{Stage, report};

fn agent(script: &Arc<Script>) -> Agent {
    Agent::new(Arc::new(chosen(script)), vec![Arc::new(Subagents)], AgentOptions::default())
}

fn child() -> String {
    Uuid::from_u128(7).to_string()
}

/// Has a model make one call and returns its result as JSON, or as it is.
async fn result(stage: &Arc<Stage>, name: &str, input: Value) -> Value {
    let script = Script::new([vec![call(name, input), end()], says("done")]);
    agent(&script).turn(stage.turn(), stage.clone()).await;
    let line = stage.history().pop().unwrap();
    let line = line.strip_prefix("tool: ").unwrap();
    match line.strip_prefix("= ") {
        Some(output) => serde_json::from_str(output).unwrap(),
        None => json!(line),
    }
}

#[tokio::test(start_paused = true)]
async fn chat_that_may_not_spawn_gets_no_such_tools() {
    let names = |script: &Arc<Script>| -> Vec<String> {
        script.requests()[0].tools.iter().map(|spec| spec.name.clone()).collect()
    };
    let (script, stage) = (Script::new([says("hi")]), Stage::asked("hello"));
    agent(&script).turn(stage.turn(), stage.clone()).await;
    let all = [
        "close_agent",
        "interrupt_agent",
        "list_agents",
        "message_agent",
        "spawn_agent",
        "wait_agent",
    ];
    assert_eq!(names(&script), all);
    let script = Script::new([says("hi")]);
    let turn = ChatTurn { may_spawn: false, depth: 1, ..stage.turn() };
    agent(&script).turn(turn, stage.clone()).await;
    assert_eq!(names(&script), Vec::<String>::new());
}

/// Upstream: the fallback titles {Empty, Short, Long}, and the child's inheritance in storage.
#[tokio::test(start_paused = true)]
async fn child_is_named_by_its_call_and_titled_by_its_task() {
    let stage = Stage::asked("go");
    let long = "count all the words of each file in the folder";
    let spawned = result(&stage, "spawn_agent", json!({ "prompt": long })).await;
    assert_eq!(spawned["title"], "count all the words of each");
    assert_eq!(spawned["status"], "pending");
    let deed = stage.deeds.lock().unwrap().remove(0);
    let id = spawned["chat_id"].as_str().unwrap();
    assert_eq!(deed, format!("spawn \"count all the words of each\" {long:?} {id}"));

    let titled = json!({ "prompt": "look", "title": "A look" });
    assert_eq!(result(&stage, "spawn_agent", titled).await["title"], "A look");
    let empty = result(&stage, "spawn_agent", json!({ "prompt": " " })).await;
    assert!(empty.as_str().unwrap().contains("prompt"), "{empty}");
    let refused = json!({ "prompt": "look", "title": "too many" });
    let refused = result(&stage, "spawn_agent", refused).await;
    assert!(refused.as_str().unwrap().starts_with("! "), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn report_of_a_child_is_returned_as_it_stands() {
    let stage = Stage::asked("go");
    let wait = json!({ "chat_id": child(), "timeout_seconds": 9 });
    let not_mine = result(&stage, "wait_agent", wait.clone()).await;
    assert!(not_mine.as_str().unwrap().contains("is no descendant"), "{not_mine}");

    let check = async |report, expected: Value| {
        *stage.report.lock().unwrap() = Some(report);
        let told = result(&stage, "wait_agent", wait.clone()).await;
        assert_eq!(told, expected);
    };
    let done = report(RunStatus::Waiting, None, Some("42"));
    check(done, json!({ "chat_id": child(), "status": "waiting", "report": "42" })).await;
    let silent = report(RunStatus::Waiting, None, None);
    check(silent, json!({ "chat_id": child(), "status": "waiting", "report": null })).await;
    let failed = report(RunStatus::Error, Some("no key"), None);
    let told = json!({
        "chat_id": child(), "status": "error", "error": "no key", "report": null,
    });
    check(failed, told).await;
    // It is no error to have waited too short.
    let working = report(RunStatus::Running, None, None);
    check(working, json!({ "chat_id": child(), "status": "running", "timed_out": true })).await;
    let deeds = stage.deeds.lock().unwrap();
    assert_eq!(deeds[0], "wait 7 Some(9s)");
}

/// Upstream: `ZeroTimeoutUsesDefault`.
#[tokio::test(start_paused = true)]
async fn wait_without_a_time_leaves_it_to_the_engine() {
    let stage = Stage::asked("go");
    *stage.report.lock().unwrap() = Some(report(RunStatus::Waiting, None, None));
    result(&stage, "wait_agent", json!({ "chat_id": child() })).await;
    result(&stage, "wait_agent", json!({ "chat_id": child(), "timeout_seconds": 0 })).await;
    let far = json!({ "chat_id": child(), "timeout_seconds": 1_000_000 });
    result(&stage, "wait_agent", far).await;
    assert_eq!(*stage.deeds.lock().unwrap(), ["wait 7 None", "wait 7 None", "wait 7 Some(3600s)"]);
}

#[tokio::test(start_paused = true)]
async fn children_are_written_to_and_stopped() {
    let stage = Stage::asked("go");
    let told = json!({ "chat_id": child(), "message": "faster" });
    assert_eq!(result(&stage, "message_agent", told).await["queued"], true);
    let told = json!({ "chat_id": child(), "message": "stop it", "interrupt": true });
    assert_eq!(result(&stage, "message_agent", told).await["queued"], false);
    result(&stage, "interrupt_agent", json!({ "chat_id": child() })).await;
    result(&stage, "close_agent", json!({ "chat_id": child() })).await;
    assert_eq!(result(&stage, "list_agents", json!({})).await, json!({ "agents": [] }));
    let expected = [
        "send 7 \"faster\" Queue",
        "send 7 \"stop it\" Interrupt",
        "halt 7 Turn",
        "halt 7 Everything",
    ];
    assert_eq!(*stage.deeds.lock().unwrap(), expected);
    let unknown = result(&stage, "close_agent", json!({ "chat": child() })).await;
    assert!(unknown.as_str().unwrap().starts_with("! the input is wrong"), "{unknown}");
}

/// A message that may have been sent is not sent again; a wait is taken up.
#[tokio::test(start_paused = true)]
async fn calls_that_matter_after_a_takeover_are_recorded() {
    let stage = Stage::asked("go");
    *stage.report.lock().unwrap() = Some(report(RunStatus::Waiting, None, None));
    let step = |name: &str, input| vec![call(name, input), end()];
    let steps: Vec<Vec<Line>> = vec![
        step("spawn_agent", json!({ "prompt": "look" })),
        step("wait_agent", json!({ "chat_id": child() })),
        step("message_agent", json!({ "chat_id": child(), "message": "faster" })),
        step("list_agents", json!({})),
        says("done"),
    ];
    let script = Script::new(steps);
    agent(&script).turn(stage.turn(), stage.clone()).await;
    assert_eq!(stage.steps(), 3 * 2 + 1, "a list is not recorded first");
}
