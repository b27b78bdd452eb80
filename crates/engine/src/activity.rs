//! Gathers where somebody or something works, and writes it once a minute.
//!
//! A mark is taken without waiting, and of each workspace and chat the latest one stays. A chat
//! counts at each write while it works, without a mark of its own, and once more when it has
//! ended. What could not be written goes back under what came meanwhile, and is written with it.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::mem;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use musterbeat_core::activity::Activity;
use musterbeat_core::id::{ChatId, OwnerId, WorkspaceId};
use musterbeat_core::port::ActivityStore;
use musterbeat_core::timestamp::Timestamp;
use time::OffsetDateTime;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::metrics::{
    ACTIVITY_PENDING, ACTIVITY_REFUSED, ACTIVITY_WORKSPACES, ACTIVITY_WRITE_FAILURES,
    ACTIVITY_WRITES,
};

/// Time from one write to the next: deadlines are hours away, and move by a twentieth at least.
pub const ACTIVITY_INTERVAL: Duration = Duration::from_mins(1);

/// Workspaces and chats not at work that wait or are being written, at most: some 10 MB.
pub const PENDING_MAX: NonZeroUsize = NonZeroUsize::new(100_000).expect("a constant is not zero");

/// How activity is gathered.
#[derive(Clone, Copy, Debug)]
pub struct ActivityOptions {
    /// Time from one write to the next.
    pub interval: Duration,
    /// Workspaces and chats not at work that wait or are being written, at most.
    pub pending_max: NonZeroUsize,
    /// How long the last write may take.
    pub end_timeout: Duration,
}

impl ActivityOptions {
    /// A write each minute, or at 100,000 marks; 10 s for the last one.
    pub const DEFAULT: Self = Self {
        interval: ACTIVITY_INTERVAL,
        pending_max: PENDING_MAX,
        end_timeout: Duration::from_secs(10),
    };
}

impl Default for ActivityOptions {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Takes marks of activity and writes them; cloning it is cheap and shares it.
#[derive(Clone)]
pub struct ActivityTracker(Arc<Shared>);

struct Shared {
    store: Arc<dyn ActivityStore>,
    options: ActivityOptions,
    seen: Mutex<Seen>,
    /// Rung when there is no room for more.
    full: Notify,
}

#[derive(Default)]
struct Seen {
    /// What waits to be written.
    ///
    /// INVARIANT: with `in_flight` it is `pending_max` at most.
    pending: Activity,
    /// How many marks are being written, and come back if that fails.
    in_flight: usize,
    /// Chats at work, each with the number of its guards, which is not zero.
    at_work: BTreeMap<ChatId, usize>,
}

/// Of what a mark is.
#[derive(Clone, Copy)]
enum Mark {
    Agent(WorkspaceId, OwnerId),
    Chat(ChatId),
}

impl ActivityTracker {
    /// Has seen nothing.
    pub fn new(store: Arc<dyn ActivityStore>, options: ActivityOptions) -> Self {
        let (seen, full) = (Mutex::default(), Notify::new());
        Self(Arc::new(Shared { store, options, seen, full }))
    }

    /// Says that an agent of `owner` reported of a workspace at `at`; never waits.
    ///
    /// Repeated before a write it needs no more room. Where there is none it is lost, and counted
    /// by a metric: the agent's next report says the same.
    pub fn agent_reported(&self, workspace: WorkspaceId, owner: OwnerId, at: Timestamp) {
        self.0.mark(Mark::Agent(workspace, owner), at);
    }

    /// Says that a chat is at work until the guard is dropped; never waits.
    ///
    /// Until then it counts at each write, and once more at the next one after it, unless there is
    /// no room. A chat with several guards is at work until the last one is dropped.
    #[must_use]
    pub fn chat_works(&self, chat: ChatId) -> WorkGuard {
        *self.0.seen().at_work.entry(chat).or_default() += 1;
        WorkGuard { shared: Arc::clone(&self.0), chat }
    }

