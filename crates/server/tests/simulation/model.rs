//! A chat as it must stand after each event, by the pure state machine and plain lists.

use std::collections::BTreeSet;

use musterbeat_core::call::open_calls;
use musterbeat_core::chat::table::Happening;
use musterbeat_core::chat::{Effects, Facts, Named, Write};
use musterbeat_core::id::{MessageId, QueuedId};
use musterbeat_core::message::{Content, Role};
use musterbeat_core::run::{ATTEMPTS_MAX, RunStatus};
use uuid::Uuid;

use crate::history::{Change, MessageRow, QueuedRow};
use crate::script::{Progress, Question};

/// A message of the history.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    pub(crate) id: i64,
    pub(crate) role: Role,
    pub(crate) content: Content,
    /// Of a question: whether its turn may have ended before its answer did.
    cut: bool,
}

/// A chat after some event.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub(crate) status: RunStatus,
    pub(crate) stop: bool,
    pub(crate) archived: bool,
    pub(crate) is_child: bool,
    pub(crate) fence: i64,
    pub(crate) step: i64,
    pub(crate) version: i64,
    pub(crate) worker: Option<Uuid>,
    pub(crate) error: Option<String>,
    pub(crate) history: Vec<Said>,
    pub(crate) queue: Vec<(i64, Content)>,
    last_id: i64,
}

macro_rules! ensure {
    ($holds:expr, $($what:tt)+) => {
        if !$holds {
            return Err(format!($($what)+));
        }
    };
}
pub(crate) use ensure;

impl State {
    /// Takes what a chat's first change made.
    pub(crate) fn created(change: &Change) -> Result<Self, String> {
        let (Some(run), Some(chat)) = (&change.run, &change.chat) else {
            return Err("a chat begins without run or chat".to_owned());
        };
        let first = (run.status, run.version, run.fence, run.step, run.stop, chat.archived);
        let expected = (RunStatus::Pending, 1, 0, 0, false, false);
        ensure!(first == expected, "a chat begins as {first:?}");
        let mut state = Self {
            status: run.status,
            stop: run.stop,
            archived: chat.archived,
            is_child: chat.root_id.is_some(),
            fence: run.fence,
            step: run.step,
            version: run.version,
            worker: run.worker_id,
            error: None,
            history: vec![],
            queue: vec![],
            last_id: 0,
        };
        let [asked] = &change.added[..] else {
            return Err(format!("a chat begins with {:?}", change.added));
        };
        state.say(asked, asked.role, &asked.content.clone())?;
        ensure!(asked.role == Role::User, "a chat begins with {asked:?}");
        Ok(state)
    }

    pub(crate) fn facts(&self, named: Option<Named>) -> Facts {
        Facts {
            status: self.status,
            stop: self.stop,
            archived: self.archived,
            is_child: self.is_child,
            queued: u32::try_from(self.queue.len()).unwrap(),
            open: open_calls(self.history.iter().map(|said| &said.content)),
            named,
        }
    }

    /// Says whether it stands in error since its workers died.
    pub(crate) fn is_poisoned(&self) -> bool {
        let error = self.error.as_deref().unwrap_or_default();
        let deaths = error
            .strip_prefix("its worker died ")
            .and_then(|rest| rest.strip_suffix(" times in a row while the run was on it"));
        deaths.and_then(|deaths| deaths.parse().ok()).is_some_and(|deaths| ATTEMPTS_MAX <= deaths)
    }

    pub(crate) fn message(&self, id: MessageId) -> Option<Named> {
        let said = self.history.iter().find(|said| said.id == id.0);
        said.map(|said| Named::Message(said.role))
    }

    pub(crate) fn queued(&self, id: QueuedId) -> Option<Named> {
        self.queue.iter().any(|(queued, _)| *queued == id.0).then_some(Named::Queued)
    }

    /// Returns the state after `effects`, or where `change` is not what they must lead to.
    pub(crate) fn after(
        &self,
        happening: Happening,
        effects: &Effects,
        change: &Change,
    ) -> Result<Self, String> {
        let mut next = self.clone();
        if happening.cuts_a_turn() {
            next.cut_turn();
        }
        next.write(effects, change)?;
        next.check_run(self, happening, effects, change)?;
        next.check_answer(happening)?;
        Ok(next)
    }

