//! Summaries; upstream: `Run_Compaction`.

use std::sync::Arc;

use musterbeat_agent::agent::{Agent, AgentOptions};
use musterbeat_agent::error::ErrorKind;
use musterbeat_agent::model::Chosen;
use musterbeat_agent::tool::Tool;
use musterbeat_core::message::{Command, Content, NewMessage, Role, Visibility};
use musterbeat_core::model_config::ModelConfig;
use musterbeat_core::port::{ChatRunner, TurnEnd};
use serde_json::json;

use crate::script::{Line, Script, agent, call, chosen, end_of, says, text, tool};
use crate::stage::{Stage, words};

const SUMMARY: &str = "user: Summary of the conversation so far:\n\nthey said much";
const OPEN: &str =
    "\n\nThe user's last request, word for word, which is being worked on:\n\nread it all";

fn step_of(tokens: i64) -> Vec<Line> {
    vec![call("read", json!({})), end_of(tokens)]
}

fn read() -> Vec<Arc<dyn Tool>> {
    vec![tool("read", |_, _| async { Ok("much".to_owned()) })]
}

/// Upstream: `PersistsWhenThresholdReached`, `PublishesPartsBeforeAndAfterPersist`,
/// `MidLoopCompactionReloadsMessages`.
#[tokio::test(start_paused = true)]
async fn step_that_reaches_the_threshold_is_summarised_and_the_loop_goes_on_from_it() {
    let script = Script::new([step_of(80), says("they said much"), says("done")]);
    let stage = Stage::with(vec![words(Role::System, "terms"), words(Role::User, "read it all")]);
    let end = agent(&script, read()).turn(stage.turn(), stage.clone()).await;
    assert!(matches!(end, TurnEnd::Answer(_)), "{end:?}");

    let asked = script.asked();
    assert_eq!(asked.len(), 3);
    assert!(asked[1].last().unwrap().starts_with("user: Summarise this conversation"));
    assert_eq!(asked[2], ["system: terms".to_owned(), format!("{SUMMARY}{OPEN}")]);
    let may_call: Vec<bool> = script.requests().iter().map(|request| request.may_call).collect();
    assert_eq!(may_call, [true, false, true]);

    let rows: Vec<NewMessage> = stage.messages().split_off(4);
    let kinds: Vec<_> = rows.iter().map(|row| (row.role, row.visibility, row.compressed)).collect();
    assert_eq!(
        kinds,
        [
            (Role::User, Visibility::Model, true),
            (Role::Assistant, Visibility::User, true),
            (Role::Tool, Visibility::Both, true),
        ]
    );
    let told = "chat_summarized{\"context_limit\":100,\"context_tokens\":80,\"occasion\":\"grown\",\
        \"percent\":80.0,\"threshold_percent\":70}";
    let seen = stage.seen();
    let at =
        seen.iter().position(|part| sorted(part) == told).unwrap_or_else(|| panic!("{seen:?}"));
    assert_eq!(seen[at + 1], "= they said much", "the summary's words are not said aloud");

    // What the next turn is given is what the loop went on from.
    stage.ended(&end);
    stage.ended(&TurnEnd::Answer(vec![words(Role::User, "and?")]));
    let next = Script::new([says("yes?")]);
    agent(&next, read()).turn(stage.turn(), stage.clone()).await;
    let summary = format!("{SUMMARY}{OPEN}");
    assert_eq!(next.asked()[0], ["system: terms", &summary, "assistant: done", "user: and?"]);
}

/// Returns a call with its keys in order, whichever order the build gives them.
fn sorted(part: &str) -> String {
    let Some((name, input)) = part.split_once('{') else { return part.to_owned() };
    let input: std::collections::BTreeMap<String, serde_json::Value> =
        serde_json::from_str(&format!("{{{input}")).unwrap_or_default();
    format!("{name}{}", serde_json::to_string(&input).unwrap())
}

/// Upstream: `PublishNotCalledBelowThreshold`.
#[tokio::test(start_paused = true)]
async fn step_below_the_threshold_is_not_summarised() {
    let script = Script::new([step_of(69), vec![text("done"), end_of(69)]]);
    let stage = Stage::asked("read it all");
    let end = agent(&script, read()).turn(stage.turn(), stage.clone()).await;
    assert!(matches!(end, TurnEnd::Answer(answer) if answer.len() == 1));
    assert_eq!(script.asked().len(), 2);
}

/// Upstream asks the model once more after it; here the answer is the end, see decision 0026.
#[tokio::test(start_paused = true)]
async fn last_answer_is_stored_before_its_history_is_summarised() {
    let script = Script::new([vec![text("done"), end_of(90)], says("they said much")]);
    let stage = Stage::asked("read it all");
    let end = agent(&script, vec![]).turn(stage.turn(), stage.clone()).await;
    stage.ended(&end);
    let history = stage.history();
    assert_eq!(history[1], "assistant: done");
    assert_eq!(history[2], SUMMARY, "the question has its answer");
    assert_eq!(stage.steps(), 1, "the summary is written with the end of the turn");
    assert_eq!(script.asked().len(), 2);
    assert!(matches!(end, TurnEnd::Answer(rows) if rows.len() == 3));
}

