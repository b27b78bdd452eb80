//! The loop: steps, retries, interrupts and ends.

use std::num::NonZeroU32;

use musterbeat_agent::agent::AgentOptions;
use musterbeat_agent::error::ErrorKind;
use musterbeat_core::chat::Refused;
use musterbeat_core::message::Role;
use musterbeat_core::port::{ChatRunner, StepError, TurnEnd};
use musterbeat_core::run::StopCause;
use serde_json::json;

use crate::script::{Line, Script, agent, agent_with, call, calls, end, end_of, says, text, tool};
use crate::stage::{Stage, lines, words};

fn answer(end: &TurnEnd) -> Vec<String> {
    let TurnEnd::Answer(messages) = end else { panic!("{end:?}") };
    lines(messages)
}

/// Upstream: `MultiStepToolExecution`.
#[tokio::test(start_paused = true)]
async fn second_prompt_has_the_call_and_its_result() {
    let step = vec![text("let me see"), call("read", json!({ "path": "a" })), end()];
    let script = Script::new([step, says("it says hi")]);
    let read = tool("read", |call, _| async move { Ok(format!("{} says hi", call.input["path"])) });
    let stage = Stage::asked("what is in a?");
    let end = agent(&script, vec![read]).turn(stage.turn(), stage.clone()).await;
    assert_eq!(answer(&end), ["assistant: it says hi"]);
    assert_eq!(stage.steps(), 1, "the answer with its results is one write");
    let asked = script.asked();
    assert_eq!(asked.len(), 2);
    assert_eq!(asked[0], ["user: what is in a?"]);
    assert_eq!(
        asked[1],
        [
            "user: what is in a?",
            r#"assistant: let me see | read{"path":"a"}"#,
            r#"tool: = "a" says hi"#,
        ]
    );
    assert_eq!(
        stage.seen(),
        ["let me see", r#"read{"path":"a"}"#, r#"= "a" says hi"#, "it says hi"]
    );
}

#[tokio::test(start_paused = true)]
async fn tokens_are_stored_with_the_answer() {
    let script = Script::new([vec![text("hi"), end_of(12)]]);
    let stage = Stage::asked("hello");
    let end = agent(&script, vec![]).turn(stage.turn(), stage.clone()).await;
    let TurnEnd::Answer(messages) = end else { panic!() };
    assert_eq!(messages[0].usage.input_tokens, Some(12));
    assert_eq!(messages[0].usage.output_tokens, Some(7));
}

#[tokio::test(start_paused = true)]
async fn failure_that_passes_is_told_and_tried_again() {
    let script = Script::new([
        vec![text("half"), Line::Fail(ErrorKind::Transport)],
        vec![Line::Fail(ErrorKind::RateLimit)],
        says("whole"),
    ]);
    let stage = Stage::asked("hello");
    let end = agent(&script, vec![]).turn(stage.turn(), stage.clone()).await;
    assert_eq!(answer(&end), ["assistant: whole"]);
    assert_eq!(stage.seen(), ["half", "retry", "retry", "whole"]);
    let retry = &stage.parts()[1];
    assert_eq!(retry["attempt"], 1);
    assert_eq!(retry["kind"], "transport");
    assert_eq!(retry["provider"], "script");
    assert!(retry["delay_ms"].is_u64(), "{retry}");
}

#[tokio::test(start_paused = true)]
async fn failure_that_lasts_ends_the_turn() {
    let script = Script::new([vec![Line::Fail(ErrorKind::Auth)]]);
    let stage = Stage::asked("hello");
    let end = agent(&script, vec![]).turn(stage.turn(), stage.clone()).await;
    assert_eq!(end, TurnEnd::Failed("script: it failed".to_owned()));
    assert_eq!(stage.seen(), Vec::<String>::new());
}

#[tokio::test(start_paused = true)]
async fn silent_model_is_given_up_and_asked_again() {
    let script = Script::new([vec![Line::Silence], vec![text("half"), Line::Silence], says("hi")]);
    let stage = Stage::asked("hello");
    let end = agent(&script, vec![]).turn(stage.turn(), stage.clone()).await;
    assert_eq!(answer(&end), ["assistant: hi"]);
    let kinds: Vec<_> = stage.parts().iter().filter_map(|part| part.get("kind").cloned()).collect();
    assert_eq!(kinds, [json!("startup_timeout"), json!("silence")]);
    assert_eq!(*script.open.borrow(), 0, "each call was ended");
}

/// Upstream: `InterruptChatPersistsPartialResponse`.
#[tokio::test(start_paused = true)]
async fn interrupt_keeps_what_was_said() {
    let script = Script::new([vec![text("hello "), text("world"), Line::Silence]]);
    let (agent, stage) = (agent(&script, vec![]), Stage::asked("hello"));
    let turn = agent.turn(stage.turn(), stage.clone());
    let interrupt = async {
        stage.sees("world").await;
        stage.stop(StopCause::Interrupted);
    };
    let (end, ()) = tokio::join!(turn, interrupt);
    let TurnEnd::Stopped(kept) = end else { panic!("{end:?}") };
    assert_eq!(lines(&kept), ["assistant: hello world"]);
    assert_eq!(*script.open.borrow(), 0, "the call was ended");
}

#[tokio::test(start_paused = true)]
async fn interrupt_ends_the_wait_for_another_attempt() {
    let script = Script::new([vec![Line::Fail(ErrorKind::Overloaded)]]);
    let (agent, stage) = (agent(&script, vec![]), Stage::asked("hello"));
    let interrupt = async {
        stage.sees("retry").await;
        stage.stop(StopCause::Interrupted);
    };
    let (end, ()) = tokio::join!(agent.turn(stage.turn(), stage.clone()), interrupt);
    assert_eq!(end, TurnEnd::Stopped(vec![]));
}

/// Upstream: `PersistStepErrorPropagates`.
#[tokio::test(start_paused = true)]
async fn step_that_is_not_stored_ends_the_turn() {
    let script = Script::new([calls(["read"])]);
    let read = tool("read", |_, _| async { Ok("hi".to_owned()) });
    let stage = Stage::asked("hello");
    stage.refuse(StepError::Refused(Refused::CallOpen));
    let end = agent(&script, vec![read]).turn(stage.turn(), stage.clone()).await;
    let TurnEnd::Failed(error) = end else { panic!("{end:?}") };
    assert!(error.starts_with("a step was not stored"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn fenced_step_ends_the_turn_without_a_word() {
    let script = Script::new([calls(["read"])]);
    let read = tool("read", |_, _| async { Ok("hi".to_owned()) });
    let stage = Stage::asked("hello");
    stage.refuse(StepError::Fenced);
    let end = agent(&script, vec![read]).turn(stage.turn(), stage.clone()).await;
    assert_eq!(end, TurnEnd::Stopped(vec![]));
}

#[tokio::test(start_paused = true)]
async fn turn_that_goes_round_in_circles_is_ended() {
    let script = Script::new((0..3).map(|_| calls(["read"])));
    let read = tool("read", |_, _| async { Ok("hi".to_owned()) });
    let stage = Stage::asked("hello");
    let options =
        AgentOptions { steps_max: NonZeroU32::new(3).unwrap(), ..AgentOptions::default() };
    let end = agent_with(&script, vec![read], options).turn(stage.turn(), stage.clone()).await;
    assert_eq!(end, TurnEnd::Failed("the turn took 3 steps, more are not allowed".to_owned()));
    assert_eq!(stage.steps(), 3);
}

#[tokio::test(start_paused = true)]
async fn instructions_come_first_and_are_not_stored() {
    let script = Script::new([says("hi")]);
    let stage = Stage::with(vec![words(Role::System, "terms"), words(Role::User, "hello")]);
    let options =
        AgentOptions { instructions: Some("be kind".to_owned()), ..AgentOptions::default() };
    let end = agent_with(&script, vec![], options).turn(stage.turn(), stage.clone()).await;
    stage.ended(&end);
    assert_eq!(script.asked()[0], ["system: be kind", "system: terms", "user: hello"]);
    assert_eq!(stage.history(), ["system: terms", "user: hello", "assistant: hi"]);
}

/// Upstream: `PanicInPublishMessagePartReleasesAttempt`: whoever panics, the call is ended.
#[tokio::test(start_paused = true)]
async fn panic_of_a_model_ends_its_call() {
    let script = Script::new([vec![text("hi"), Line::Panic]]);
    let (agent, stage) = (agent(&script, vec![]), Stage::asked("hello"));
    let turn = tokio::spawn(async move { agent.turn(stage.turn(), stage.clone()).await });
    assert!(turn.await.unwrap_err().is_panic());
    assert_eq!(*script.open.borrow(), 0);
}
