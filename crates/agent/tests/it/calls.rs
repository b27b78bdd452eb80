//! Calls of tools: at once, each answered, the faster seen first.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use musterbeat_agent::agent::AgentOptions;
use musterbeat_agent::tool::{Conduct, Repeat, ToolError};
use musterbeat_core::port::{ChatRunner, TurnEnd};
use musterbeat_core::run::StopCause;
use serde_json::json;
use tokio::sync::{Barrier, Notify};

use crate::script::{Script, agent, agent_with, call, calls, end, says, text, tool, tool_with};
use crate::stage::{Stage, lines};

#[tokio::test(start_paused = true)]
async fn tools_that_wait_for_each_other_both_finish() {
    let script = Script::new([calls(["left", "right"]), says("done")]);
    let barrier = Arc::new(Barrier::new(2));
    let waiting = |name| {
        let barrier = Arc::clone(&barrier);
        tool(name, move |_, _| {
            let barrier = Arc::clone(&barrier);
            async move {
                barrier.wait().await;
                Ok("met".to_owned())
            }
        })
    };
    let stage = Stage::asked("meet");
    let tools = vec![waiting("left"), waiting("right")];
    let end = agent(&script, tools).turn(stage.turn(), stage.clone()).await;
    assert!(matches!(end, TurnEnd::Answer(_)), "{end:?}");
    assert_eq!(stage.history()[2], "tool: = met | = met");
}

#[tokio::test(start_paused = true)]
async fn faster_result_is_seen_before_the_slower_tool_ends() {
    let script = Script::new([calls(["slow", "fast"]), says("done")]);
    let gate = Arc::new(Notify::new());
    let held = Arc::clone(&gate);
    let slow = tool("slow", move |_, _| {
        let held = Arc::clone(&held);
        async move {
            held.notified().await;
            Ok("late".to_owned())
        }
    });
    let fast = tool("fast", |_, _| async { Ok("early".to_owned()) });
    let (agent, stage) = (agent(&script, vec![slow, fast]), Stage::asked("race"));
    let release = async {
        stage.sees("= early").await;
        assert!(!stage.seen().contains(&"= late".to_owned()));
        assert_eq!(stage.steps(), 0, "nothing is stored before all have come");
        gate.notify_one();
    };
    let (_, ()) = tokio::join!(agent.turn(stage.turn(), stage.clone()), release);
    assert_eq!(stage.history()[2], "tool: = late | = early", "stored in the order of the calls");
}

