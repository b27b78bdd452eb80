//! Gathers what agents report, and writes it by the batch.
//!
//! A report is taken without waiting: one entry a key, the newest. While a batch is written the
//! next one gathers; what could not be written goes back under what came meanwhile. A value that
//! storage refuses is found by halving and dropped alone, by name.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use musterbeat_core::batch::{Added, Batch, FlushReason, Limits, Portion};
use musterbeat_core::id::AgentId;
use musterbeat_core::lease::Moment;
use musterbeat_core::metadata::{Key, Sample};
use musterbeat_core::port::{KeyedSample, MetadataStore, Publish, StoreError, Topic};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::metrics::{
    METADATA_AGENT_KEYS, METADATA_DROPPED, METADATA_FLUSH_ENTRIES, METADATA_FLUSH_SECONDS,
    METADATA_PENDING, METADATA_REFUSED, METADATA_RETRIES, METADATA_WRITTEN,
};
use crate::retry::BACKOFF;

/// Entries that one statement writes, at most: five arrays of so many are one small message.
const CHUNK: usize = 5_000;

/// How reports are gathered.
#[derive(Clone, Copy, Debug)]
pub struct MetadataOptions {
    /// Distinct entries that are written at once.
    pub batch_max: usize,
    /// Time from one write to the next.
    pub flush_interval: Duration,
    /// Distinct entries that wait or are being written, at most; then new keys are refused.
    pub pending_max: usize,
    /// Bytes of values that wait or are being written, at most.
    pub pending_bytes_max: usize,
    /// How long the last write may take once everything else has ended.
    pub end_timeout: Duration,
}

impl MetadataOptions {
    /// A write each 5 s, or at 5,000 entries; 25,000 entries or 16 MiB wait at most.
    pub const DEFAULT: Self = Self {
        batch_max: 5_000,
        flush_interval: Duration::from_secs(5),
        pending_max: 25_000,
        pending_bytes_max: 16 << 20,
        end_timeout: Duration::from_secs(15),
    };
}

impl Default for MetadataOptions {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Takes reports and writes them; cloning it is cheap and shares it.
#[derive(Clone)]
pub struct MetadataBatcher(Arc<Shared>);

struct Shared {
    store: Arc<dyn MetadataStore>,
    publish: Arc<dyn Publish>,
    options: MetadataOptions,
    began: Instant,
    batch: Mutex<Batch<(AgentId, Key), Sample>>,
    /// Rung when a batch may have become due.
    bell: Notify,
}

/// What became of a flush.
enum Flushed {
    Written,
    /// Storage is away; what was not written waits again.
    PutBack,
}

impl MetadataBatcher {
    /// Has nothing; the first interval begins now, within a runtime.
    pub fn new(
        store: Arc<dyn MetadataStore>,
        publish: Arc<dyn Publish>,
        options: MetadataOptions,
    ) -> Self {
        let limits = Limits {
            flush_at: options.batch_max,
            interval: options.flush_interval,
            entries_max: options.pending_max,
            bytes_max: options.pending_bytes_max,
        };
        let batch = Mutex::new(Batch::new(limits, Moment::default()));
        let (began, bell) = (Instant::now(), Notify::new());
        Self(Arc::new(Shared { store, publish, options, began, batch, bell }))
    }

    /// Takes what an agent reported; never waits. Returns the keys for which there is no room.
    ///
    /// A key that waits already needs no room: an agent holds at most its own keys, and one that
    /// reports without a pause displaces nobody. After the end everything is refused.
    pub fn report(&self, agent: AgentId, samples: BTreeMap<Key, Sample>) -> Vec<Key> {
        let shared = &*self.0;
        let mut batch = shared.batch();
        let was_empty = batch.is_empty();
        let refused: Vec<Key> = samples
            .into_iter()
            .filter_map(|(key, sample)| {
                let added = batch.add((agent, key.clone()), sample);
                (added == Added::Refused).then_some(key)
            })
            .collect();
        let pending = batch.len();
        let is_due = batch.due(shared.now()).is_some();
        drop(batch);
        if is_due || was_empty {
            shared.bell.notify_one();
        }
        metrics::gauge!(METADATA_PENDING.name).set(gauged(pending));
        metrics::counter!(METADATA_REFUSED.name).increment(refused.len() as u64);
        refused
    }

    /// Writes until `end`, then what is left, within its time; returns how much could not be.
    ///
    /// One of these runs a process. Cancel `end` when nobody reports any more: everything that
    /// was taken before is written.
    pub async fn run(self, end: CancellationToken) -> usize {
        let shared = &*self.0;
        let mut failures = 0;
        loop {
            shared.due(&end).await;
            if end.is_cancelled() {
                break;
            }
            match shared.flush().await {
                Flushed::Written => failures = 0,
                Flushed::PutBack => {
                    failures += 1;
                    metrics::counter!(METADATA_RETRIES.name).increment(1);
                    tokio::select! {
                        () = end.cancelled() => {}
                        () = sleep(BACKOFF.delay(failures, rand::random())) => {}
                    }
                }
            }
        }
        shared.end().await
    }
}

impl Shared {
    /// Waits until a batch is due, or for the end.
    async fn due(&self, end: &CancellationToken) {
        loop {
            let rung = self.bell.notified();
            let (due, deadline) = {
                let batch = self.batch();
                (batch.due(self.now()), batch.deadline())
            };
            if due.is_some() {
                return;
            }
            let deadline = deadline.map(|moment| self.began + moment.since_start());
            tokio::select! {
                () = end.cancelled() => return,
                () = rung => {}
                () = sleep_until(deadline.unwrap_or_else(Instant::now)), if deadline.is_some() => {}
            }
        }
    }

