//! The whole state machine as data: every state, every event, and what [`decide`] says of each pair.
//!
//! `docs/chats.md` is written from it, and the tests of `core` and `db` walk it.

use std::fmt;

use super::Refused;
use super::machine::{Effects, Event, Facts, Named, WhenBusy, Write, decide};
use crate::call::OpenCall;
use crate::id::{MessageId, QueuedId};
use crate::message::{Content, NewMessage, Role, Turn};
use crate::run::RunStatus;

/// A state that a chat can be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct State {
    /// Where its run stands.
    pub status: RunStatus,
    /// Whether an interrupt is to be finished by the next owner.
    pub stop: bool,
    /// Whether turns wait.
    pub queued: bool,
    /// Whether it was put away.
    pub archived: bool,
}

impl State {
    /// Every state there is.
    pub const ALL: [Self; 14] = {
        use RunStatus::{Error, Interrupting, Pending, Running, Waiting};
        [
            Self::of(Waiting, false),
            Self::of(Pending, false),
            Self::of(Pending, true),
            Self::of(Pending, false).stopping(),
            Self::of(Pending, true).stopping(),
            Self::of(Running, false),
            Self::of(Running, true),
            Self::of(Interrupting, false),
            Self::of(Interrupting, true),
            Self::of(Error, false),
            Self::of(Error, true),
            Self::of(Waiting, false).put_away(),
            Self::of(Error, false).put_away(),
            Self::of(Error, true).put_away(),
        ]
    };

    const fn of(status: RunStatus, queued: bool) -> Self {
        Self { status, stop: false, queued, archived: false }
    }

    const fn stopping(self) -> Self {
        Self { stop: true, ..self }
    }

    const fn put_away(self) -> Self {
        Self { archived: true, ..self }
    }

    /// Returns the state that `facts` show.
    pub const fn shown(facts: &Facts) -> Self {
        Self {
            status: facts.status,
            stop: facts.stop && matches!(facts.status, RunStatus::Pending),
            queued: 0 < facts.queued,
            archived: facts.archived,
        }
    }

    /// Returns the facts of a chat in this state, with `queued` turns if any wait.
    pub fn facts(self, queued: u32) -> Facts {
        Facts {
            status: self.status,
            stop: self.stop,
            archived: self.archived,
            is_child: false,
            queued: if self.queued { queued } else { 0 },
            open: vec![],
            named: None,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        for (holds, word) in [
            (self.stop, " to be stopped"),
            (self.queued, ", queued"),
            (self.archived, ", archived"),
        ] {
            if holds {
                f.write_str(word)?;
            }
        }
        Ok(())
    }
}

/// Everything that can happen to a chat: events, and what moves runs of every kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Happening {
    /// A worker claims its run.
    Claim,
    /// A user asks, and would wait.
    SendQueue,
    /// A user asks, and would not.
    SendInterrupt,
    /// A user says something else.
    Edit,
    /// A user stops the turn.
    Interrupt,
    /// The owner adds to the history.
    Step,
    /// The owner finished the turn.
    FinishTurn,
    /// The owner finished the turn, and takes no other.
    FinishTurnDraining,
    /// The owner stopped the turn as its user wished.
    FinishInterrupt,
    /// The owner's turn failed.
    FinishError,
    /// The owner gave the run back, or died and it was taken back.
    Release,
    /// The last of so many owners died that the run is suspected.
    Poison,
    /// A user wants a queued turn next.
    Promote,
    /// A user takes a queued turn back.
    DeleteQueued,
    /// A user takes all queued turns back.
    ClearQueue,
    /// A user puts the chat away.
    Archive,
    /// A user takes it out again.
    Unarchive,
}

impl Happening {
    /// Everything that can happen to a chat that is there.
    pub const ALL: [Self; 17] = [
        Self::Claim,
        Self::SendQueue,
        Self::SendInterrupt,
        Self::Edit,
        Self::Interrupt,
        Self::Step,
        Self::FinishTurn,
        Self::FinishTurnDraining,
        Self::FinishInterrupt,
        Self::FinishError,
        Self::Release,
        Self::Poison,
        Self::Promote,
        Self::DeleteQueued,
        Self::ClearQueue,
        Self::Archive,
        Self::Unarchive,
    ];

