//! MCP servers that are programs.

use std::path::PathBuf;
use std::time::Duration;

use futures_util::FutureExt;
use musterbeat_testkit::eventually;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use tokio::time::timeout;

use super::ground::{
    PATIENCE, ask, call, echo, error, gone, health, is_alive, names, number, open, open_again,
    program, toolkit,
};
use crate::mcp::{Allow, Lifetime, McpServer, McpState, McpTransport};
use crate::tool::Repeat;

fn of_run() -> McpServer {
    McpServer { lifetime: Lifetime::Run, ..echo() }
}

#[tokio::test]
async fn allowed_tools_are_offered_by_names_that_providers_take() {
    let allow = ["echo", "me*", "huge", "read a/file", "gone"].map(str::to_owned);
    let toolkit = toolkit(vec![McpServer { allow: Allow::new(&allow).unwrap(), ..echo() }]);
    assert_eq!(health(&toolkit).state, McpState::Idle);
    let tools = open(&toolkit).await;
    assert_eq!(names(&tools), ["echo__echo", "echo__meet", "echo__read_a_file_eec9d124"]);
    assert_eq!(ask(&tools, "read_a_file_eec9d124").await, "read a/file was called");
    assert_eq!(tools[0].spec().description, "The tool echo.");
    assert_eq!(tools[0].spec().input, json!({"type": "object", "properties": {}}));

    let health = health(&toolkit);
    assert!(matches!(health.state, McpState::Connected { tools: 3, .. }), "{health:?}");
    assert_eq!((health.calls, health.failures, health.connections), (1, 0, 1));
    assert!(health.notes[0].starts_with(r#""huge" is left out"#), "{health:?}");
    assert_eq!(health.notes[1..], [r#"`allow` names "gone", which it does not have"#]);
    toolkit.close().await;
}

#[tokio::test]
async fn conduct_is_what_the_server_says_of_each_tool() {
    let toolkit = toolkit(vec![echo()]);
    let tools = open(&toolkit).await;
    let repeat = |name: &str| {
        let tool = tools.iter().find(|tool| tool.spec().name == name).unwrap();
        tool.conduct().repeat
    };
    let repeats = ["echo__echo", "echo__set", "echo__meet"].map(repeat);
    assert_eq!(repeats, [Repeat::Anew, Repeat::Same, Repeat::Never]);
    toolkit.close().await;
}

#[tokio::test]
async fn calls_of_two_turns_meet_on_one_connection() {
    let toolkit = toolkit(vec![echo()]);
    // Both open at once, and share the attempt.
    let (one, two) = tokio::join!(open(&toolkit), open(&toolkit));
    assert_eq!(number(&one, "process").await, number(&two, "process").await);
    let met = tokio::join!(ask(&one, "meet"), ask(&two, "meet"));
    assert_eq!(met, ("met".to_owned(), "met".to_owned()));
    assert_eq!(health(&toolkit).connections, 1);
    toolkit.close().await;
}

#[tokio::test]
async fn failures_are_told_to_the_model() {
    let toolkit = toolkit(vec![echo()]);
    let tools = open(&toolkit).await;
    let failure = async |name: &str| call(&tools, name, json!({})).await.unwrap_err().0;
    assert_eq!(failure("fail").await, "no such file");
    assert_eq!(failure("refuse").await, "the MCP server `echo` refused the call: not like this");
    let text = call(&tools, "echo", json!("text")).await.unwrap_err().0;
    assert!(text.starts_with("nothing was done: the input is not a JSON object"), "{text}");
    let health = health(&toolkit);
    assert_eq!((health.calls, health.failures), (2, 1), "an error of a tool is an answer");
    toolkit.close().await;
}

#[tokio::test]
async fn abandoned_call_is_cancelled() {
    let toolkit = toolkit(vec![echo()]);
    let tools = open(&toolkit).await;
    {
        let mut abandoned = Box::pin(call(&tools, "hang", json!({})));
        eventually(PATIENCE, "the call has begun", async || {
            assert!(abandoned.as_mut().now_or_never().is_none());
            ask(&tools, "cancelled").await == "1 0"
        })
        .await;
    }
    eventually(PATIENCE, "the call is cancelled", async || ask(&tools, "cancelled").await == "1 1")
        .await;
    toolkit.close().await;
}

#[tokio::test]
async fn late_call_is_cancelled_and_its_outcome_unknown() {
    let toolkit = toolkit(vec![McpServer { call_timeout: Duration::from_millis(300), ..echo() }]);
    let tools = open(&toolkit).await;
    let late = call(&tools, "hang", json!({})).await.unwrap_err().0;
    let expected = "the outcome is unknown: the MCP server `echo` gave no answer within 300ms";
    assert_eq!(late, expected);
    eventually(PATIENCE, "the call is cancelled", async || {
        // On a busy machine this may be late, too.
        call(&tools, "cancelled", json!({})).await.is_ok_and(|counts| counts == "1 1")
    })
    .await;
    toolkit.close().await;
}

#[tokio::test]
async fn answer_beyond_the_bound_is_thrown_away() {
    let toolkit = toolkit(vec![McpServer { call_timeout: Duration::from_secs(1), ..echo() }]);
    let tools = open(&toolkit).await;
    let flood = call(&tools, "flood", json!({})).await.unwrap_err().0;
    assert!(flood.contains("no answer within"), "{flood}");
    eventually(PATIENCE, "the connection serves on", async || {
        call(&tools, "echo", json!({"text": "on"})).await.is_ok_and(|text| text == "on")
    })
    .await;
    assert_eq!(health(&toolkit).connections, 1);
    toolkit.close().await;
}

#[tokio::test]
async fn death_in_a_call_leaves_its_outcome_unknown_and_the_next_call_reconnects() {
    let toolkit = toolkit(vec![echo()]);
    let tools = open(&toolkit).await;
    let before = number(&tools, "process").await;
    let lost = call(&tools, "die", json!({})).await.unwrap_err().0;
    let expected = "the outcome is unknown: the MCP server `echo` was lost during the call: it \
                    ended the connection";
    assert_eq!(lost, expected);
    // The same tools, as a long turn holds them.
    assert_ne!(number(&tools, "process").await, before);
    assert_eq!(health(&toolkit).connections, 2);
    gone(&[before]).await;
    toolkit.close().await;
}

#[tokio::test]
async fn killed_program_is_noticed_and_the_next_turn_reconnects() {
    let toolkit = toolkit(vec![echo()]);
    let before = number(&open(&toolkit).await, "process").await;
    kill(Pid::from_raw(before), Signal::SIGKILL).unwrap();
    eventually(PATIENCE, "the death is noticed", async || {
        matches!(health(&toolkit).state, McpState::Failed { .. })
    })
    .await;
    assert_eq!(error(&health(&toolkit)), "it ended the connection");
    let tools = open(&toolkit).await;
    assert_ne!(number(&tools, "process").await, before);
    assert!(matches!(health(&toolkit).state, McpState::Connected { .. }));
    toolkit.close().await;
}

#[tokio::test]
async fn silent_server_costs_a_turn_no_more_than_its_time() {
    let connect_timeout = Duration::from_millis(300);
    let silent = program("silent", PathBuf::from("sleep"), &["600"]);
    for lifetime in [Lifetime::Shared, Lifetime::Run] {
        let silent = McpServer { lifetime, connect_timeout, ..silent.clone() };
        let toolkit = toolkit(vec![silent, echo()]);
        let opened = timeout(PATIENCE, open(&toolkit)).await;
        let tools = opened.expect("the turn goes on");
        assert!(names(&tools).contains(&"echo__echo".to_owned()), "the other is there");
        eventually(PATIENCE, "the attempt has failed", async || {
            matches!(health(&toolkit).state, McpState::Failed { .. })
        })
        .await;
        assert_eq!(error(&health(&toolkit)), "it did not answer within 300ms");
        assert_eq!(health(&toolkit).connections, 0);
        toolkit.close().await;
    }
}

#[tokio::test]
async fn programs_that_do_not_serve_are_told_apart() {
    let failure = async |command: &str, args: &[&str]| {
        let toolkit = toolkit(vec![program("away", PathBuf::from(command), args)]);
        assert!(open(&toolkit).await.is_empty());
        error(&health(&toolkit)).to_owned()
    };
    let missing = failure("/nowhere/to/be/found", &[]).await;
    assert!(missing.starts_with("its program or the interpreter"), "{missing}");
    let file = failure(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"), &[]).await;
    assert!(file.starts_with("its program may not be executed"), "{file}");
    let told = failure("sh", &["-c", "echo starting >&2; echo 'no token' >&2; exit 1"]).await;
    assert!(told.ends_with("its program's last words: no token"), "{told}");
}

#[tokio::test]
async fn turn_with_a_program_of_its_own_leaves_none_behind() {
    let toolkit = toolkit(vec![of_run()]);
    let (one, two) = tokio::join!(open(&toolkit), open(&toolkit));
    let processes = [number(&one, "process").await, number(&two, "process").await];
    assert_ne!(processes[0], processes[1]);
    let child = number(&one, "breed").await;
    assert!(is_alive(child));
    drop(one);
    gone(&[processes[0], child]).await;
    assert_eq!(number(&two, "process").await, processes[1], "the other turn goes on");
    // A turn whose future is dropped drops its tools.
    drop(two);
    gone(&processes).await;
    assert!(matches!(health(&toolkit).state, McpState::Connected { .. }));
    toolkit.close().await;
}

#[tokio::test]
async fn attempt_of_a_dropped_turn_leaves_no_program_behind() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pids");
    let script = format!("sleep 600 & echo $$ $! > {0}.new; mv {0}.new {0}; wait", file.display());
    let silent = program("silent", PathBuf::from("sh"), &["-c", &script]);
    let toolkit = toolkit(vec![McpServer { lifetime: Lifetime::Run, ..silent }]);
    let mut turn = Box::pin(open(&toolkit));
    let mut processes = Vec::new();
    eventually(PATIENCE, "the program runs", async || {
        assert!(turn.as_mut().now_or_never().is_none());
        let told = std::fs::read_to_string(&file).unwrap_or_default();
        processes = told.split_whitespace().map(|process| process.parse().unwrap()).collect();
        processes.len() == 2
    })
    .await;
    assert!(processes.iter().all(|process| is_alive(*process)));
    drop(turn);
    gone(&processes).await;
}

#[tokio::test]
async fn turn_that_loses_its_own_program_keeps_no_tools() {
    let toolkit = toolkit(vec![of_run()]);
    let tools = open(&toolkit).await;
    call(&tools, "die", json!({})).await.unwrap_err();
    let after = call(&tools, "echo", json!({"text": "x"})).await.unwrap_err().0;
    let expected = "nothing was done: the MCP server `echo` ended, and its tools are gone until \
                    the next turn";
    assert_eq!(after, expected);
    assert_eq!(ask(&open(&toolkit).await, "set").await, "set was called");
    toolkit.close().await;
}

#[tokio::test]
async fn programs_inherit_what_they_are_given_and_no_secret() {
    let mut server = echo();
    let McpTransport::Program(program) = &mut server.transport else { unreachable!() };
    program.env = [("ECHO_TOKEN".to_owned(), "s3cret".into())].into();
    // Cargo sets it for tests; a secret of the server would come the same way.
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
    program.inherit = vec!["CARGO_PKG_NAME".to_owned()];
    let toolkit = toolkit(vec![server]);
    let told = ask(&open(&toolkit).await, "environment").await;
    let names: Vec<String> = serde_json::from_str(&told).unwrap();
    let has = |name: &str| names.iter().any(|each| each == name);
    assert!(has("PATH") && has("ECHO_TOKEN") && has("CARGO_PKG_NAME"), "{names:?}");
    assert!(!has("CARGO_MANIFEST_DIR"), "{names:?}");
    toolkit.close().await;
}

#[tokio::test]
async fn changed_list_is_seen_by_the_next_turn() {
    let toolkit = toolkit(vec![echo()]);
    let tools = open(&toolkit).await;
    assert!(!names(&tools).contains(&"echo__learnt".to_owned()));
    assert_eq!(ask(&tools, "learn").await, "learnt");
    eventually(PATIENCE, "the new tool is offered", async || {
        names(&open(&toolkit).await).contains(&"echo__learnt".to_owned())
    })
    .await;
    assert_eq!(health(&toolkit).connections, 1);
    toolkit.close().await;
}

#[tokio::test]
async fn close_ends_what_is_shared_and_gives_no_more() {
    let toolkit = toolkit(vec![echo()]);
    let tools = open(&toolkit).await;
    let processes = [number(&tools, "process").await, number(&tools, "breed").await];
    toolkit.close().await;
    assert!(!is_alive(processes[0]), "it was waited for");
    gone(&processes).await;
    let closed = call(&tools, "process", json!({})).await.unwrap_err().0;
    assert!(closed.starts_with("nothing was done: the MCP server `echo` is away"), "{closed}");
    assert!(open(&toolkit).await.is_empty());
    toolkit.close().await;
}

#[tokio::test]
async fn dropped_toolkit_ends_its_programs() {
    let toolkit = toolkit(vec![echo()]);
    let tools = open(&toolkit).await;
    let process = number(&tools, "process").await;
    drop(toolkit);
    assert!(is_alive(process), "a turn still has its tools");
    drop(tools);
    gone(&[process]).await;
}

#[tokio::test]
async fn program_that_ignores_its_end_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    // Its child serves, and it stays when that has ended and when it is asked to end.
    let McpTransport::Program(echo) = echo().transport else { unreachable!() };
    let script = format!(
        "echo $$ > {}; trap '' TERM; {}; while :; do sleep 1; done",
        file.display(),
        echo.command.display()
    );
    let stubborn = program("echo", PathBuf::from("sh"), &["-c", &script]);
    let toolkit = toolkit(vec![stubborn]);
    let tools = open_again(&toolkit).await;
    let shell: i32 = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
    let processes = [shell, number(&tools, "process").await];
    toolkit.close().await;
    gone(&processes).await;
}
