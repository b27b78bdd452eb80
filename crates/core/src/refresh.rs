//! When to ask which host about which branches, and when again.
//!
//! Stale branches are leased in batches. Chats on the same pull request, or branch, of one owner
//! are one question; questions about one origin with one owner's right go to one provider. The
//! answer decides how long each is fresh.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::backoff::Backoff;
use crate::diff::{BranchState, DiffStatus, Reference};
use crate::id::{ChatId, OwnerId};
use crate::port::FetchError;

/// How long a worker may take to write what it leased; then others lease it.
pub const LEASE: Duration = Duration::from_mins(5);

/// Stale branches that a batch begins with, at most.
pub const BATCH: u32 = 50;

/// Branches of a batch, with those that the same questions answer.
pub const BATCH_MAX: u32 = 500;

/// Until when a branch without a pull request is asked about often: somebody just pushed.
const RECENT: Duration = Duration::from_mins(2);

/// How long answers are fresh, cause by cause.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RefreshTimes {
    /// After an answer about what is open, and after a branch that has merged for the first time.
    pub fresh: Duration,
    /// After the answer that a pull request is closed: it may be opened again.
    pub closed: Duration,
    /// While a branch that was pushed lately has no pull request.
    pub pull_awaited: Duration,
    /// While a branch has none and was not pushed lately.
    pub no_pull: Duration,
    /// When there is nobody to ask, or the right to ask is missing.
    pub no_access: Duration,
    /// When a host wants to be left alone and does not say for how long.
    pub rate_limited: Duration,
    /// Longest pause while a host fails; the first is [`fresh`](Self::fresh).
    pub failing_max: Duration,
}

impl RefreshTimes {
    /// Two minutes for what is open, and longer for whatever cannot be better sooner.
    pub const DEFAULT: Self = Self {
        fresh: Duration::from_mins(2),
        closed: Duration::from_hours(1),
        pull_awaited: Duration::from_secs(15),
        no_pull: Duration::from_mins(5),
        no_access: Duration::from_mins(10),
        rate_limited: Duration::from_mins(1),
        failing_max: Duration::from_hours(1),
    };
}

impl Default for RefreshTimes {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// A branch that is to be asked about, leased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaleDiff {
    /// Whose branch.
    pub chat: ChatId,
    /// Whose chat, and so whose right to ask.
    pub owner: OwnerId,
    /// What to ask about.
    pub reference: Reference,
    /// What was known of it.
    pub state: Option<BranchState>,
    /// Attempts in a row that brought no answer.
    pub failures: u32,
    /// How long ago it was marked last.
    pub marked_ago: Duration,
    /// For how long its host wants to be left alone, if it does.
    pub limited: Option<Duration>,
    /// Which lease this is; a write under an older one is refused.
    pub fence: i64,
    /// How often it had been marked.
    pub marks: i64,
}

/// Stale branches that one provider tells of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// With whose right.
    pub owner: OwnerId,
    /// Of which repository.
    pub origin: String,
    /// What to ask, the stalest first; never empty.
    pub questions: Vec<Question>,
}

/// A question, and whom its answer serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    /// What to ask about.
    pub reference: Reference,
    /// Whose branch it is; never empty.
    pub rows: Vec<StaleDiff>,
}

/// Groups what was leased, keeping its order: by owner and origin, then by what is asked.
pub fn plan(rows: Vec<StaleDiff>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut group_at = BTreeMap::new();
    let mut question_at = BTreeMap::new();
    for row in rows {
        let key = (row.owner, row.reference.origin.clone());
        let group = *group_at.entry(key).or_insert_with(|| {
            let origin = row.reference.origin.clone();
            groups.push(Group { owner: row.owner, origin, questions: Vec::new() });
            groups.len() - 1
        });
        let questions = &mut groups[group].questions;
        let reference = asked(&row.reference);
        let question = *question_at.entry((group, reference.clone())).or_insert_with(|| {
            questions.push(Question { reference, rows: Vec::new() });
            questions.len() - 1
        });
        questions[question].rows.push(row);
    }
    groups
}

/// Returns what tells questions apart: who asks for a pull request need not name its branch.
fn asked(reference: &Reference) -> Reference {
    match &reference.url {
        Some(_) => Reference { branch: String::new(), ..reference.clone() },
        None => reference.clone(),
    }
}