    /// Writes what is left until nothing is, or the time is over.
    async fn end(&self) -> usize {
        self.batch().close();
        let deadline = Instant::now() + self.options.end_timeout;
        let mut failures = 0;
        while !self.batch().is_empty() {
            match timeout_at(deadline, self.flush()).await {
                Ok(Flushed::Written) => {}
                Ok(Flushed::PutBack) => {
                    failures += 1;
                    let pause = sleep(BACKOFF.delay(failures, rand::random()));
                    if timeout_at(deadline, pause).await.is_err() {
                        break;
                    }
                }
                Err(_) => break,
            }
        }
        let unsaved = self.batch().len();
        if unsaved > 0 {
            metrics::counter!(METADATA_DROPPED.name, "cause" => "shutdown")
                .increment(unsaved as u64);
            tracing::error!(unsaved, "what agents reported could not be saved before the end");
        }
        unsaved
    }

    /// Takes what waits and writes it, a statement for each few thousand entries.
    async fn flush(&self) -> Flushed {
        let began = Instant::now();
        let (reason, taken) = {
            let mut batch = self.batch();
            let reason = batch.due(self.now()).unwrap_or(FlushReason::Scheduled);
            (reason, batch.take(self.now()))
        };
        // Whoever drops this future, as the end does when its time is over, loses nothing.
        let mut back = PutBack { shared: self, left: taken.into_iter().collect() };
        let entries = back.left.len();
        count_keys(&back.left);
        let mut changed = BTreeSet::new();
        let mut flushed = Flushed::Written;
        let mut portion = Portion::new(CHUNK);
        while !back.left.is_empty() {
            let part = portion.next(back.left.len());
            match self.store.write(&back.left[..part]).await {
                Ok(agents) => {
                    metrics::counter!(METADATA_WRITTEN.name).increment(part as u64);
                    changed.extend(agents);
                    back.left.drain(..part);
                    portion.written();
                }
                Err(StoreError::Unavailable { .. }) => {
                    flushed = Flushed::PutBack;
                    break;
                }
                Err(error) if portion.refused(part) => drop_one(&back.left.remove(0), &error),
                Err(error) => {
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        "what agents reported is written in halves"
                    );
                }
            }
        }
        drop(back);
        metrics::gauge!(METADATA_PENDING.name).set(gauged(self.batch().len()));
        if !changed.is_empty() {
            let changed: Vec<Uuid> = changed.into_iter().map(AgentId::uuid).collect();
            self.publish.publish_all(Topic::Agent, &changed);
        }
        metrics::histogram!(METADATA_FLUSH_ENTRIES.name).record(gauged(entries));
        let seconds = metrics::histogram!(METADATA_FLUSH_SECONDS.name, "reason" => reason.as_str());
        seconds.record(began.elapsed());
        flushed
    }

    fn now(&self) -> Moment {
        Moment::new(self.began.elapsed())
    }

    fn batch(&self) -> MutexGuard<'_, Batch<(AgentId, Key), Sample>> {
        // No step of a change panics halfway, so it is whole even if its lock is poisoned.
        self.batch.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Puts back what is left of a batch that was taken, however its writing ends.
struct PutBack<'a> {
    shared: &'a Shared,
    left: Vec<KeyedSample>,
}

impl Drop for PutBack<'_> {
    fn drop(&mut self) {
        self.shared.batch().put_back(self.left.drain(..).collect());
    }
}

/// Tells how many keys each agent has in a flush; entries are sorted by their agents.
fn count_keys(entries: &[KeyedSample]) {
    let keys = metrics::histogram!(METADATA_AGENT_KEYS.name);
    for of_agent in entries.chunk_by(|((one, _), _), ((other, _), _)| one == other) {
        keys.record(gauged(of_agent.len()));
    }
}

/// Returns a count as metrics take it.
fn gauged(count: usize) -> f64 {
    u32::try_from(count).unwrap_or(u32::MAX).into()
}

/// Gives up an entry that storage refuses whatever stands beside it.
fn drop_one(((agent, key), _): &KeyedSample, error: &StoreError) {
    metrics::counter!(METADATA_DROPPED.name, "cause" => "refused").increment(1);
    tracing::error!(
        agent.id = %agent,
        key = key.as_str(),
        error = error as &dyn std::error::Error,
        "a value that an agent reported cannot be stored"
    );
}

#[cfg(test)]
mod tests;