/// Its owner died while it summarised: the question has its answer, and is not asked again.
#[tokio::test(start_paused = true)]
async fn answer_that_was_stored_is_not_asked_for_again() {
    let stage = Stage::with(vec![words(Role::User, "hello"), words(Role::Assistant, "hi")]);
    let script = Script::new([]);
    let end = agent(&script, vec![]).turn(stage.turn(), stage.clone()).await;
    assert_eq!(end, TurnEnd::Answer(vec![]));
}

/// Upstream: `ErrorsAreReported`.
#[tokio::test(start_paused = true)]
async fn summary_that_fails_is_reported_and_the_turn_goes_on() {
    let failing = vec![Line::Fail(ErrorKind::Auth)];
    let script = Script::new([step_of(80), failing, says("done")]);
    let stage = Stage::asked("read it all");
    let end = agent(&script, read()).turn(stage.turn(), stage.clone()).await;
    assert!(matches!(end, TurnEnd::Answer(_)), "{end:?}");
    assert_eq!(stage.history().len(), 3, "nothing of it is stored");
    let failed = "! the history was not summarised: script: it failed".to_owned();
    assert!(stage.seen().contains(&failed), "{:?}", stage.seen());
}

#[tokio::test(start_paused = true)]
async fn summary_that_takes_too_long_is_given_up() {
    let script = Script::new([step_of(80), vec![text("they"), Line::Silence], says("done")]);
    let stage = Stage::asked("read it all");
    let end = agent(&script, read()).turn(stage.turn(), stage.clone()).await;
    assert!(matches!(end, TurnEnd::Answer(_)), "{end:?}");
    let failed = "! the history was not summarised: the summary took longer than 300s".to_owned();
    assert!(stage.seen().contains(&failed), "{:?}", stage.seen());
}

#[tokio::test(start_paused = true)]
async fn history_that_the_model_refuses_for_its_length_is_summarised_once() {
    let too_long = || vec![Line::Fail(ErrorKind::ContextLength)];
    let script = Script::new([too_long(), too_long(), says("they said much"), says("done")]);
    let history = (0..8).flat_map(|n| {
        [words(Role::User, &format!("q{n}")), words(Role::Assistant, &format!("a{n}"))]
    });
    let stage = Stage::with(history.chain([words(Role::User, "read it all")]).collect());
    let end = agent(&script, vec![]).turn(stage.turn(), stage.clone()).await;
    assert!(matches!(end, TurnEnd::Answer(_)), "{end:?}");
    let asked = script.asked();
    assert_eq!(asked[1].len(), 18);
    assert_eq!(asked[2].len(), 9, "its later half, and the wish");
    assert_eq!(asked[3], [format!("{SUMMARY}{OPEN}")]);

    let script = Script::new([too_long(), says("they said much"), too_long()]);
    let stage = Stage::asked("read it all");
    let end = agent(&script, vec![]).turn(stage.turn(), stage.clone()).await;
    assert_eq!(end, TurnEnd::Failed("script: it failed".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn user_may_have_the_history_summarised() {
    let wish = NewMessage {
        role: Role::User,
        ..NewMessage::answer(Content::command(Command::Compact), None)
    };
    let talk = vec![words(Role::User, "hello"), words(Role::Assistant, "hi"), wish.clone()];
    let script = Script::new([says("they said much")]);
    let stage = Stage::with(talk.clone());
    let end = agent(&script, vec![]).turn(stage.turn(), stage.clone()).await;
    stage.ended(&end);
    assert_eq!(stage.history()[3], SUMMARY);

    let script = Script::new([vec![Line::Fail(ErrorKind::Auth)]]);
    let stage = Stage::with(talk);
    let end = agent(&script, vec![]).turn(stage.turn(), stage.clone()).await;
    stage.ended(&end);
    let told = "tool: ! the history was not summarised: script: it failed";
    assert_eq!(stage.history()[4], told, "who wished for it is told");

    let script = Script::new([]);
    let stage = Stage::with(vec![wish]);
    let end = agent(&script, vec![]).turn(stage.turn(), stage.clone()).await;
    assert_eq!(end, TurnEnd::Answer(vec![]), "there is nothing to summarise");
}

#[tokio::test(start_paused = true)]
async fn history_without_a_limit_or_a_threshold_is_never_summarised() {
    for (context_limit, compact_at) in [(None, None), (Some(100), Some(100))] {
        let script = Script::new([vec![text("done"), end_of(100)]]);
        let stage = Stage::asked("hello");
        let chosen = chosen(&script);
        let config = ModelConfig { context_limit, compact_at, ..(*chosen.config).clone() };
        let chosen = Chosen { config: Arc::new(config), ..chosen };
        let agent = Agent::new(Arc::new(chosen), vec![], AgentOptions::default());
        agent.turn(stage.turn(), stage.clone()).await;
        assert_eq!(script.asked().len(), 1);
    }
}