    fn write(&mut self, effects: &Effects, change: &Change) -> Result<(), String> {
        let mut added = change.added.iter();
        let mut enqueued = change.enqueued.iter();
        let mut unqueued: BTreeSet<i64> = change.unqueued.iter().map(|row| row.id).collect();
        let mut deleted: BTreeSet<i64> = change.deleted.iter().map(|row| row.id).collect();
        let mut moved: BTreeSet<i64> = change.moved.iter().map(|row| row.id).collect();
        for write in &effects.writes {
            match write {
                Write::Truncate(first) => {
                    let from = self.history.iter().position(|said| said.id == first.0);
                    for said in self.history.split_off(from.ok_or("nothing to delete")?) {
                        ensure!(deleted.remove(&said.id), "{said:?} is not deleted");
                    }
                }
                Write::Append(messages) => {
                    for message in messages {
                        let row = added.next().ok_or(format!("{message:?} is not appended"))?;
                        self.say(row, message.role, &message.content)?;
                    }
                }
                Write::Enqueue(turn) => {
                    let row: &QueuedRow = enqueued.next().ok_or("nothing is queued")?;
                    ensure!(row.content == turn.content, "queued is {row:?}, not {turn:?}");
                    self.queue.push((row.id, row.content.clone()));
                }
                Write::PromoteHead => self.promote(0, &mut unqueued, added.next())?,
                Write::Promote(queued) => {
                    let place = self.place(*queued)?;
                    self.promote(place, &mut unqueued, added.next())?;
                }
                Write::MoveToHead(queued) => {
                    ensure!(moved.remove(&queued.0), "{queued} is not moved");
                    let turn = self.queue.remove(self.place(*queued)?);
                    self.queue.insert(0, turn);
                }
                Write::Unqueue(queued) => {
                    self.queue.remove(self.place(*queued)?);
                    ensure!(unqueued.remove(&queued.0), "{queued} stays in the queue");
                }
                Write::ClearQueue => {
                    for (queued, _) in self.queue.drain(..) {
                        ensure!(unqueued.remove(&queued), "{queued} stays in the queue");
                    }
                }
            }
        }
        let rest = (added.next(), enqueued.next(), unqueued, deleted, moved);
        let none = rest.0.is_none() && rest.1.is_none();
        ensure!(
            none && rest.2.is_empty() && rest.3.is_empty() && rest.4.is_empty(),
            "more was written: {rest:?}"
        );
        Ok(())
    }

    fn place(&self, queued: QueuedId) -> Result<usize, String> {
        let place = self.queue.iter().position(|(id, _)| *id == queued.0);
        place.ok_or(format!("{queued} is not queued"))
    }

    fn promote(
        &mut self,
        place: usize,
        unqueued: &mut BTreeSet<i64>,
        row: Option<&MessageRow>,
    ) -> Result<(), String> {
        ensure!(place < self.queue.len(), "an empty queue is promoted");
        let (queued, content) = self.queue.remove(place);
        ensure!(unqueued.remove(&queued), "{queued} is not promoted");
        self.say(row.ok_or("nothing is promoted")?, Role::User, &content)
    }

    fn say(&mut self, row: &MessageRow, role: Role, content: &Content) -> Result<(), String> {
        ensure!(row.role == role && row.content == *content, "{row:?} is not {role:?} {content:?}");
        ensure!(self.last_id < row.id, "{row:?} has no higher id than {}", self.last_id);
        if role == Role::User {
            self.ends_turn()?;
            ensure!(self.facts(None).open.is_empty(), "{row:?} follows an open call");
        }
        self.last_id = row.id;
        let said = Said { id: row.id, role, content: content.clone(), cut: false };
        self.history.push(said);
        Ok(())
    }

    fn cut_turn(&mut self) {
        if let Some(asked) = self.history.iter_mut().rfind(|said| said.role == Role::User) {
            asked.cut = true;
        }
    }

