use std::mem;

use super::refused::Refused;
use crate::call::{self, OpenCall};
use crate::id::{MessageId, QueuedId};
use crate::message::{NewMessage, Role, Turn};
use crate::run::{RunStatus, storable_error};

/// Turns that may wait in one chat's queue when nobody sets another bound.
pub const QUEUE_MAX: u32 = 20;

/// Why a chat stands in error whose queue waited when it was archived.
pub const STOPPED_BY_ARCHIVING: &str = "stopped by archiving";

/// What is known of a chat, read under the lock of its run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Where its run stands.
    pub status: RunStatus,
    /// Whether an interrupt is to be finished.
    pub stop: bool,
    /// Whether it was put away.
    pub archived: bool,
    /// Whether it has a parent.
    pub is_child: bool,
    /// How many turns wait.
    pub queued: u32,
    /// Calls of tools that nobody has answered, the oldest first.
    pub open: Vec<OpenCall>,
    /// What the event names, when it is there.
    pub named: Option<Named>,
}

/// What an event names, as it was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// A message of the history, of this role.
    Message(Role),
    /// A turn of the queue.
    Queued,
}

/// What happens to a chat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A user asks.
    Send {
        /// What.
        turn: Turn,
        /// What to do with it while the chat is busy.
        when_busy: WhenBusy,
    },
    /// A user says something else instead of what they said: all after it goes.
    Edit {
        /// What they said.
        message: MessageId,
        /// What they say instead.
        turn: Turn,
    },
    /// A user stops the turn; what was answered so far is kept.
    Interrupt,
    /// A user wants a queued turn to be the next.
    Promote(QueuedId),
    /// A user takes a queued turn back.
    DeleteQueued(QueuedId),
    /// A user takes all queued turns back.
    ClearQueue,
    /// A user puts the chat and its family away.
    Archive,
    /// A user takes the chat and its family out again.
    Unarchive,
    /// The owner adds to the history and goes on.
    Step(Vec<NewMessage>),
    /// The owner finished a turn.
    FinishTurn {
        /// What it answers.
        answer: Vec<NewMessage>,
        /// Whether the worker takes no further turn, because it drains.
        draining: bool,
    },
    /// The owner stopped a turn as its user wished.
    FinishInterrupt {
        /// What it had answered by then.
        partial: Vec<NewMessage>,
    },
    /// The owner's turn failed.
    FinishError {
        /// Why, for the user.
        error: String,
    },
}

impl Event {
    /// Returns the word that metrics use.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Send { when_busy: WhenBusy::Queue, .. } => "send",
            Self::Send { when_busy: WhenBusy::Interrupt, .. } => "send_interrupt",
            Self::Edit { .. } => "edit",
            Self::Interrupt => "interrupt",
            Self::Promote(_) => "promote",
            Self::DeleteQueued(_) => "delete_queued",
            Self::ClearQueue => "clear_queue",
            Self::Archive => "archive",
            Self::Unarchive => "unarchive",
            Self::Step(_) => "step",
            Self::FinishTurn { .. } => "finish_turn",
            Self::FinishInterrupt { .. } => "finish_interrupt",
            Self::FinishError { .. } => "finish_error",
        }
    }

    /// Encodes what it brings to the history, so that no transaction has to wait for that.
    pub fn encode(&self) {
        let (Self::Step(messages)
        | Self::FinishTurn { answer: messages, .. }
        | Self::FinishInterrupt { partial: messages }) = self
        else {
            // Of users: small, as their limits are.
            return;
        };
        for message in messages {
            message.content.encoded();
        }
    }
}

/// What to do with a turn that is sent while the chat is busy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WhenBusy {
    /// It waits in the queue.
    #[default]
    Queue,
    /// It waits in the queue, and the present turn is stopped.
    Interrupt,
}

/// What storage is to do, in one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own, and none excludes another"
)]
pub struct Effects {
    /// Where the run stands afterwards.
    pub status: RunStatus,
    /// Whether an interrupt is still to be finished afterwards.
    pub stop: bool,
    /// Why the run stands in `Error` afterwards; none keeps the reason it had.
    ///
    /// INVARIANT: none unless `status` is `Error`, and present if it was not.
    pub error: Option<String>,
    /// Whether the run is taken from whoever owns it: its fence grows.
    pub fences: bool,
    /// Whether the chat is put away afterwards.
    pub archived: bool,
    /// Whether the chat moves to the front of its owner's list.
    pub moves_up: bool,
    /// Changes of history and queue, in this order.
    pub writes: Vec<Write>,
}

/// A change of a chat's history or queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Takes a message and all after it out of the history.
    Truncate(MessageId),
    /// Adds messages to the end of the history.
    Append(Vec<NewMessage>),
    /// Adds a turn to the end of the queue.
    Enqueue(Turn),
    /// Moves the turn at the queue's head to the end of the history.
    PromoteHead,
    /// Moves this turn of the queue to the end of the history.
    Promote(QueuedId),
    /// Moves this turn to the head of the queue.
    MoveToHead(QueuedId),
    /// Takes this turn out of the queue.
    Unqueue(QueuedId),
    /// Empties the queue.
    ClearQueue,
}

