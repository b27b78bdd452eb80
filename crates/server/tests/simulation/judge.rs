//! Whether what happened to a chat is what its users asked for, and nothing else.

use std::collections::{BTreeMap, BTreeSet};

use musterbeat_core::chat::table::{self, Happening, moved};
use musterbeat_core::chat::{
    Effects, Event, Named, QUEUE_MAX, Refused, WhenBusy, decide, decide_member,
};
use musterbeat_core::id::{MessageId, QueuedId};
use musterbeat_core::message::{Content, Turn};
use reqwest::StatusCode;
use uuid::Uuid;

use crate::api::{Act, Outcome, Request};
use crate::guess::{Guess, guess};
use crate::history::Change;
use crate::model::{State, ensure};

/// When families were archived or unarchived: by root and transaction.
pub(crate) type Families = BTreeSet<(Uuid, i64)>;

/// What is known of one chat.
pub(crate) struct Case<'a> {
    chat: Uuid,
    root: Option<Uuid>,
    families: &'a Families,
    requests: Vec<&'a Request>,
    /// Which of the requests explain a change.
    used: Vec<bool>,
    /// Each state, and since when.
    states: Vec<(i64, State)>,
}

/// What a chat came to.
pub(crate) struct Verdict {
    pub(crate) last: State,
    pub(crate) title: Option<String>,
    pub(crate) counts: BTreeMap<Happening, u64>,
    /// Which fields of the table were entered.
    pub(crate) pairs: BTreeSet<(table::State, Happening)>,
}

/// Follows one chat from its first change to its last.
///
/// # Errors
/// Says what should not have happened, or should have.
pub(crate) fn judge(
    chat: Uuid,
    changes: &[Change],
    requests: &[Request],
    families: &Families,
) -> Result<Verdict, String> {
    let (first, later) = changes.split_first().ok_or("nothing happened")?;
    let root = first.chat.as_ref().and_then(|chat| chat.root_id);
    let name = chat.to_string();
    let asked = first.added.first().map(|row| row.content.to_text());
    let of_chat = |request: &&Request| match request.act {
        Act::Create => request.text == asked,
        _ => request.chat == name,
    };
    let requests: Vec<&Request> = requests.iter().filter(of_chat).collect();
    let used = vec![false; requests.len()];
    let mut case = Case { chat, root, families, requests, used, states: vec![] };
    case.created(first)?;
    let (mut counts, mut pairs) = (BTreeMap::new(), BTreeSet::new());
    for change in later.iter().filter(|change| change.run.is_some() || change.is_of_history()) {
        let happened_in = case.last().facts(None);
        let happening = case
            .follow(change)
            .map_err(|wrong| format!("{wrong}\nby {change:?}\nafter {:?}", case.last()))?;
        *counts.entry(happening).or_default() += 1;
        pairs.insert((table::State::shown(&happened_in), happening));
    }
    case.each_request_is_explained()?;
    let last = case.last().clone();
    let title = changes.iter().rev().find_map(|change| change.chat.as_ref());
    Ok(Verdict { last, title: title.map(|chat| chat.title.clone()), counts, pairs })
}

impl Case<'_> {
    fn created(&mut self, change: &Change) -> Result<(), String> {
        let place = self.requests.iter().position(|request| request.act == Act::Create);
        let place = place.ok_or("nobody created it")?;
        let created = self.requests[place];
        ensure!(
            created.chat.is_empty() || created.chat == self.chat.to_string(),
            "{created:?} was told of another chat"
        );
        ensure!(created.happened_at(change), "{created:?} was refused or over by then");
        self.used[place] = true;
        self.states.push((change.at, State::created(change)?));
        Ok(())
    }

    fn last(&self) -> &State {
        &self.states.last().expect("it was created").1
    }

    fn follow(&mut self, change: &Change) -> Result<Happening, String> {
        let before = self.last();
        let asked = |text: &str| {
            let sends = |request: &&&Request| {
                matches!(request.act, Act::SendQueue | Act::SendInterrupt)
                    && request.text.as_deref() == Some(text)
            };
            self.requests.iter().find(sends).map(|request| request.act)
        };
        let deletes = |queued: i64| {
            self.explanation(change, |request| {
                request.act == Act::DeleteQueued && request.named == Some(queued)
            })
            .is_some()
        };
        let guess = guess(before, change, asked, deletes).ok_or("nothing in the table does it")?;
        let effects = decided(before, &guess)?;
        let after = before.after(guess.happening, &effects, change)?;
        if let Some(event) = &guess.event
            && let Some(act) = act_of(event, guess.happening)
        {
            self.explain(change, act, event)?;
        }
        self.states.push((change.at, after));
        Ok(guess.happening)
    }

    /// Finds the request that led to a change; each leads to one at most.
    fn explain(&mut self, change: &Change, act: Act, event: &Event) -> Result<(), String> {
        if let Some(root) = self.root.filter(|_| matches!(act, Act::Archive | Act::Unarchive)) {
            let with_root = self.families.contains(&(root, change.transaction));
            ensure!(with_root, "a child is archived or unarchived without its root");
            return Ok(());
        }
        let (text, named) = said(event);
        let matches = |request: &Request| {
            request.act == act
                && (text.is_none() || request.text == text)
                && (named.is_none() || request.named == named)
        };
        let place = self.explanation(change, matches);
        let place = place.ok_or(format!("nobody asked for {act:?}"))?;
        self.used[place] = true;
        Ok(())
    }

    /// Returns the request that fits best: one that was told this version, else one that was told
    /// none, else one whose answer was lost.
    fn explanation(&self, change: &Change, matches: impl Fn(&Request) -> bool) -> Option<usize> {
        let version = change.run.as_ref().map(|run| run.version);
        let fitness = |request: &Request| match request.outcome {
            Outcome::Accepted(told) if told == version => Some(0),
            Outcome::Accepted(None) => Some(1),
            Outcome::Unknown => Some(2),
            Outcome::Accepted(_) | Outcome::Refused(_) => None,
        };
        let fits = self.requests.iter().enumerate().filter_map(|(place, request)| {
            let free = !self.used[place] && matches(request) && request.happened_at(change);
            free.then_some(())?;
            Some((fitness(request)?, place))
        });
        fits.min().map(|(_, place)| place)
    }

    /// Checks that what was accepted was done or had nothing to do, and what was refused had to be.
    fn each_request_is_explained(&self) -> Result<(), String> {
        for (request, used) in self.requests.iter().zip(&self.used) {
            if *used || matches!(request.act, Act::Create | Act::Title) {
                continue;
            }
            let states = self.states_during(request);
            let event = request.event();
            let decide_in = |state: &State| {
                let named = named(state, &event);
                decide(&state.facts(named), event.clone(), QUEUE_MAX)
            };
            let holds = match &request.outcome {
                Outcome::Accepted(version) => states.iter().any(|state| {
                    let then = version.is_none_or(|version| version == state.version);
                    then && decide_in(state) == Ok(None)
                }),
                Outcome::Refused(StatusCode::CONFLICT | StatusCode::NOT_FOUND) => {
                    states.iter().any(|state| decide_in(state).is_err())
                }
                Outcome::Refused(_) | Outcome::Unknown => true,
            };
            ensure!(holds, "without a change that explains it: {request:?}");
        }
        Ok(())
    }

    /// Returns the states in which a request may have found the chat.
    ///
    /// It looks under the lock of the run, so before the next change began to write.
    fn states_during(&self, request: &Request) -> Vec<&State> {
        let next = self.states[1..].iter().map(|(since, _)| *since).chain([i64::MAX]);
        let during = self
            .states
            .iter()
            .zip(next)
            .filter(|((since, _), next)| *since <= request.answered && request.sent <= *next);
        during.map(|((_, state), _)| state).collect()
    }
}

