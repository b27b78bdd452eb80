//! Walks every pair of state and event, and everything that can follow from it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;

use expect_test::{Expect, expect};

use super::machine::Facts;
use super::table::{Happening, Outcome, State, after, moved, outcome};
use super::*;
use crate::call::{OpenCall, follow};
use crate::id::{MessageId, QueuedId};
use crate::message::{Content, NewMessage, Part, Role, Turn};
use crate::run::{ERROR_BYTES_MAX, RunStatus};

/// Says what each happening does in each state, a line a state.
fn check(happening: Happening, expected: &Expect) {
    let mut table = String::new();
    for state in State::ALL {
        let _ = writeln!(table, "{state} -> {}", outcome(state, happening));
    }
    expected.assert_eq(&table);
}

#[test]
fn send_starts_or_waits_in_the_queue() {
    check(
        Happening::SendQueue,
        &expect![[r#"
        waiting -> pending, append
        pending -> pending, enqueue
        pending, queued -> pending, enqueue
        pending to be stopped -> pending to be stopped, enqueue
        pending to be stopped, queued -> pending to be stopped, enqueue
        running -> running, enqueue
        running, queued -> running, enqueue
        interrupting -> interrupting, enqueue
        interrupting, queued -> interrupting, enqueue
        error -> pending, append
        error, queued -> pending, enqueue, promote the head
        waiting, archived -> refused: the chat is archived; unarchive it first
        error, archived -> refused: the chat is archived; unarchive it first
        error, queued, archived -> refused: the chat is archived; unarchive it first
    "#]],
    );
}

#[test]
fn send_that_interrupts_stops_only_what_runs() {
    check(
        Happening::SendInterrupt,
        &expect![[r#"
        waiting -> pending, append
        pending -> pending, enqueue
        pending, queued -> pending, enqueue
        pending to be stopped -> pending to be stopped, enqueue
        pending to be stopped, queued -> pending to be stopped, enqueue
        running -> interrupting, enqueue
        running, queued -> interrupting, enqueue
        interrupting -> interrupting, enqueue
        interrupting, queued -> interrupting, enqueue
        error -> pending, append
        error, queued -> pending, enqueue, promote the head
        waiting, archived -> refused: the chat is archived; unarchive it first
        error, archived -> refused: the chat is archived; unarchive it first
        error, queued, archived -> refused: the chat is archived; unarchive it first
    "#]],
    );
}

#[test]
fn edit_begins_anew_from_every_state() {
    check(
        Happening::Edit,
        &expect![[r#"
        waiting -> pending, delete from there, clear the queue, append, fence + 1
        pending -> pending, delete from there, clear the queue, append, fence + 1
        pending, queued -> pending, delete from there, clear the queue, append, fence + 1
        pending to be stopped -> pending, delete from there, clear the queue, append, fence + 1
        pending to be stopped, queued -> pending, delete from there, clear the queue, append, fence + 1
        running -> pending, delete from there, clear the queue, append, fence + 1
        running, queued -> pending, delete from there, clear the queue, append, fence + 1
        interrupting -> pending, delete from there, clear the queue, append, fence + 1
        interrupting, queued -> pending, delete from there, clear the queue, append, fence + 1
        error -> pending, delete from there, clear the queue, append, fence + 1
        error, queued -> pending, delete from there, clear the queue, append, fence + 1
        waiting, archived -> refused: the chat is archived; unarchive it first
        error, archived -> refused: the chat is archived; unarchive it first
        error, queued, archived -> refused: the chat is archived; unarchive it first
    "#]],
    );
}

#[test]
fn interrupt_is_taken_everywhere() {
    check(
        Happening::Interrupt,
        &expect![[r#"
        waiting -> nothing
        pending -> waiting
        pending, queued -> pending, promote the head
        pending to be stopped -> nothing
        pending to be stopped, queued -> nothing
        running -> interrupting
        running, queued -> interrupting
        interrupting -> nothing
        interrupting, queued -> nothing
        error -> nothing
        error, queued -> nothing
        waiting, archived -> refused: the chat is archived; unarchive it first
        error, archived -> refused: the chat is archived; unarchive it first
        error, queued, archived -> refused: the chat is archived; unarchive it first
    "#]],
    );
}

#[test]
fn owner_steps_only_while_it_owns() {
    check(
        Happening::Step,
        &expect![[r#"
        waiting -> refused: a chat that is waiting cannot take a step
        pending -> refused: a chat that is pending cannot take a step
        pending, queued -> refused: a chat that is pending cannot take a step
        pending to be stopped -> refused: a chat that is pending cannot take a step
        pending to be stopped, queued -> refused: a chat that is pending cannot take a step
        running -> running, append
        running, queued -> running, append
        interrupting -> interrupting, append
        interrupting, queued -> interrupting, append
        error -> refused: a chat that is error cannot take a step
        error, queued -> refused: a chat that is error cannot take a step
        waiting, archived -> refused: the chat is archived; unarchive it first
        error, archived -> refused: the chat is archived; unarchive it first
        error, queued, archived -> refused: the chat is archived; unarchive it first
    "#]],
    );
}

#[test]
fn finished_turn_rests_or_takes_the_next() {
    check(
        Happening::FinishTurn,
        &expect![[r#"
        waiting -> refused: a chat that is waiting cannot finish its turn
        pending -> refused: a chat that is pending cannot finish its turn
        pending, queued -> refused: a chat that is pending cannot finish its turn
        pending to be stopped -> refused: a chat that is pending cannot finish its turn
        pending to be stopped, queued -> refused: a chat that is pending cannot finish its turn
        running -> waiting, append
        running, queued -> running, append, promote the head
        interrupting -> waiting, append
        interrupting, queued -> pending, append, promote the head
        error -> refused: a chat that is error cannot finish its turn
        error, queued -> refused: a chat that is error cannot finish its turn
        waiting, archived -> refused: the chat is archived; unarchive it first
        error, archived -> refused: the chat is archived; unarchive it first
        error, queued, archived -> refused: the chat is archived; unarchive it first
    "#]],
    );
}

#[test]
fn draining_worker_hands_the_next_turn_over() {
    check(
        Happening::FinishTurnDraining,
        &expect![[r#"
        waiting -> refused: a chat that is waiting cannot finish its turn
        pending -> refused: a chat that is pending cannot finish its turn
        pending, queued -> refused: a chat that is pending cannot finish its turn
        pending to be stopped -> refused: a chat that is pending cannot finish its turn
        pending to be stopped, queued -> refused: a chat that is pending cannot finish its turn
        running -> waiting, append
        running, queued -> pending, append, promote the head
        interrupting -> waiting, append
        interrupting, queued -> pending, append, promote the head
        error -> refused: a chat that is error cannot finish its turn
        error, queued -> refused: a chat that is error cannot finish its turn
        waiting, archived -> refused: the chat is archived; unarchive it first
        error, archived -> refused: the chat is archived; unarchive it first
        error, queued, archived -> refused: the chat is archived; unarchive it first
    "#]],
    );
}

#[test]
fn interrupt_is_finished_only_where_there_is_one() {
    check(
        Happening::FinishInterrupt,
        &expect![[r#"
        waiting -> refused: a chat that is waiting cannot finish an interrupt
        pending -> refused: a chat that is pending cannot finish an interrupt
        pending, queued -> refused: a chat that is pending cannot finish an interrupt
        pending to be stopped -> refused: a chat that is pending cannot finish an interrupt
        pending to be stopped, queued -> refused: a chat that is pending cannot finish an interrupt
        running -> refused: a chat that is running cannot finish an interrupt
        running, queued -> refused: a chat that is running cannot finish an interrupt
        interrupting -> waiting, append
        interrupting, queued -> pending, append, promote the head
        error -> refused: a chat that is error cannot finish an interrupt
        error, queued -> refused: a chat that is error cannot finish an interrupt
        waiting, archived -> refused: the chat is archived; unarchive it first
        error, archived -> refused: the chat is archived; unarchive it first
        error, queued, archived -> refused: the chat is archived; unarchive it first
    "#]],
    );
}

#[test]
fn error_keeps_the_queue_and_loses_to_an_interrupt() {
    check(
        Happening::FinishError,
        &expect![[r#"
        waiting -> refused: a chat that is waiting cannot fail its turn
        pending -> refused: a chat that is pending cannot fail its turn
        pending, queued -> refused: a chat that is pending cannot fail its turn
        pending to be stopped -> refused: a chat that is pending cannot fail its turn
        pending to be stopped, queued -> refused: a chat that is pending cannot fail its turn
        running -> error
        running, queued -> error
        interrupting -> waiting
        interrupting, queued -> pending, promote the head
        error -> refused: a chat that is error cannot fail its turn
        error, queued -> refused: a chat that is error cannot fail its turn
        waiting, archived -> refused: the chat is archived; unarchive it first
        error, archived -> refused: the chat is archived; unarchive it first
        error, queued, archived -> refused: the chat is archived; unarchive it first
    "#]],
    );
}

#[test]
fn promoted_turn_is_next() {
    check(
        Happening::Promote,
        &expect![[r#"
        waiting -> refused: the chat's queue has no such turn; it may have begun
        pending -> refused: the chat's queue has no such turn; it may have begun
        pending, queued -> pending, move it to the head
        pending to be stopped -> refused: the chat's queue has no such turn; it may have begun
        pending to be stopped, queued -> pending to be stopped, move it to the head
        running -> refused: the chat's queue has no such turn; it may have begun
        running, queued -> interrupting, move it to the head
        interrupting -> refused: the chat's queue has no such turn; it may have begun
        interrupting, queued -> interrupting, move it to the head
        error -> refused: the chat's queue has no such turn; it may have begun
        error, queued -> pending, promote it
        waiting, archived -> refused: the chat is archived; unarchive it first
        error, archived -> refused: the chat is archived; unarchive it first
        error, queued, archived -> refused: the chat is archived; unarchive it first
    "#]],
    );
}

#[test]
fn queued_turns_are_taken_back_wherever_they_wait() {
    check(
        Happening::DeleteQueued,
        &expect![[r#"
        waiting -> refused: the chat's queue has no such turn; it may have begun
        pending -> refused: the chat's queue has no such turn; it may have begun
        pending, queued -> pending, remove it
        pending to be stopped -> refused: the chat's queue has no such turn; it may have begun
        pending to be stopped, queued -> pending to be stopped, remove it
        running -> refused: the chat's queue has no such turn; it may have begun
        running, queued -> running, remove it
        interrupting -> refused: the chat's queue has no such turn; it may have begun
        interrupting, queued -> interrupting, remove it
        error -> refused: the chat's queue has no such turn; it may have begun
        error, queued -> error, remove it
        waiting, archived -> refused: the chat is archived; unarchive it first
        error, archived -> refused: the chat is archived; unarchive it first
        error, queued, archived -> refused: the chat is archived; unarchive it first
    "#]],
    );
    check(
        Happening::ClearQueue,
        &expect![[r#"
        waiting -> nothing
        pending -> nothing
        pending, queued -> pending, clear the queue
        pending to be stopped -> nothing
        pending to be stopped, queued -> pending to be stopped, clear the queue
        running -> nothing
        running, queued -> running, clear the queue
        interrupting -> nothing
        interrupting, queued -> interrupting, clear the queue
        error -> nothing
        error, queued -> error, clear the queue
        waiting, archived -> refused: the chat is archived; unarchive it first
        error, archived -> refused: the chat is archived; unarchive it first
        error, queued, archived -> refused: the chat is archived; unarchive it first
    "#]],
    );
}

#[test]
fn archiving_is_a_hard_stop() {
    check(
        Happening::Archive,
        &expect![[r#"
        waiting -> waiting, archived
        pending -> waiting, archived, fence + 1
        pending, queued -> error, archived, fence + 1
        pending to be stopped -> waiting, archived, fence + 1
        pending to be stopped, queued -> error, archived, fence + 1
        running -> waiting, archived, fence + 1
        running, queued -> error, archived, fence + 1
        interrupting -> waiting, archived, fence + 1
        interrupting, queued -> error, archived, fence + 1
        error -> error, archived
        error, queued -> error, archived
        waiting, archived -> nothing
        error, archived -> nothing
        error, queued, archived -> nothing
    "#]],
    );
}

#[test]
fn unarchiving_starts_nothing() {
    check(
        Happening::Unarchive,
        &expect![[r#"
        waiting -> nothing
        pending -> nothing
        pending, queued -> nothing
        pending to be stopped -> nothing
        pending to be stopped, queued -> nothing
        running -> nothing
        running, queued -> nothing
        interrupting -> nothing
        interrupting, queued -> nothing
        error -> nothing
        error, queued -> nothing
        waiting, archived -> waiting
        error, archived -> error
        error, queued, archived -> error
    "#]],
    );
}

#[test]
fn runs_of_every_kind_are_claimed_given_back_and_taken_back() {
    check(
        Happening::Claim,
        &expect![[r#"
        waiting -> -
        pending -> running, fence + 1
        pending, queued -> running, fence + 1
        pending to be stopped -> interrupting to be stopped, fence + 1
        pending to be stopped, queued -> interrupting to be stopped, fence + 1
        running -> -
        running, queued -> -
        interrupting -> -
        interrupting, queued -> -
        error -> -
        error, queued -> -
        waiting, archived -> -
        error, archived -> -
        error, queued, archived -> -
    "#]],
    );
    check(
        Happening::Release,
        &expect![[r#"
        waiting -> -
        pending -> -
        pending, queued -> -
        pending to be stopped -> -
        pending to be stopped, queued -> -
        running -> pending, fence + 1
        running, queued -> pending, fence + 1
        interrupting -> pending to be stopped, fence + 1
        interrupting, queued -> pending to be stopped, fence + 1
        error -> -
        error, queued -> -
        waiting, archived -> -
        error, archived -> -
        error, queued, archived -> -
    "#]],
    );
    check(
        Happening::Poison,
        &expect![[r#"
        waiting -> -
        pending -> -
        pending, queued -> -
        pending to be stopped -> -
        pending to be stopped, queued -> -
        running -> error, fence + 1
        running, queued -> error, fence + 1
        interrupting -> error, fence + 1
        interrupting, queued -> error, fence + 1
        error -> -
        error, queued -> -
        waiting, archived -> -
        error, archived -> -
        error, queued, archived -> -
    "#]],
    );
}

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
    assert_eq!(Title::of_question("  a b\nc d e f g").as_str(), "a b c d e f");
    assert_eq!(Title::of_question(&"x".repeat(100)).as_str().len(), 80);
}

/// Everything in every order, with calls of tools left open at any point, from a new chat on.
///
/// A requeue may come at any moment, and a user's event may come twice, as when an answer was lost.
#[test]
fn no_order_of_events_breaks_a_rule_or_ends_in_a_place_without_a_way_out() {
    const QUEUE: u32 = 2;
    let new = state(RunStatus::Pending).facts(0);
    let (mut seen, mut next) = (BTreeMap::new(), VecDeque::from([new.clone()]));
    seen.insert(key(&new), BTreeSet::new());
    let mut pairs = BTreeSet::new();
    while let Some(facts) = next.pop_front() {
        for happening in Happening::ALL {
            for answer in answers(&facts) {
                let Some(effects) = happens(&facts, happening, answer, QUEUE) else { continue };
                hold(&facts, &effects);
                pairs.insert((State::shown(&facts), happening));
                let after = after(&facts, &effects);
                seen.get_mut(&key(&facts)).unwrap().insert(key(&after));
                if !seen.contains_key(&key(&after)) {
                    seen.insert(key(&after), BTreeSet::new());
                    next.push_back(after);
                }
            }
        }
    }
    let states: BTreeSet<State> = seen.keys().map(|(state, ..)| *state).collect();
    assert_eq!(states, State::ALL.into_iter().collect(), "every state is reached, and no other");
    for state in State::ALL {
        for happening in Happening::ALL {
            let changes = matches!(outcome(state, happening), Outcome::Changed(_));
            assert!(!changes || pairs.contains(&(state, happening)), "{state}: {happening:?}");
        }
    }
    let (mut home, mut added) = (BTreeSet::from([key(&state(RunStatus::Waiting).facts(0))]), true);
    while added {
        let ways = seen.iter().filter(|(_, to)| to.iter().any(|to| home.contains(to)));
        let ways: Vec<_> = ways.map(|(from, _)| from.clone()).collect();
        added = ways.into_iter().fold(false, |added, from| home.insert(from) || added);
    }
    assert_eq!(home.len(), seen.len(), "from everywhere a chat may come to rest");
}

type Key = (State, u32, usize);

fn key(facts: &Facts) -> Key {
    (State::shown(facts), facts.queued, facts.open.len())
}

/// What an owner may write: words, a call, or the answer to what is open.
fn answers(facts: &Facts) -> Vec<Vec<NewMessage>> {
    let call =
        Part::ToolCall { id: "a".into(), name: "read".into(), input: serde_json::Value::Null };
    let call = NewMessage::answer(Content::stored(vec![call]), None);
    let mut answers = vec![vec![], vec![NewMessage::answer(text("words"), None)], vec![call]];
    if !facts.open.is_empty() {
        answers.push(vec![crate::call::answers(facts.open.clone(), "done")]);
    }
    answers
}

fn happens(
    facts: &Facts,
    happening: Happening,
    answer: Vec<NewMessage>,
    queue: u32,
) -> Option<Effects> {
    let facts = naming(facts.clone(), happening);
    match event(happening, answer) {
        Some(event) => decide(&facts, event, queue).ok().flatten(),
        None => moved(&facts, happening),
    }
}

/// What must hold after every change.
fn hold(before: &Facts, effects: &Effects) {
    let mut open = before.open.clone();
    for write in &effects.writes {
        match write {
            Write::Append(messages) => {
                for message in messages {
                    assert!(message.role != Role::User || open.is_empty(), "{before:?} {effects}");
                    follow(&mut open, message).unwrap();
                }
            }
            Write::PromoteHead | Write::Promote(_) => assert!(open.is_empty(), "{before:?}"),
            Write::Truncate(_) => open.clear(),
            _ => {}
        }
    }
    let after = after(before, effects);
    let rests = matches!(after.status, RunStatus::Waiting | RunStatus::Error);
    assert!(after.status != RunStatus::Waiting || after.queued == 0, "{before:?} {effects}");
    assert!(!after.archived || rests, "{before:?} {effects}");
    // A reap writes no history: what it leaves open the next user's message closes.
    let decided = before.status != RunStatus::Error && effects.error.as_deref() == Some("failed");
    assert!(after.status != RunStatus::Waiting || open.is_empty(), "{before:?} {effects}");
    assert!(!decided || open.is_empty(), "{before:?} {effects}");
    let failed = after.status == RunStatus::Error;
    assert!(effects.error.is_none() || failed, "{before:?} {effects}");
    assert!(!failed || effects.error.is_some() || before.status == RunStatus::Error);
    assert!(
        !after.stop || matches!(after.status, RunStatus::Pending | RunStatus::Interrupting),
        "{before:?} {effects}"
    );
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

fn open(id: &str) -> OpenCall {
    OpenCall { id: id.into(), name: "read".into() }
}

fn turn() -> Turn {
    Turn { content: text("question"), model: None, created_by: None }
}

fn text(text: &str) -> Content {
    Content::text(text).unwrap()
}