    /// Writes until `end`, then once more what is left, within its time.
    ///
    /// One of these runs a process. Cancel `end` when nobody works any more: what is seen after
    /// it waits for nobody.
    pub async fn run(self, end: CancellationToken) {
        let shared = &*self.0;
        let late = async {
            end.cancelled().await;
            sleep(shared.options.end_timeout).await;
        };
        tokio::pin!(late);
        let mut next = Instant::now() + shared.options.interval;
        let mut written = true;
        loop {
            shared.due(next, written, &end).await;
            let is_last = end.is_cancelled();
            next = Instant::now() + shared.options.interval;
            // A write that is given up puts back what it took.
            written = tokio::select! {
                written = shared.flush() => written,
                () = &mut late => break,
            };
            if is_last {
                break;
            }
        }
        let unsaved = shared.seen().pending.len();
        if unsaved > 0 {
            tracing::warn!(unsaved, "where somebody works could not be written before the end");
        }
    }
}

/// Keeps a chat at work.
pub struct WorkGuard {
    shared: Arc<Shared>,
    chat: ChatId,
}

impl Drop for WorkGuard {
    fn drop(&mut self) {
        // First: a write in between finds it twice rather than not at all.
        self.shared.mark(Mark::Chat(self.chat), now());
        if let Entry::Occupied(mut guards) = self.shared.seen().at_work.entry(self.chat) {
            *guards.get_mut() -= 1;
            if *guards.get() == 0 {
                guards.remove();
            }
        }
    }
}

impl Seen {
    /// Takes a mark, if it needs no room or finds it.
    fn mark(&mut self, mark: Mark, at: Timestamp, pending_max: usize) -> bool {
        let is_known = match mark {
            Mark::Agent(workspace, owner) => {
                self.pending.workspaces.contains_key(&(workspace, owner))
            }
            Mark::Chat(chat) => self.pending.chats.contains_key(&chat),
        };
        let is_taken = is_known || self.len() < pending_max;
        if is_taken {
            match mark {
                Mark::Agent(workspace, owner) => self.pending.saw_agent(workspace, owner, at),
                Mark::Chat(chat) => self.pending.saw_chat(chat, at),
            }
        }
        is_taken
    }

    /// Returns how many marks wait or are being written.
    fn len(&self) -> usize {
        self.pending.len() + self.in_flight
    }

    /// Takes what waits, with the chats that are at work at `at`.
    fn take(&mut self, at: Timestamp) -> (Activity, Vec<ChatId>) {
        let mut taken = mem::take(&mut self.pending);
        self.in_flight += taken.len();
        let at_work = self.at_work.keys().copied();
        let added: Vec<_> = at_work.filter(|chat| !taken.chats.contains_key(chat)).collect();
        for chat in self.at_work.keys() {
            taken.saw_chat(*chat, at);
        }
        (taken, added)
    }
}

impl Shared {
    fn mark(&self, mark: Mark, at: Timestamp) {
        let pending_max = self.options.pending_max.get();
        let mut seen = self.seen();
        let was_full = pending_max <= seen.len();
        let is_taken = seen.mark(mark, at, pending_max);
        let (is_full, pending) = (pending_max <= seen.len(), seen.len());
        drop(seen);
        if !was_full && is_full {
            self.full.notify_one();
        }
        if is_taken {
            metrics::gauge!(ACTIVITY_PENDING.name).set(gauged(pending));
        } else {
            metrics::counter!(ACTIVITY_REFUSED.name).increment(1);
        }
    }

    /// Waits until `next`, or until there is no room, or for the end.
    ///
    /// After a write that failed it does not hurry: it would ask storage without a pause.
    async fn due(&self, next: Instant, may_hurry: bool, end: &CancellationToken) {
        loop {
            let full = self.full.notified();
            if may_hurry && self.options.pending_max.get() <= self.seen().pending.len() {
                return;
            }
            tokio::select! {
                () = end.cancelled() => return,
                () = sleep_until(next) => return,
                () = full, if may_hurry => {}
            }
        }
    }

    /// Writes what was seen, in one call; says whether nothing is left of it.
    async fn flush(&self) -> bool {
        let (taken, added) = self.seen().take(now());
        let mut flight = Flight { shared: self, marks: taken.len() - added.len(), taken, added };
        if flight.taken.is_empty() {
            return true;
        }
        match self.store.touch(&flight.taken).await {
            Ok(found) => {
                flight.taken = Activity::default();
                metrics::counter!(ACTIVITY_WRITES.name).increment(1);
                metrics::counter!(ACTIVITY_WORKSPACES.name).increment(found);
                true
            }
            Err(error) => {
                metrics::counter!(ACTIVITY_WRITE_FAILURES.name).increment(1);
                tracing::warn!(
                    marks = flight.taken.len(),
                    error = &error as &dyn std::error::Error,
                    "where somebody works could not be written; it is tried again with what follows"
                );
                false
            }
        }
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        // No step of a change panics halfway, so it is whole even if its lock is poisoned.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts back what was taken and is not written, however its writing ends.
struct Flight<'a> {
    shared: &'a Shared,
    taken: Activity,
    /// How many of them had waited.
    marks: usize,
    /// Chats that had not waited but were at work: they count again by themselves.
    added: Vec<ChatId>,
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        let mut left = mem::take(&mut self.taken);
        for chat in &self.added {
            left.chats.remove(chat);
        }
        let mut seen = self.shared.seen();
        seen.in_flight -= self.marks;
        seen.pending.merge(left);
        let pending = seen.len();
        drop(seen);
        metrics::gauge!(ACTIVITY_PENDING.name).set(gauged(pending));
    }
}

fn now() -> Timestamp {
    Timestamp::new(OffsetDateTime::now_utc())
}

/// Returns a count as metrics take it.
fn gauged(count: usize) -> f64 {
    u32::try_from(count).unwrap_or(u32::MAX).into()
}

#[cfg(test)]
mod tests;