impl Change {
    /// Says whether it is of more than the chat's title.
    fn is_of_history(&self) -> bool {
        let rows = [self.added.len(), self.deleted.len(), self.enqueued.len()];
        rows.iter().sum::<usize>() + self.moved.len() + self.unqueued.len() > 0
    }
}

impl Request {
    /// Says whether it may have led to a change by its time.
    fn happened_at(&self, change: &Change) -> bool {
        let over = match self.outcome {
            Outcome::Accepted(_) => self.answered,
            Outcome::Unknown => i64::MAX,
            Outcome::Refused(_) => return false,
        };
        (self.sent..=over).contains(&change.at)
    }

    /// Returns what it asks of a chat.
    fn event(&self) -> Event {
        let turn = || {
            let text = self.text.clone().unwrap_or_default();
            Turn { content: Content::produced(&text), model: None, created_by: None }
        };
        let named = self.named.unwrap_or_default();
        match self.act {
            Act::SendInterrupt => Event::Send { turn: turn(), when_busy: WhenBusy::Interrupt },
            Act::Edit => Event::Edit { message: MessageId(named), turn: turn() },
            Act::Interrupt => Event::Interrupt,
            Act::Promote => Event::Promote(QueuedId(named)),
            Act::DeleteQueued => Event::DeleteQueued(QueuedId(named)),
            Act::ClearQueue => Event::ClearQueue,
            Act::Archive => Event::Archive,
            Act::Unarchive => Event::Unarchive,
            Act::Create | Act::SendQueue | Act::Title => {
                Event::Send { turn: turn(), when_busy: WhenBusy::Queue }
            }
        }
    }
}

fn decided(before: &State, guess: &Guess) -> Result<Effects, String> {
    let Some(event) = guess.event.clone() else {
        return moved(&before.facts(None), guess.happening).ok_or(format!("{guess:?} cannot be"));
    };
    let facts = before.facts(named(before, &event));
    let decided: Result<Option<Effects>, Refused> = match event {
        Event::Archive | Event::Unarchive => decide_member(&facts, event, QUEUE_MAX),
        _ => decide(&facts, event, QUEUE_MAX),
    };
    decided
        .map_err(|refused| format!("{guess:?} is refused: {refused}"))?
        .ok_or(format!("{guess:?} changes nothing"))
}

/// Returns what an event names, as a state has it.
fn named(state: &State, event: &Event) -> Option<Named> {
    match event {
        Event::Edit { message, .. } => state.message(*message),
        Event::Promote(queued) | Event::DeleteQueued(queued) => state.queued(*queued),
        _ => None,
    }
}

/// Returns what a user must have done; none for what a run's owner does.
fn act_of(event: &Event, happening: Happening) -> Option<Act> {
    Some(match event {
        Event::Send { .. } if happening == Happening::SendInterrupt => Act::SendInterrupt,
        Event::Send { .. } => Act::SendQueue,
        Event::Edit { .. } => Act::Edit,
        Event::Interrupt => Act::Interrupt,
        Event::Promote(_) => Act::Promote,
        Event::DeleteQueued(_) => Act::DeleteQueued,
        Event::ClearQueue => Act::ClearQueue,
        Event::Archive => Act::Archive,
        Event::Unarchive => Act::Unarchive,
        _ => return None,
    })
}

/// Returns what an event says and names, as its request does.
fn said(event: &Event) -> (Option<String>, Option<i64>) {
    match event {
        Event::Send { turn, .. } => (Some(turn.content.to_text()), None),
        Event::Edit { message, turn } => (Some(turn.content.to_text()), Some(message.0)),
        Event::Promote(queued) | Event::DeleteQueued(queued) => (None, Some(queued.0)),
        _ => (None, None),
    }
}
