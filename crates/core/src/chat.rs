//! A chat's state and what each event does to it.
//!
//! [`decide`] is the whole state machine. Storage locks the run's row, reads the [`Facts`],
//! carries out the [`Effects`] and commits. Beside it only what moves runs of every kind moves a
//! chat's status: a claim, a release, a requeue, and the end of a run whose runner failed.
//!
//! Two states never exist: waiting with something queued, and archived with work going on.

use crate::id::{ChatId, OwnerId, Step, Version, WorkspaceId};
use crate::invalid::{Invalid, check_text};
use crate::message::{Message, Model, NewMessage, Queued, Turn};
use crate::run::{RunStatus, storable_error};
use crate::timestamp::Timestamp;

/// Turns that may wait in one chat's queue when nobody sets another bound.
pub const QUEUE_MAX: u32 = 20;

/// Messages that one write of an owner may append.
pub const ANSWER_MESSAGES_MAX: usize = 256;

/// Bytes of a title, at most.
pub const TITLE_BYTES_MAX: usize = 400;

/// What is known of a chat, read under the lock of its run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Where its run stands.
    pub status: RunStatus,
    /// Whether an interrupt is to be finished.
    pub stop: bool,
    /// Whether it was put away.
    pub archived: bool,
    /// How many turns wait.
    pub queued: u32,
}

/// What happens to a chat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A user asks; while the chat is busy the turn waits in the queue.
    Send(Turn),
    /// The owner finished a turn.
    FinishTurn {
        /// What it answers.
        answer: Vec<NewMessage>,
        /// Whether the worker takes no further turn, because it drains.
        draining: bool,
    },
    /// The owner's turn failed.
    FinishError {
        /// Why, for the user.
        error: String,
    },
}

/// What storage is to do, in one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effects {
    /// Where the run stands afterwards.
    pub status: RunStatus,
    /// Whether an interrupt is still to be finished afterwards.
    pub stop: bool,
    /// The error afterwards; INVARIANT: present exactly when `status` is `Error`.
    pub error: Option<String>,
    /// Changes of history and queue, in this order.
    pub writes: Vec<Write>,
}

/// A change of a chat's history or queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Adds messages to the end of the history.
    Append(Vec<NewMessage>),
    /// Adds a turn to the end of the queue.
    Enqueue(Turn),
    /// Moves the turn at the queue's head to the end of the history.
    PromoteHead,
}

/// Why an event cannot happen to a chat as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The chat is archived.
    #[error("the chat is archived; unarchive it first")]
    Archived,
    /// The queue is full.
    #[error(
        "the chat's queue is full with {queue_max} turns; wait for one to finish or remove one"
    )]
    QueueFull {
        /// The bound that was met.
        queue_max: u32,
    },
    /// The chat's status does not allow the event.
    #[error("a chat that is {status} cannot {event}")]
    NotNow {
        /// Where the chat stands.
        status: RunStatus,
        /// What was to happen.
        event: &'static str,
    },
}

/// Decides what `event` does to a chat of which `facts` are known.
///
/// # Errors
/// Refuses every event on an archived chat, a turn for a full queue, and an owner's event on a
/// chat that nobody owns; the tests walk each pair of state and event.
pub fn decide(facts: &Facts, event: Event, queue_max: u32) -> Result<Effects, Refused> {
    if facts.archived {
        return Err(Refused::Archived);
    }
    match event {
        Event::Send(turn) => send(facts, turn, queue_max),
        Event::FinishTurn { answer, draining } => finish_turn(facts, answer, draining),
        Event::FinishError { error } => finish_error(facts, &error),
    }
}

fn send(facts: &Facts, turn: Turn, queue_max: u32) -> Result<Effects, Refused> {
    match facts.status {
        RunStatus::Waiting => Ok(start(vec![append(turn)])),
        RunStatus::Error if facts.queued == 0 => Ok(start(vec![append(turn)])),
        // The queue keeps its order: the new turn goes to its end, and its head starts.
        RunStatus::Error => Ok(start(vec![Write::Enqueue(turn), Write::PromoteHead])),
        RunStatus::Pending | RunStatus::Running | RunStatus::Interrupting => {
            if facts.queued >= queue_max {
                return Err(Refused::QueueFull { queue_max });
            }
            let writes = vec![Write::Enqueue(turn)];
            Ok(Effects { status: facts.status, stop: facts.stop, error: None, writes })
        }
    }
}