/// Decides what `event` does to a chat of which `facts` are known; `None` when it changes nothing.
///
/// # Errors
/// Refuses what the [`table`](super::table) does not allow; the tests walk each pair.
pub fn decide(facts: &Facts, event: Event, queue_max: u32) -> Result<Option<Effects>, Refused> {
    if facts.is_child && matches!(event, Event::Archive | Event::Unarchive) {
        return Err(Refused::IsChild);
    }
    decide_member(facts, event, queue_max)
}

/// Decides as [`decide`] does, for a chat that is archived or unarchived with its root.
///
/// # Errors
/// As [`decide`], but for the chat's having a parent.
pub fn decide_member(
    facts: &Facts,
    event: Event,
    queue_max: u32,
) -> Result<Option<Effects>, Refused> {
    let effects = match event {
        Event::Archive => archive(facts),
        Event::Unarchive => unarchive(facts),
        _ if facts.archived => return Err(Refused::Archived),
        Event::Send { turn, when_busy } => Some(send(facts, turn, when_busy, queue_max)?),
        Event::Edit { message, turn } => Some(edit(facts, message, turn)?),
        Event::Interrupt => interrupt(facts),
        Event::Promote(queued) => Some(promote(facts, queued)?),
        Event::DeleteQueued(queued) => Some(delete_queued(facts, queued)?),
        Event::ClearQueue => (facts.queued > 0).then(|| facts.kept(vec![Write::ClearQueue])),
        Event::Step(messages) => Some(step(facts, messages)?),
        Event::FinishTurn { answer, draining } => Some(finish_turn(facts, answer, draining)?),
        Event::FinishInterrupt { partial } => Some(finish_interrupt(facts, partial)?),
        Event::FinishError { error } => Some(finish_error(facts, &error)?),
    };
    effects.map(|effects| close_calls(facts, effects)).transpose()
}

fn send(
    facts: &Facts,
    turn: Turn,
    when_busy: WhenBusy,
    queue_max: u32,
) -> Result<Effects, Refused> {
    match facts.status {
        RunStatus::Waiting => Ok(pending(vec![append(turn)])),
        RunStatus::Error if facts.queued == 0 => Ok(pending(vec![append(turn)])),
        // The queue keeps its order: the new turn goes to its end, and its head starts.
        RunStatus::Error => Ok(pending(vec![Write::Enqueue(turn), Write::PromoteHead])),
        RunStatus::Pending | RunStatus::Running | RunStatus::Interrupting => {
            if facts.queued >= queue_max {
                return Err(Refused::QueueFull { queue_max });
            }
            let interrupts = when_busy == WhenBusy::Interrupt && facts.status == RunStatus::Running;
            let status = if interrupts { RunStatus::Interrupting } else { facts.status };
            let writes = vec![Write::Enqueue(turn)];
            Ok(Effects { status, moves_up: true, ..facts.kept(writes) })
        }
    }
}

fn edit(facts: &Facts, message: MessageId, turn: Turn) -> Result<Effects, Refused> {
    match facts.named {
        Some(Named::Message(Role::User)) => {
            let writes = vec![Write::Truncate(message), Write::ClearQueue, append(turn)];
            Ok(Effects { fences: true, ..pending(writes) })
        }
        Some(Named::Message(_)) => Err(Refused::NotAUserMessage),
        _ => Err(Refused::NoSuchMessage),
    }
}

fn interrupt(facts: &Facts) -> Option<Effects> {
    match facts.status {
        RunStatus::Running => {
            Some(Effects { status: RunStatus::Interrupting, ..facts.kept(vec![]) })
        }
        // The next owner finishes the interrupt that the former one could not.
        RunStatus::Pending if facts.stop => None,
        RunStatus::Pending => Some(rest_or_next(facts, vec![])),
        RunStatus::Waiting | RunStatus::Interrupting | RunStatus::Error => None,
    }
}

fn promote(facts: &Facts, queued: QueuedId) -> Result<Effects, Refused> {
    if facts.named != Some(Named::Queued) {
        return Err(Refused::NoSuchQueued);
    }
    let first = facts.kept(vec![Write::MoveToHead(queued)]);
    match facts.status {
        RunStatus::Error => Ok(pending(vec![Write::Promote(queued)])),
        RunStatus::Running => Ok(Effects { status: RunStatus::Interrupting, ..first }),
        RunStatus::Pending | RunStatus::Interrupting => Ok(first),
        // Nothing is ever queued there.
        RunStatus::Waiting => Err(Refused::NoSuchQueued),
    }
}

fn delete_queued(facts: &Facts, queued: QueuedId) -> Result<Effects, Refused> {
    if facts.named != Some(Named::Queued) {
        return Err(Refused::NoSuchQueued);
    }
    Ok(facts.kept(vec![Write::Unqueue(queued)]))
}

fn archive(facts: &Facts) -> Option<Effects> {
    if facts.archived {
        return None;
    }
    let stopped = match facts.status {
        status if status.is_at_rest() => facts.kept(vec![]),
        _ if facts.queued == 0 => Effects { fences: true, ..rest(vec![]) },
        _ => Effects { fences: true, ..failed(STOPPED_BY_ARCHIVING) },
    };
    Some(Effects { archived: true, moves_up: true, ..stopped })
}