/// What a question brought.
pub type Answer = Result<Option<DiffStatus>, FetchError>;

/// What to write of a branch that was asked about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refreshed {
    /// Whose branch.
    pub chat: ChatId,
    /// Under which lease.
    pub fence: i64,
    /// How often it had been marked when it was leased.
    pub marks: i64,
    /// Whether anybody was asked; otherwise only `again` is written.
    pub asked: bool,
    /// What was told; `None` leaves what is stored.
    pub status: Option<DiffStatus>,
    /// Why nothing was told.
    pub problem: Option<String>,
    /// Attempts in a row that brought no answer.
    pub failures: u32,
    /// After which time to ask again; `None` once nothing can change any more.
    pub again: Option<Duration>,
}

/// A host that wants to be left alone by an owner.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostLimit {
    /// By whom.
    pub owner: OwnerId,
    /// About which repository.
    pub origin: String,
    /// For how long from now.
    pub wait: Duration,
}

impl RefreshTimes {
    /// Says what an answer means for a branch; `jitter` is drawn evenly from 0 to 1.
    ///
    /// Each pause is lengthened by up to a tenth, so that what was asked together is not asked
    /// together again; a pause that doubles with each failure has full jitter above its first.
    pub fn judge(&self, row: &StaleDiff, answer: &Answer, jitter: f64) -> Refreshed {
        let (status, problem, pause) = match answer {
            Ok(Some(status)) => {
                (Some(status.clone().cleaned()), None, self.after_status(row, status))
            }
            Ok(None) => (None, None, Some(self.without_pull(row))),
            Err(error) => (None, Some(error.to_string()), Some(self.after(error, row, jitter))),
        };
        Refreshed {
            chat: row.chat,
            fence: row.fence,
            marks: row.marks,
            asked: true,
            status,
            failures: if problem.is_some() { row.failures.saturating_add(1) } else { 0 },
            problem,
            again: pause.map(|pause| lengthened(pause, jitter)),
        }
    }

    /// Says that a branch was not asked about, and may be at once, by whoever is there.
    pub fn unasked(row: &StaleDiff) -> Refreshed {
        Refreshed {
            chat: row.chat,
            fence: row.fence,
            marks: row.marks,
            asked: false,
            status: None,
            problem: None,
            failures: row.failures,
            again: Some(Duration::ZERO),
        }
    }

    fn after_status(&self, row: &StaleDiff, status: &DiffStatus) -> Option<Duration> {
        match status.state {
            // Once more after it was seen to merge: what follows a merge is told with it then.
            Some(BranchState::Merged) if status.is_final() && row.state == status.state => None,
            Some(BranchState::Closed) => Some(self.closed),
            _ => Some(self.fresh),
        }
    }

    fn without_pull(&self, row: &StaleDiff) -> Duration {
        if row.marked_ago < RECENT { self.pull_awaited } else { self.no_pull }
    }

    fn after(&self, error: &FetchError, row: &StaleDiff, jitter: f64) -> Duration {
        match error {
            FetchError::NoHost
            | FetchError::NoToken
            | FetchError::Refused
            | FetchError::NotFound
            | FetchError::Invalid(_) => self.no_access,
            FetchError::RateLimited { wait } => wait.unwrap_or(self.rate_limited),
            FetchError::Host(_) | FetchError::Transport(_) => {
                let delay_max = self.failing_max.saturating_sub(self.fresh);
                let further = Backoff { delay_first: self.fresh, delay_max };
                match row.failures {
                    0 => self.fresh,
                    failures => self.fresh + further.delay(failures, jitter),
                }
            }
        }
    }

    /// Returns for how long a host is to be left alone after an answer.
    pub fn limit(&self, answer: &Answer, jitter: f64) -> Option<Duration> {
        match answer {
            Err(FetchError::RateLimited { wait }) => {
                Some(lengthened(wait.unwrap_or(self.rate_limited), jitter))
            }
            _ => None,
        }
    }
}

fn lengthened(pause: Duration, jitter: f64) -> Duration {
    // NaN fails the comparison and becomes 0.
    pause.mul_f64(1.0 + if jitter > 0.0 { jitter.min(1.0) } else { 0.0 } / 10.0)
}

#[cfg(test)]
mod tests;
