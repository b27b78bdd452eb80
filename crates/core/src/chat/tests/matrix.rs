//! Every pair of state and event, an event at a time.

use expect_test::Expect;

use super::*;

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
