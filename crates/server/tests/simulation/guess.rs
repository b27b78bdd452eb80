//! Which event of the table a change must have been.

use musterbeat_core::call::INTERRUPTED;
use musterbeat_core::chat::table::Happening;
use musterbeat_core::chat::{Event, WhenBusy};
use musterbeat_core::id::{MessageId, QueuedId};
use musterbeat_core::message::{Content, NewMessage, Part, Role, Turn};
use musterbeat_core::run::RunStatus;

use crate::api::Act;
use crate::history::{Change, RunRow};
use crate::model::State;

/// A change, read as an event.
#[derive(Clone, Debug)]
pub(crate) struct Guess {
    pub(crate) happening: Happening,
    /// None for what moves runs of every kind.
    pub(crate) event: Option<Event>,
}

impl Guess {
    fn of(happening: Happening, event: Option<Event>) -> Self {
        Self { happening, event }
    }
}

/// Guesses what happened; `asked` says how a question was sent, and `deletes` whether somebody
/// asked to delete a queued turn.
pub(crate) fn guess(
    before: &State,
    change: &Change,
    asked: impl Fn(&str) -> Option<Act>,
    deletes: impl Fn(i64) -> bool,
) -> Option<Guess> {
    let run = change.run.as_ref()?;
    let archived = change.chat.as_ref().map_or(before.archived, |chat| chat.archived);
    match (before.archived, archived) {
        (false, true) => return Some(Guess::of(Happening::Archive, Some(Event::Archive))),
        (true, false) => return Some(Guess::of(Happening::Unarchive, Some(Event::Unarchive))),
        _ => {}
    }
    if before.step < run.step {
        return owners(before, change, run);
    }
    if before.fence < run.fence && change.deleted.is_empty() {
        let happening = match (before.status.is_owned(), run.status) {
            (false, RunStatus::Running | RunStatus::Interrupting) => Happening::Claim,
            (true, RunStatus::Pending) => Happening::Release,
            (true, RunStatus::Error) => Happening::Poison,
            _ => return None,
        };
        return Some(Guess::of(happening, None));
    }
    users(before, change, run, asked, deletes)
}

fn owners(before: &State, change: &Change, run: &RunRow) -> Option<Guess> {
    let answer: Vec<NewMessage> = change
        .added
        .iter()
        .filter(|row| row.role != Role::User && !is_interrupted(&row.content))
        .map(|row| NewMessage { role: row.role, ..NewMessage::answer(row.content.clone(), None) })
        .collect();
    let promoted = !change.unqueued.is_empty();
    let (happening, event) = match (before.status, run.status) {
        (RunStatus::Running, RunStatus::Running) if promoted => {
            (Happening::FinishTurn, Event::FinishTurn { answer, draining: false })
        }
        (RunStatus::Running, RunStatus::Running)
        | (RunStatus::Interrupting, RunStatus::Interrupting) => {
            (Happening::Step, Event::Step(answer))
        }
        (RunStatus::Running, RunStatus::Waiting) => {
            (Happening::FinishTurn, Event::FinishTurn { answer, draining: false })
        }
        (RunStatus::Running, RunStatus::Pending) => {
            (Happening::FinishTurnDraining, Event::FinishTurn { answer, draining: true })
        }
        (RunStatus::Running, RunStatus::Error) => {
            (Happening::FinishError, Event::FinishError { error: run.error.clone()? })
        }
        (RunStatus::Interrupting, RunStatus::Waiting | RunStatus::Pending) => {
            (Happening::FinishInterrupt, Event::FinishInterrupt { partial: answer })
        }
        _ => return None,
    };
    Some(Guess::of(happening, Some(event)))
}

/// Says whether a message is what the machine itself answers to open calls.
fn is_interrupted(content: &Content) -> bool {
    let of_machine =
        |part: &Part| matches!(part, Part::ToolResult { output, .. } if output == INTERRUPTED);
    content.parts().iter().all(of_machine)
}

fn users(
    before: &State,
    change: &Change,
    run: &RunRow,
    asked: impl Fn(&str) -> Option<Act>,
    deletes: impl Fn(i64) -> bool,
) -> Option<Guess> {
    let question = change.added.iter().rfind(|row| row.role == Role::User);
    let turn = |content: &Content| Turn { content: content.clone(), model: None, created_by: None };
    let send = |content: &Content| {
        let (happening, when_busy) = match asked(&content.to_text())? {
            Act::SendInterrupt => (Happening::SendInterrupt, WhenBusy::Interrupt),
            _ => (Happening::SendQueue, WhenBusy::Queue),
        };
        Some(Guess::of(happening, Some(Event::Send { turn: turn(content), when_busy })))
    };
    if let Some(first) = change.deleted.iter().map(|row| row.id).min() {
        let edit = Event::Edit { message: MessageId(first), turn: turn(&question?.content) };
        return Some(Guess::of(Happening::Edit, Some(edit)));
    }
    if let Some(row) = change.enqueued.first() {
        return send(&row.content);
    }
    if let Some(row) = change.moved.first() {
        let promote = Event::Promote(QueuedId(row.id));
        return Some(Guess::of(Happening::Promote, Some(promote)));
    }
    match (question, &change.unqueued[..], before.status) {
        (Some(_), [row], RunStatus::Error) => {
            Some(Guess::of(Happening::Promote, Some(Event::Promote(QueuedId(row.id)))))
        }
        (Some(_), [_], _) => Some(Guess::of(Happening::Interrupt, Some(Event::Interrupt))),
        (Some(row), [], _) => send(&row.content),
        (None, [row], _) if deletes(row.id) => {
            Some(Guess::of(Happening::DeleteQueued, Some(Event::DeleteQueued(QueuedId(row.id)))))
        }
        (None, [_, ..], _) => Some(Guess::of(Happening::ClearQueue, Some(Event::ClearQueue))),
        (None, [], _) if before.status != run.status => {
            Some(Guess::of(Happening::Interrupt, Some(Event::Interrupt)))
        }
        _ => None,
    }
}