#[tokio::test(start_paused = true)]
async fn each_failure_is_a_result_of_its_call_only() {
    let names = ["fails", "panics", "unknown", "hangs", "shouts", "works"];
    let script = Script::new([calls(names), says("done")]);
    let tools = vec![
        tool("fails", |_, _| async { Err(ToolError("no such file".to_owned())) }),
        tool("panics", |_, _| async { panic!("a fault of the test") }),
        tool("hangs", |_, _| std::future::pending()),
        tool("shouts", |_, _| async { Ok("\u{1b}é".repeat(100_000)) }),
        tool("works", |_, _| async { Ok("fine".to_owned()) }),
    ];
    let stage = Stage::asked("try all");
    agent(&script, tools).turn(stage.turn(), stage.clone()).await;
    let results = stage.history()[2].clone();
    let results: Vec<&str> = results.split(" | ").collect();
    assert_eq!(results[0], "tool: ! no such file");
    assert_eq!(results[1], "! the tool panicked: a fault of the test");
    assert_eq!(results[2], r#"! there is no tool "unknown""#);
    assert_eq!(results[3], "! the tool took longer than 300s and was stopped");
    let oversize = "! the output has 800000 bytes, at most 65536 are allowed: ask for less of it.";
    assert!(results[4].starts_with(oversize), "{:.100}", results[4]);
    assert!(results[4].len() < 8_000);
    assert_eq!(results[5], "= fine");
}

#[tokio::test(start_paused = true)]
async fn input_that_is_no_object_is_refused() {
    let script = Script::new([vec![call("read", json!("{\"cut")), end()], says("done")]);
    let read = tool("read", |_, _| async { panic!("it was called") });
    let stage = Stage::asked("read");
    agent(&script, vec![read]).turn(stage.turn(), stage.clone()).await;
    assert_eq!(stage.history()[2], "tool: ! the input is no JSON object: this call was not made");
}

/// Upstream: the exclusive-tool policy (#24619).
#[tokio::test(start_paused = true)]
async fn exclusive_tool_is_called_alone_or_not_at_all() {
    let script = Script::new([calls(["alone", "other"]), calls(["alone"]), says("done")]);
    let exclusive = Conduct { exclusive: true, repeat: Repeat::Never, ..Conduct::default() };
    let alone = tool_with("alone", exclusive, |_, _| async { Ok("ran".to_owned()) });
    let other = tool("other", |_, _| async { panic!("it was called") });
    let stage = Stage::asked("go");
    agent(&script, vec![alone, other]).turn(stage.turn(), stage.clone()).await;
    let why =
        "alone must be the only call of its step: none of these calls was made, make it alone";
    assert_eq!(stage.history()[2], format!("tool: ! {why} | ! {why}"));
    assert_eq!(stage.history()[4], "tool: = ran");
}

#[tokio::test(start_paused = true)]
async fn only_so_many_calls_are_made_at_once() {
    let script = Script::new([calls(["work"; 70]), says("done")]);
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counted, all) = (Arc::clone(&most), Arc::new(Barrier::new(16)));
    let work = tool("work", move |_, _| {
        let (now, most) = (Arc::clone(&now), Arc::clone(&counted));
        let all = Arc::clone(&all);
        async move {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            // Each goes on when as many as may are at work.
            all.wait().await;
            now.fetch_sub(1, Ordering::SeqCst);
            Ok("done".to_owned())
        }
    });
    let stage = Stage::asked("much");
    agent(&script, vec![work]).turn(stage.turn(), stage.clone()).await;
    assert_eq!(most.load(Ordering::SeqCst), 16);
    let results = stage.history()[2].clone();
    assert_eq!(results.matches("= done").count(), 64);
    assert_eq!(results.matches("a step has at most 64 calls").count(), 6);
}

/// Upstream: `InterruptedDuringToolExecutionPersistsStep`, `InterruptedStepPersistsSyntheticToolResult`.
#[tokio::test(start_paused = true)]
async fn interrupt_keeps_the_calls_and_what_finished() {
    let script = Script::new([vec![
        text("working"),
        call("fast", json!({})),
        call("hangs", json!({})),
        end(),
    ]]);
    let fast = tool("fast", |_, _| async { Ok("early".to_owned()) });
    let hangs = tool("hangs", |_, _| std::future::pending());
    let (agent, stage) = (agent(&script, vec![fast, hangs]), Stage::asked("go"));
    let interrupt = async {
        stage.sees("= early").await;
        stage.stop(StopCause::Interrupted);
    };
    let (end, ()) = tokio::join!(agent.turn(stage.turn(), stage.clone()), interrupt);
    let TurnEnd::Stopped(kept) = &end else { panic!("{end:?}") };
    assert_eq!(lines(kept), ["assistant: working | fast{} | hangs{}", "tool: = early"]);
    stage.ended(&end);
    assert_eq!(stage.open(), 1, "storage answers what is open with `interrupted`");
}

#[tokio::test(start_paused = true)]
async fn outputs_too_large_for_one_message_are_stored_in_several() {
    let script = Script::new([calls(["large"; 8]), says("done")]);
    let large = tool("large", |_, _| async { Ok("x".repeat(900_000)) });
    let stage = Stage::asked("much");
    let options = AgentOptions { output_bytes_max: usize::MAX, ..AgentOptions::default() };
    let end = agent_with(&script, vec![large], options).turn(stage.turn(), stage.clone()).await;
    assert!(matches!(end, TurnEnd::Answer(_)), "{end:?}");
    assert_eq!(stage.open(), 0);
    assert_eq!(stage.steps(), 1);
    assert_eq!(stage.history().len(), 4, "a question, its calls, and results in two messages");
}
