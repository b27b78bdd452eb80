//! Walks every pair of state and event.

use std::fmt::Write as _;

use expect_test::{Expect, expect};
use proptest::prelude::*;

use super::*;
use crate::message::Content;
use crate::run::ERROR_BYTES_MAX;

/// Says what each event does to a chat in each state, a line a state.
fn check(event: &Event, expected: &Expect) {
    let mut table = String::new();
    for facts in all_facts() {
        let (status, queued) = (facts.status, facts.queued);
        let archived = if facts.archived { " archived" } else { "" };
        let stop = if facts.stop { " stop" } else { "" };
        let _ = write!(table, "{status} {queued}{stop}{archived}: ");
        let _ = match decide(&facts, event.clone(), 2) {
            Ok(effects) => writeln!(table, "{}", describe(&effects)),
            Err(refused) => writeln!(table, "refused, {refused}"),
        };
    }
    expected.assert_eq(&table);
}

#[test]
fn send_starts_or_waits_in_the_queue() {
    check(
        &Event::Send(turn("hi")),
        &expect![[r#"
            waiting 0: pending, append
            waiting 0 archived: refused, the chat is archived; unarchive it first
            pending 0: pending, enqueue
            pending 2: refused, the chat's queue is full with 2 turns; wait for one to finish or remove one
            pending 0 stop: pending stop, enqueue
            running 0: running, enqueue
            running 2: refused, the chat's queue is full with 2 turns; wait for one to finish or remove one
            interrupting 0: interrupting, enqueue
            interrupting 2: refused, the chat's queue is full with 2 turns; wait for one to finish or remove one
            error 0: pending, append
            error 2: pending, enqueue, promote
            error 2 archived: refused, the chat is archived; unarchive it first
        "#]],
    );
}

#[test]
fn finished_turn_rests_or_takes_the_next() {
    check(
        &Event::FinishTurn { answer: vec![], draining: false },
        &expect![[r#"
            waiting 0: refused, a chat that is waiting cannot finish its turn
            waiting 0 archived: refused, the chat is archived; unarchive it first
            pending 0: refused, a chat that is pending cannot finish its turn
            pending 2: refused, a chat that is pending cannot finish its turn
            pending 0 stop: refused, a chat that is pending cannot finish its turn
            running 0: waiting, append
            running 2: running, append, promote
            interrupting 0: waiting, append
            interrupting 2: pending, append, promote
            error 0: refused, a chat that is error cannot finish its turn
            error 2: refused, a chat that is error cannot finish its turn
            error 2 archived: refused, the chat is archived; unarchive it first
        "#]],
    );
}

#[test]
fn error_keeps_the_queue_and_loses_to_an_interrupt() {
    check(
        &Event::FinishError { error: "no model".to_owned() },
        &expect![[r#"
            waiting 0: refused, a chat that is waiting cannot fail its turn
            waiting 0 archived: refused, the chat is archived; unarchive it first
            pending 0: refused, a chat that is pending cannot fail its turn
            pending 2: refused, a chat that is pending cannot fail its turn
            pending 0 stop: refused, a chat that is pending cannot fail its turn
            running 0: error "no model"
            running 2: error "no model"
            interrupting 0: waiting
            interrupting 2: pending, promote
            error 0: refused, a chat that is error cannot fail its turn
            error 2: refused, a chat that is error cannot fail its turn
            error 2 archived: refused, the chat is archived; unarchive it first
        "#]],
    );
}

#[test]
fn draining_worker_hands_the_next_turn_over() {
    let facts = Facts { status: RunStatus::Running, stop: false, archived: false, queued: 1 };
    let event = Event::FinishTurn { answer: vec![], draining: true };
    assert_eq!(decide(&facts, event, 2).unwrap().status, RunStatus::Pending);
}

#[test]
fn overlong_error_is_cut_on_a_character() {
    let facts = Facts { status: RunStatus::Running, stop: false, archived: false, queued: 0 };
    let event = Event::FinishError { error: "ü\0".repeat(ERROR_BYTES_MAX) };
    let error = decide(&facts, event, 2).unwrap().error.unwrap();
    assert!((ERROR_BYTES_MAX - 3..=ERROR_BYTES_MAX).contains(&error.len()), "{}", error.len());
    assert!(error.chars().all(|c| c == 'ü' || c == '\u{fffd}'));
}

#[test]
fn title_of_a_question_is_its_first_words() {
    assert_eq!(Title::of_question("  a b\nc d e f g").as_str(), "a b c d e f");
    assert_eq!(Title::of_question(&"x".repeat(100)).as_str().len(), 80);
}

proptest! {
    /// Whatever happens in whatever order, nothing waits in the queue of a chat that rests.
    #[test]
    fn no_event_leaves_a_queue_to_a_waiting_chat(choices in prop::collection::vec(0..7_u8, 0..80)) {
        let mut facts = Facts { status: RunStatus::Pending, stop: false, archived: false, queued: 0 };
        for choice in choices {
            let event = match choice {
                0 | 1 => Event::Send(turn("next")),
                2 => Event::FinishTurn { answer: vec![], draining: facts.queued == 2 },
                3 => Event::FinishError { error: "failed".to_owned() },
                other => {
                    facts = moved(facts, other);
                    continue;
                }
            };
            if let Ok(effects) = decide(&facts, event, 3) {
                facts = after(&facts, &effects);
                prop_assert_eq!(effects.error.is_some(), effects.status == RunStatus::Error);
            }
            prop_assert!(facts.status != RunStatus::Waiting || facts.queued == 0);
            prop_assert!(
                !facts.stop
                    || matches!(facts.status, RunStatus::Pending | RunStatus::Interrupting)
            );
            prop_assert!(facts.queued <= 3);
        }
    }
}

/// What workers and users do to a run beside events: claim, interrupt, release.
fn moved(facts: Facts, choice: u8) -> Facts {
    match (choice, facts.status) {
        (4, RunStatus::Pending) if facts.stop => Facts { status: RunStatus::Interrupting, ..facts },
        (4, RunStatus::Pending) => Facts { status: RunStatus::Running, ..facts },
        (5, RunStatus::Running) => Facts { status: RunStatus::Interrupting, ..facts },
        (6, RunStatus::Running) => Facts { status: RunStatus::Pending, ..facts },
        (6, RunStatus::Interrupting) => Facts { status: RunStatus::Pending, stop: true, ..facts },
        _ => facts,
    }
}

fn all_facts() -> Vec<Facts> {
    let at = |status, queued| Facts { status, stop: false, archived: false, queued };
    let archived = |facts: Facts| Facts { archived: true, ..facts };
    vec![
        at(RunStatus::Waiting, 0),
        archived(at(RunStatus::Waiting, 0)),
        at(RunStatus::Pending, 0),
        at(RunStatus::Pending, 2),
        Facts { stop: true, ..at(RunStatus::Pending, 0) },
        at(RunStatus::Running, 0),
        at(RunStatus::Running, 2),
        at(RunStatus::Interrupting, 0),
        at(RunStatus::Interrupting, 2),
        at(RunStatus::Error, 0),
        at(RunStatus::Error, 2),
        archived(at(RunStatus::Error, 2)),
    ]
}

fn after(facts: &Facts, effects: &Effects) -> Facts {
    let mut queued = facts.queued;
    for write in &effects.writes {
        match write {
            Write::Append(_) => {}
            Write::Enqueue(_) => queued += 1,
            Write::PromoteHead => queued -= 1,
        }
    }
    Facts { status: effects.status, stop: effects.stop, archived: facts.archived, queued }
}

fn describe(effects: &Effects) -> String {
    let mut text = effects.status.to_string();
    if effects.stop {
        text.push_str(" stop");
    }
    if let Some(error) = &effects.error {
        let _ = write!(text, " {error:?}");
    }
    for write in &effects.writes {
        text.push_str(match write {
            Write::Append(_) => ", append",
            Write::Enqueue(_) => ", enqueue",
            Write::PromoteHead => ", promote",
        });
    }
    text
}

fn turn(text: &str) -> Turn {
    Turn { content: Content::text(text).unwrap(), model: None, created_by: None }
}
