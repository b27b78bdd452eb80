//! Walks every pair of state and event, and everything that can follow from it.

mod matrix;
mod search;

use std::fmt::Write as _;

use expect_test::expect;

use super::machine::Facts;
use super::table::{Happening, Outcome, State, after, moved, outcome};
use super::*;
use crate::call::{OpenCall, follow};
use crate::id::{MessageId, QueuedId};
use crate::message::{Content, NewMessage, Part, Role, Turn};
use crate::run::{ERROR_BYTES_MAX, RunStatus};

#[test]
fn full_queue_refuses_a_turn_as_a_whole() {
    let full = Refused::QueueFull { queue_max: 2 };
    for state in State::ALL.into_iter().filter(|state| state.queued && !state.archived) {
        for when_busy in [WhenBusy::Queue, WhenBusy::Interrupt] {
            let decided = decide(&state.facts(2), Event::Send { turn: turn(), when_busy }, 2);
            if state.status == RunStatus::Error {
                assert!(decided.is_ok(), "the head makes room");
            } else {
                assert_eq!(decided, Err(full), "{state}");
            }
        }
    }
}

#[test]
fn what_an_event_names_must_be_there() {
    let check = |state: State, named, event: Event, expected: Refused| {
        let facts = Facts { named, ..state.facts(1) };
        assert_eq!(decide(&facts, event, QUEUE_MAX), Err(expected), "{state}");
    };
    for state in State::ALL.into_iter().filter(|state| !state.archived) {
        let edit = Event::Edit { message: MessageId(7), turn: turn() };
        check(state, None, edit.clone(), Refused::NoSuchMessage);
        for role in [Role::System, Role::Assistant, Role::Tool] {
            check(state, Some(Named::Message(role)), edit.clone(), Refused::NotAUserMessage);
        }
        check(state, None, Event::Promote(QueuedId(7)), Refused::NoSuchQueued);
        check(state, None, Event::DeleteQueued(QueuedId(7)), Refused::NoSuchQueued);
    }
}

#[test]
fn child_is_archived_with_its_root_only() {
    for event in [Event::Archive, Event::Unarchive] {
        for state in State::ALL {
            let facts = Facts { is_child: true, ..state.facts(1) };
            assert_eq!(decide(&facts, event.clone(), QUEUE_MAX), Err(Refused::IsChild));
            assert!(decide_member(&facts, event.clone(), QUEUE_MAX).is_ok());
        }
    }
}