fn unarchive(facts: &Facts) -> Option<Effects> {
    facts.archived.then(|| Effects { archived: false, moves_up: true, ..facts.kept(vec![]) })
}

fn step(facts: &Facts, messages: Vec<NewMessage>) -> Result<Effects, Refused> {
    facts.owned("take a step")?;
    Ok(facts.kept(vec![Write::Append(messages)]))
}

fn finish_turn(facts: &Facts, answer: Vec<NewMessage>, draining: bool) -> Result<Effects, Refused> {
    facts.owned("finish its turn")?;
    if facts.status == RunStatus::Interrupting {
        return finish_interrupt(facts, answer);
    }
    let next = rest_or_next(facts, vec![Write::Append(answer)]);
    if facts.queued > 0 && !draining {
        // Under the same fence: the owner goes on.
        return Ok(Effects { status: RunStatus::Running, ..next });
    }
    Ok(next)
}

fn finish_interrupt(facts: &Facts, partial: Vec<NewMessage>) -> Result<Effects, Refused> {
    if facts.status != RunStatus::Interrupting {
        return Err(Refused::NotNow { status: facts.status, event: "finish an interrupt" });
    }
    Ok(rest_or_next(facts, vec![Write::Append(partial)]))
}

fn finish_error(facts: &Facts, error: &str) -> Result<Effects, Refused> {
    facts.owned("fail its turn")?;
    if facts.status == RunStatus::Interrupting {
        // The interrupt may have caused the error, so it wins.
        return finish_interrupt(facts, vec![]);
    }
    Ok(failed(error))
}

impl Facts {
    /// Refuses an owner's event on a chat that nobody owns.
    fn owned(&self, event: &'static str) -> Result<(), Refused> {
        if self.status.is_owned() {
            return Ok(());
        }
        Err(Refused::NotNow { status: self.status, event })
    }

    /// Leaves the run as it stands, but for `writes`.
    fn kept(&self, writes: Vec<Write>) -> Effects {
        Effects {
            status: self.status,
            stop: self.stop,
            error: None,
            fences: false,
            archived: self.archived,
            moves_up: false,
            writes,
        }
    }
}

/// Goes on with the head of the queue, or rests when there is none.
fn rest_or_next(facts: &Facts, mut writes: Vec<Write>) -> Effects {
    if facts.queued == 0 {
        return rest(writes);
    }
    writes.push(Write::PromoteHead);
    pending(writes)
}

fn pending(writes: Vec<Write>) -> Effects {
    Effects {
        status: RunStatus::Pending,
        stop: false,
        error: None,
        fences: false,
        archived: false,
        moves_up: true,
        writes,
    }
}

fn rest(writes: Vec<Write>) -> Effects {
    Effects { status: RunStatus::Waiting, ..pending(writes) }
}

fn failed(error: &str) -> Effects {
    let error = Some(storable_error(error));
    Effects { status: RunStatus::Error, error, ..pending(vec![]) }
}

fn append(turn: Turn) -> Write {
    Write::Append(vec![turn.into_message()])
}

/// Answers open calls before a user's message, before the chat rests, and before what an interrupt
/// kept of an answer.
///
/// So no user's message follows an open call, whichever event puts it into the history.
fn close_calls(facts: &Facts, effects: Effects) -> Result<Effects, Refused> {
    let mut open: Vec<OpenCall> = facts.open.clone();
    let mut writes = Writes::default();
    let cut_short = |role| facts.status == RunStatus::Interrupting && role == Role::Assistant;
    for write in effects.writes {
        match write {
            Write::Append(messages) => {
                for message in messages {
                    if message.role == Role::User || cut_short(message.role) {
                        writes.append(call::interrupted(&mut open));
                    }
                    call::follow(&mut open, &message)?;
                    writes.append(Some(message));
                }
            }
            Write::PromoteHead | Write::Promote(_) => {
                writes.append(call::interrupted(&mut open));
                writes.push(write);
            }
            Write::Truncate(_) => {
                // What precedes a user's message is answered.
                open.clear();
                writes.push(write);
            }
            other => writes.push(other),
        }
    }
    if effects.status.is_at_rest() {
        writes.append(call::interrupted(&mut open));
    }
    Ok(Effects { writes: writes.finished(), ..effects })
}

/// Writes in their order, messages that follow each other in one.
#[derive(Default)]
struct Writes {
    done: Vec<Write>,
    messages: Vec<NewMessage>,
}

impl Writes {
    fn append(&mut self, message: Option<NewMessage>) {
        self.messages.extend(message);
    }

    fn push(&mut self, write: Write) {
        self.flush();
        self.done.push(write);
    }

    fn flush(&mut self) {
        if !self.messages.is_empty() {
            self.done.push(Write::Append(mem::take(&mut self.messages)));
        }
    }

    fn finished(mut self) -> Vec<Write> {
        self.flush();
        self.done
    }
}
