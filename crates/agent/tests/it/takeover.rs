//! Runs that change hands: what is repeated, what is not, and what a model is told.

use std::sync::Arc;

use musterbeat_agent::tool::{Conduct, Repeat, Tool};
use musterbeat_core::message::{Part, Role};
use musterbeat_core::port::{ChatRunner, TurnEnd};
use musterbeat_core::run::StopCause;
use serde_json::json;
use tokio::sync::{Notify, watch};

use crate::script::{Script, agent, calls, says, tool, tool_with};
use crate::stage::{Stage, said, words};

fn repeated(repeat: Repeat) -> Conduct {
    Conduct { repeat, ..Conduct::default() }
}

/// A tool that counts its calls, and never ends.
fn hanging(name: &str, repeat: Repeat, made: &watch::Sender<usize>) -> Arc<dyn Tool> {
    let made = made.clone();
    tool_with(name, repeated(repeat), move |_, _| {
        made.send_modify(|made| *made += 1);
        std::future::pending()
    })
}

/// Has a tool called that hangs, and ends the turn once it has begun; returns its calls.
async fn cut_short(name: &'static str, repeat: Repeat, stage: &Arc<Stage>) -> watch::Sender<usize> {
    let made = watch::Sender::new(0);
    let script = Script::new([calls([name])]);
    let agent = agent(&script, vec![hanging(name, repeat, &made)]);
    let kill = async {
        made.subscribe().wait_for(|made| *made == 1).await.unwrap();
        stage.stop(StopCause::Shutdown);
    };
    let (end, ()) = tokio::join!(agent.turn(stage.turn(), stage.clone()), kill);
    // Upstream: `ShutdownDuringToolExecutionReturnsContextCanceled`: no interrupt, no success.
    assert!(matches!(end, TurnEnd::Stopped(_)), "{end:?}");
    made
}

#[tokio::test(start_paused = true)]
async fn tool_that_must_not_be_repeated_runs_once_and_its_outcome_is_unknown() {
    let stage = Stage::asked("pay");
    let made = cut_short("pay", Repeat::Never, &stage).await;
    assert_eq!(stage.history(), ["user: pay", "assistant: pay{}"], "recorded before it started");

    let next = Stage::with(stage.messages());
    let script = Script::new([says("I shall look")]);
    let end = agent(&script, vec![hanging("pay", Repeat::Never, &made)])
        .turn(next.turn(), next.clone())
        .await;
    next.ended(&end);
    assert_eq!(*made.borrow(), 1);
    let told = &script.asked()[0][2];
    assert!(told.starts_with("tool: ! outcome unknown: the process died"), "{told}");
    assert_eq!(next.history()[3], "assistant: I shall look");
}

#[tokio::test(start_paused = true)]
async fn recorded_tool_is_called_again_by_the_same_name() {
    let stage = Stage::asked("wait");
    cut_short("wait", Repeat::Same, &stage).await;
    let recorded = stage.messages()[1].content.parts()[0].clone();
    let Part::ToolCall { id: recorded, .. } = recorded else { panic!("{recorded:?}") };

    let next = Stage::with(stage.messages());
    let script = Script::new([says("done")]);
    let wait = tool_with("wait", repeated(Repeat::Same), |call, _| async move { Ok(call.id) });
    agent(&script, vec![wait]).turn(next.turn(), next.clone()).await;
    assert_eq!(next.history()[2], format!("tool: = {recorded}"));
    assert_eq!(script.asked().len(), 1, "the model is asked with the result");
}

#[tokio::test(start_paused = true)]
async fn step_that_was_not_recorded_is_asked_for_again() {
    let stage = Stage::asked("read");
    cut_short("read", Repeat::Anew, &stage).await;
    assert_eq!(stage.history(), ["user: read"]);
    assert_eq!(stage.steps(), 0, "a step that may be repeated costs no write before it");

    let next = Stage::with(stage.messages());
    let script = Script::new([calls(["read"]), says("done")]);
    let read = tool("read", |_, _| async { Ok("hi".to_owned()) });
    agent(&script, vec![read]).turn(next.turn(), next.clone()).await;
    assert_eq!(next.history()[2], "tool: = hi");
}

#[tokio::test(start_paused = true)]
async fn open_calls_of_one_step_fare_each_as_its_tool_says() {
    let call = |id: &str, name: &str| Part::ToolCall {
        id: id.to_owned(),
        name: name.to_owned(),
        input: json!({}),
    };
    let left = vec![
        words(Role::User, "go"),
        said(
            Role::Assistant,
            vec![call("a", "pay"), call("b", "wait"), call("c", "gone"), call("d", "read")],
        ),
        said(
            Role::Tool,
            vec![Part::ToolResult { id: "d".to_owned(), output: "hi".to_owned(), is_error: false }],
        ),
    ];
    let stage = Stage::with(left);
    let script = Script::new([says("done")]);
    let wait = tool_with("wait", repeated(Repeat::Same), |_, _| async { Ok("waited".to_owned()) });
    let pay = tool_with("pay", repeated(Repeat::Never), |_, _| async { panic!("paid twice") });
    let read = tool("read", |_, _| async { panic!("it was answered") });
    agent(&script, vec![wait, pay, read]).turn(stage.turn(), stage.clone()).await;
    let history = stage.history();
    assert!(history[3].starts_with("tool: ! outcome unknown"), "{history:?}");
    assert_eq!(history[4], r#"tool: = waited | ! there is no tool "gone""#);
    assert_eq!(stage.open(), 0);
}

/// What must not be made twice is stored as soon as it is done, though others take their time.
#[tokio::test(start_paused = true)]
async fn result_of_a_tool_that_must_not_be_repeated_is_stored_at_once() {
    let script = Script::new([calls(["pay", "slow"]), says("done")]);
    let gate = Arc::new(Notify::new());
    let held = Arc::clone(&gate);
    let slow = tool("slow", move |_, _| {
        let held = Arc::clone(&held);
        async move {
            held.notified().await;
            Ok("late".to_owned())
        }
    });
    let pay = tool_with("pay", repeated(Repeat::Never), |_, _| async { Ok("paid".to_owned()) });
    let (agent, stage) = (agent(&script, vec![pay, slow]), Stage::asked("go"));
    let release = async {
        stage.sees("= paid").await;
        // The write follows the part.
        stage.stores(2).await;
        assert_eq!(stage.history()[1..], ["assistant: pay{} | slow{}", "tool: = paid"]);
        gate.notify_one();
    };
    let (_, ()) = tokio::join!(agent.turn(stage.turn(), stage.clone()), release);
    assert_eq!(stage.history()[3], "tool: = late");
}