#[test]
fn open_calls_are_answered_before_a_users_message_and_before_rest() {
    let mut table = String::new();
    for state in State::ALL {
        for happening in Happening::ALL {
            let facts = Facts { open: vec![open("a"), open("b")], ..state.facts(1) };
            let facts = naming(facts, happening);
            let Some(event) = event(happening, vec![]) else { continue };
            let Ok(Some(effects)) = decide(&facts, event, QUEUE_MAX) else { continue };
            let answered = effects
                .writes
                .iter()
                .any(|write| matches!(write, Write::Append(said) if said[0].role == Role::Tool));
            if answered {
                let _ = writeln!(table, "{state} {} -> {effects}", happening.name());
            }
        }
    }
    expect![[r#"
        waiting Send(queue) -> pending, append
        waiting Send(interrupt) -> pending, append
        waiting Archive -> waiting, archived, append
        pending Interrupt -> waiting, append
        pending Archive -> waiting, archived, append, fence + 1
        pending, queued Interrupt -> pending, append, promote the head
        pending, queued Archive -> error, archived, append, fence + 1
        pending to be stopped Archive -> waiting, archived, append, fence + 1
        pending to be stopped, queued Archive -> error, archived, append, fence + 1
        running FinishTurn -> waiting, append
        running FinishTurn(draining) -> waiting, append
        running FinishError -> error, append
        running Archive -> waiting, archived, append, fence + 1
        running, queued FinishTurn -> running, append, promote the head
        running, queued FinishTurn(draining) -> pending, append, promote the head
        running, queued FinishError -> error, append
        running, queued Archive -> error, archived, append, fence + 1
        interrupting FinishTurn -> waiting, append
        interrupting FinishTurn(draining) -> waiting, append
        interrupting FinishInterrupt -> waiting, append
        interrupting FinishError -> waiting, append
        interrupting Archive -> waiting, archived, append, fence + 1
        interrupting, queued FinishTurn -> pending, append, promote the head
        interrupting, queued FinishTurn(draining) -> pending, append, promote the head
        interrupting, queued FinishInterrupt -> pending, append, promote the head
        interrupting, queued FinishError -> pending, append, promote the head
        interrupting, queued Archive -> error, archived, append, fence + 1
        error Send(queue) -> pending, append
        error Send(interrupt) -> pending, append
        error Archive -> error, archived, append
        error, queued Send(queue) -> pending, enqueue, append, promote the head
        error, queued Send(interrupt) -> pending, enqueue, append, promote the head
        error, queued Promote -> pending, append, promote it
        error, queued DeleteQueued -> error, remove it, append
        error, queued ClearQueue -> error, clear the queue, append
        error, queued Archive -> error, archived, append
        waiting, archived Unarchive -> waiting, append
        error, archived Unarchive -> error, append
        error, queued, archived Unarchive -> error, append
    "#]]
    .assert_eq(&table);
}

#[test]
fn owner_may_not_leave_a_call_behind() {
    let running = Facts { open: vec![open("a")], ..state(RunStatus::Running).facts(0) };
    let step = Event::Step(vec![NewMessage::answer(text("too early"), None)]);
    assert_eq!(decide(&running, step, QUEUE_MAX), Err(Refused::CallOpen));
    let wrong = Event::Step(vec![crate::call::answers([open("z")], "done")]);
    assert_eq!(decide(&running, wrong, QUEUE_MAX), Err(Refused::NoSuchCall));
}

/// As a step is cut short in the midst of its tools.
#[test]
fn interrupted_turn_keeps_its_calls_and_the_results_that_were_there() {
    let calls = said(Role::Assistant, ["a", "b", "c"].map(called).to_vec());
    let result = Part::ToolResult { id: "b".into(), output: "found".into(), is_error: false };
    let results = said(Role::Tool, vec![result]);
    let partial = vec![calls.clone(), results.clone()];
    let interrupted = crate::call::answers(["a", "c"].map(open), "interrupted");
    let kept = Write::Append(vec![calls.clone(), results.clone(), interrupted.clone()]);
    for queued in [false, true] {
        let state = State { queued, ..state(RunStatus::Interrupting) };
        let event = Event::FinishInterrupt { partial: partial.clone() };
        let effects = decide(&state.facts(1), event, QUEUE_MAX).unwrap().unwrap();
        let mut expected = vec![kept.clone()];
        expected.extend(queued.then_some(Write::PromoteHead));
        assert_eq!(effects.writes, expected);
    }
    // Calls that an earlier step left open come first, so that each answer follows its call.
    let facts = Facts { open: vec![open("z")], ..state(RunStatus::Interrupting).facts(0) };
    let event = Event::FinishInterrupt { partial };
    let effects = decide(&facts, event, QUEUE_MAX).unwrap().unwrap();
    let earlier = crate::call::answers([open("z")], "interrupted");
    assert_eq!(effects.writes, [Write::Append(vec![earlier, calls, results, interrupted])]);
}

#[test]
fn overlong_error_is_cut_on_a_character() {
    let event = Event::FinishError { error: "ü\0".repeat(ERROR_BYTES_MAX) };
    let decided = decide(&state(RunStatus::Running).facts(0), event, 2).unwrap().unwrap();
    let error = decided.error.unwrap();
    assert!((ERROR_BYTES_MAX - 3..=ERROR_BYTES_MAX).contains(&error.len()), "{}", error.len());
    assert!(error.chars().all(|c| c == 'ü' || c == '\u{fffd}'));
}

#[test]
fn title_of_a_question_is_its_first_words() {
    assert_eq!(Title::of_question(" \n ").as_str(), "New chat");
    assert_eq!(Title::of_question("a b").as_str(), "a b");
    assert_eq!(Title::of_question("  a b\nc d e f g").as_str(), "a b c d e f");
    assert_eq!(Title::of_question(&"x".repeat(100)).as_str().len(), 80);
}

fn naming(facts: Facts, happening: Happening) -> Facts {
    let named = match happening {
        Happening::Edit => Some(Named::Message(Role::User)),
        Happening::Promote | Happening::DeleteQueued if facts.queued > 0 => Some(Named::Queued),
        _ => None,
    };
    Facts { named, ..facts }
}

fn event(happening: Happening, answer: Vec<NewMessage>) -> Option<Event> {
    happening.event(turn(), MessageId(1), QueuedId(1), answer)
}

fn state(status: RunStatus) -> State {
    State { status, stop: false, queued: false, archived: false }
}

fn said(role: Role, parts: Vec<Part>) -> NewMessage {
    NewMessage { role, ..NewMessage::answer(Content::stored(parts), None) }
}

fn called(id: &str) -> Part {
    Part::ToolCall { id: id.into(), name: "read".into(), input: serde_json::Value::Null }
}

fn open(id: &str) -> OpenCall {
    OpenCall { id: id.into(), name: "read".into() }
}

fn turn() -> Turn {
    Turn { content: text("question"), model: None, created_by: None }
}

fn text(text: &str) -> Content {
    Content::text(text).unwrap()
}