fn finish_turn(facts: &Facts, answer: Vec<NewMessage>, draining: bool) -> Result<Effects, Refused> {
    let written = Write::Append(answer);
    match facts.status {
        RunStatus::Running if facts.queued > 0 => {
            let status = if draining { RunStatus::Pending } else { RunStatus::Running };
            Ok(Effects {
                status,
                stop: false,
                error: None,
                writes: vec![written, Write::PromoteHead],
            })
        }
        RunStatus::Running => Ok(rest(vec![written])),
        RunStatus::Interrupting => Ok(finish_interrupt(facts, vec![written])),
        status => Err(Refused::NotNow { status, event: "finish its turn" }),
    }
}

fn finish_error(facts: &Facts, error: &str) -> Result<Effects, Refused> {
    match facts.status {
        RunStatus::Running => {
            let error = Some(storable_error(error));
            Ok(Effects { status: RunStatus::Error, stop: false, error, writes: vec![] })
        }
        // The interrupt may have caused the error, so it wins.
        RunStatus::Interrupting => Ok(finish_interrupt(facts, vec![])),
        status => Err(Refused::NotNow { status, event: "fail its turn" }),
    }
}

fn finish_interrupt(facts: &Facts, mut writes: Vec<Write>) -> Effects {
    if facts.queued == 0 {
        return rest(writes);
    }
    writes.push(Write::PromoteHead);
    start(writes)
}

fn start(writes: Vec<Write>) -> Effects {
    Effects { status: RunStatus::Pending, stop: false, error: None, writes }
}

fn rest(writes: Vec<Write>) -> Effects {
    Effects { status: RunStatus::Waiting, stop: false, error: None, writes }
}

fn append(turn: Turn) -> Write {
    Write::Append(vec![turn.into_message()])
}

/// What a user calls a chat.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(transparent)]
pub struct Title(String);

impl Title {
    /// Takes a title of at most [`TITLE_BYTES_MAX`] bytes.
    ///
    /// # Errors
    /// Refuses an empty or overlong title, and NUL.
    pub fn new(title: impl Into<String>) -> Result<Self, Invalid> {
        let title = title.into();
        check_text("title", &title, TITLE_BYTES_MAX)?;
        Ok(Self(title))
    }

    /// Makes a title of the first words of what a chat was asked.
    pub fn of_question(question: &str) -> Self {
        const CHARS_MAX: usize = 80;
        let words: Vec<&str> = question.split_whitespace().take(6).collect();
        Self(words.join(" ").chars().take(CHARS_MAX).collect())
    }

    /// Returns the title.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A chat to create; its first turn makes it pending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewChat {
    /// Names it; made by the caller, so the creation may be repeated.
    pub id: ChatId,
    /// Whose it is.
    pub owner: OwnerId,
    /// Which workspace it works in.
    pub workspace: Option<WorkspaceId>,
    /// What it is called.
    pub title: Title,
    /// What is asked first; its model becomes the chat's.
    pub turn: Turn,
}

/// A chat as its readers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chat {
    /// Names it.
    pub id: ChatId,
    /// Whose it is.
    pub owner: OwnerId,
    /// Which workspace it works in.
    pub workspace: Option<WorkspaceId>,
    /// What it is called.
    pub title: String,
    /// The model of its next turn, unless that turn names another.
    pub model: Option<Model>,
    /// Whether it was put away.
    pub archived: bool,
    /// Where its run stands.
    pub status: RunStatus,
    /// Why it stands in `Error`.
    pub error: Option<String>,
    /// Counts its changes.
    pub version: Version,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it last moved in its owner's list.
    pub updated_at: Timestamp,
}

/// What changed in a chat since a version; all of it from one snapshot of the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// The chat as it stands.
    pub chat: Chat,
    /// Messages that changed, oldest change first; a page of them.
    pub messages: Vec<Message>,
    /// The whole queue.
    pub queue: Vec<Queued>,
    /// Whether the reader's version was ahead of the stored one, so that these are all messages.
    ///
    /// It happens after a restore from backup or the promotion of a standby that was behind.
    pub reset: bool,
    /// Up to which version the reader has everything after this page.
    pub reached: Version,
}

/// What an applied event led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The chat.
    pub chat: ChatId,
    /// Whose it is.
    pub owner: OwnerId,
    /// Its version now.
    pub version: Version,
    /// Where its run stands now.
    pub status: RunStatus,
    /// The step of the owner's next write.
    pub step: Step,
    /// Whether a sent turn waits in the queue.
    pub queued: bool,
}

#[cfg(test)]
mod tests;