    /// Says how far the answer to the last question has come.
    fn progress(&self) -> Result<Option<(Question, Progress, bool)>, String> {
        let Some(place) = self.history.iter().rposition(|said| said.role == Role::User) else {
            return Ok(None);
        };
        let (asked, said) = (&self.history[place], &self.history[place + 1..]);
        let text = asked.content.to_text();
        let question = Question::parse(&text).ok_or(format!("{text:?} was never asked"))?;
        let progress = question.progress(said.iter().map(|said| (said.role, &said.content)));
        let progress = progress.ok_or(format!("{text:?} is answered with {said:?}"))?;
        Ok(Some((question, progress, asked.cut)))
    }

    /// Checks that the last question is answered whole, or that its turn was cut short.
    pub(crate) fn ends_turn(&self) -> Result<(), String> {
        if let Some((question, progress, cut)) = self.progress()? {
            ensure!(
                cut || progress == Progress::Whole,
                "{question:?} is left at {progress:?}, and nobody stopped it"
            );
        }
        Ok(())
    }

    fn check_answer(&self, happening: Happening) -> Result<(), String> {
        self.progress()?;
        if self.status == RunStatus::Waiting {
            self.ends_turn()?;
        }
        if happening == Happening::FinishError {
            let expected = self.progress()?.map(|(question, _, _)| question.error());
            ensure!(self.error == expected, "the error is {:?}", self.error);
        }
        Ok(())
    }

    fn check_run(
        &mut self,
        before: &Self,
        happening: Happening,
        effects: &Effects,
        change: &Change,
    ) -> Result<(), String> {
        let run = change.run.as_ref().ok_or("nothing moved the version")?;
        (self.status, self.stop, self.archived) = (effects.status, effects.stop, effects.archived);
        self.version = before.version + 1;
        self.fence = before.fence + i64::from(effects.fences);
        self.step = before.step + i64::from(happening.of_the_owner());
        let expected = (self.status, self.stop, self.version, self.fence, self.step);
        let found = (run.status, run.stop, run.version, run.fence, run.step);
        ensure!(found == expected, "the run is {found:?}, not {expected:?}");
        if let Some(chat) = &change.chat {
            ensure!(chat.archived == self.archived, "archived is {}", chat.archived);
        } else {
            ensure!(before.archived == self.archived, "the chat is not archived or unarchived");
        }
        let versions = change.added.iter().chain(&change.deleted).map(|row| row.version);
        ensure!(versions.into_iter().all(|version| version == run.version), "{change:?}");
        ensure!(run.worker_id.is_some() == run.status.is_owned(), "{run:?}");
        let stays = before.status.is_owned() && run.status.is_owned();
        ensure!(!stays || run.worker_id == before.worker, "another owner without a claim: {run:?}");
        self.worker = run.worker_id;
        self.error.clone_from(&run.error);
        let expected = match self.status {
            RunStatus::Error => effects.error.as_ref().or(before.error.as_ref()),
            _ => None,
        };
        // A run that was suspected stays so until its owner writes: deaths go on to be counted.
        let poisoned = happening == Happening::Poison && self.is_poisoned();
        ensure!(poisoned || run.error.as_ref() == expected, "the error is {:?}", run.error);
        Ok(())
    }
}

/// What the model needs to know of what happens.
pub(crate) trait Meaning {
    /// Says whether the run's owner does it.
    fn of_the_owner(self) -> bool;

    /// Says whether the last question may be left without a whole answer.
    fn cuts_a_turn(self) -> bool;
}

impl Meaning for Happening {
    fn of_the_owner(self) -> bool {
        matches!(
            self,
            Self::Step
                | Self::FinishTurn
                | Self::FinishTurnDraining
                | Self::FinishInterrupt
                | Self::FinishError
        )
    }

    fn cuts_a_turn(self) -> bool {
        matches!(
            self,
            Self::Interrupt
                | Self::FinishInterrupt
                | Self::FinishError
                | Self::Poison
                | Self::Archive
        )
    }
}