    /// Returns what the table calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Claim => "Claim",
            Self::SendQueue => "Send(queue)",
            Self::SendInterrupt => "Send(interrupt)",
            Self::Edit => "Edit",
            Self::Interrupt => "Interrupt",
            Self::Step => "Step",
            Self::FinishTurn => "FinishTurn",
            Self::FinishTurnDraining => "FinishTurn(draining)",
            Self::FinishInterrupt => "FinishInterrupt",
            Self::FinishError => "FinishError",
            Self::Release => "Release, Reap",
            Self::Poison => "Reap(last attempt)",
            Self::Promote => "Promote",
            Self::DeleteQueued => "DeleteQueued",
            Self::ClearQueue => "ClearQueue",
            Self::Archive => "Archive",
            Self::Unarchive => "Unarchive",
        }
    }

    /// Returns the event with which to ask [`decide`]; none for what moves runs of every kind.
    ///
    /// `turn` is what a user says, `message` and `queued` what an event names, `answer` what an
    /// owner writes.
    pub fn event(
        self,
        turn: Turn,
        message: MessageId,
        queued: QueuedId,
        answer: Vec<NewMessage>,
    ) -> Option<Event> {
        Some(match self {
            Self::Claim | Self::Release | Self::Poison => return None,
            Self::SendQueue => Event::Send { turn, when_busy: WhenBusy::Queue },
            Self::SendInterrupt => Event::Send { turn, when_busy: WhenBusy::Interrupt },
            Self::Edit => Event::Edit { message, turn },
            Self::Interrupt => Event::Interrupt,
            Self::Step => Event::Step(answer),
            Self::FinishTurn => Event::FinishTurn { answer, draining: false },
            Self::FinishTurnDraining => Event::FinishTurn { answer, draining: true },
            Self::FinishInterrupt => Event::FinishInterrupt { partial: answer },
            Self::FinishError => Event::FinishError { error: "failed".to_owned() },
            Self::Promote => Event::Promote(queued),
            Self::DeleteQueued => Event::DeleteQueued(queued),
            Self::ClearQueue => Event::ClearQueue,
            Self::Archive => Event::Archive,
            Self::Unarchive => Event::Unarchive,
        })
    }

    /// Returns what it names, when that is there.
    const fn named(self, state: State) -> Option<Named> {
        match self {
            Self::Edit => Some(Named::Message(Role::User)),
            Self::Promote | Self::DeleteQueued if state.queued => Some(Named::Queued),
            _ => None,
        }
    }
}

/// What a pair of state and happening comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The chat changes so.
    Changed(Effects),
    /// It is accepted, and nothing changes.
    Unchanged,
    /// It is refused, and nothing changes.
    Refused(Refused),
    /// It cannot happen: the statement passes such runs over.
    Never,
}

/// Returns what happens to a chat in `state`, which has room in its queue and no open call.
pub fn outcome(state: State, happening: Happening) -> Outcome {
    let facts = Facts { named: happening.named(state), ..state.facts(1) };
    let text = |text| Content::text(text).expect("a short text is allowed");
    let turn = Turn { content: text("question"), model: None, created_by: None };
    let answer = vec![NewMessage::answer(text("answer"), None)];
    match happening.event(turn, MessageId(1), QueuedId(1), answer) {
        None => moved(&facts, happening).map_or(Outcome::Never, Outcome::Changed),
        Some(event) => match decide(&facts, event, super::QUEUE_MAX) {
            Ok(Some(effects)) => Outcome::Changed(effects),
            Ok(None) => Outcome::Unchanged,
            Err(refused) => Outcome::Refused(refused),
        },
    }
}

/// Returns what the statements that know no chats do: claim, release and reap.
///
/// They write no history; the tests of `db` hold them to it.
pub fn moved(facts: &Facts, happening: Happening) -> Option<Effects> {
    let kept = Effects {
        status: facts.status,
        stop: facts.stop,
        error: None,
        fences: true,
        archived: facts.archived,
        moves_up: false,
        writes: vec![],
    };
    match (happening, facts.status) {
        (Happening::Claim, RunStatus::Pending) => {
            let status = if facts.stop { RunStatus::Interrupting } else { RunStatus::Running };
            Some(Effects { status, ..kept })
        }
        (Happening::Release, RunStatus::Running | RunStatus::Interrupting) => {
            let stop = facts.stop || facts.status == RunStatus::Interrupting;
            Some(Effects { status: RunStatus::Pending, stop, ..kept })
        }
        (Happening::Poison, RunStatus::Running | RunStatus::Interrupting) => {
            let error = Some("its worker died 5 times in a row while the run was on it".to_owned());
            Some(Effects { status: RunStatus::Error, stop: false, error, ..kept })
        }
        _ => None,
    }
}

/// Carries out what was decided on the facts alone, as storage does on its tables.
#[must_use]
pub fn after(facts: &Facts, effects: &Effects) -> Facts {
    let mut after = Facts {
        status: effects.status,
        stop: effects.stop,
        archived: effects.archived,
        named: None,
        ..facts.clone()
    };
    for write in &effects.writes {
        match write {
            Write::Append(messages) => {
                for message in messages {
                    crate::call::follow(&mut after.open, message).expect("decided before");
                }
            }
            Write::Truncate(_) => after.open = Vec::<OpenCall>::new(),
            Write::Enqueue(_) => after.queued += 1,
            Write::PromoteHead | Write::Promote(_) | Write::Unqueue(_) => after.queued -= 1,
            Write::ClearQueue => after.queued = 0,
            Write::MoveToHead(_) => {}
        }
    }
    after
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Changed(effects) => write!(f, "{effects}"),
            Self::Unchanged => f.write_str("nothing"),
            Self::Refused(refused) => write!(f, "refused: {refused}"),
            Self::Never => f.write_str("-"),
        }
    }
}

impl fmt::Display for Effects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.status)?;
        for (holds, word) in [(self.stop, " to be stopped"), (self.archived, ", archived")] {
            if holds {
                f.write_str(word)?;
            }
        }
        for write in &self.writes {
            write!(f, ", {write}")?;
        }
        if self.fences {
            f.write_str(", fence + 1")?;
        }
        Ok(())
    }
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Truncate(_) => "delete from there",
            Self::Append(_) => "append",
            Self::Enqueue(_) => "enqueue",
            Self::PromoteHead => "promote the head",
            Self::Promote(_) => "promote it",
            Self::MoveToHead(_) => "move it to the head",
            Self::Unqueue(_) => "remove it",
            Self::ClearQueue => "clear the queue",
        })
    }
}
