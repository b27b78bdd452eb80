//! Those who watch what agents report.
//!
//! What changed is read for all of them by one statement, encoded once an agent, and each is
//! sent the newest, at most once a second. What is newer replaces what was not sent yet.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use musterbeat_core::id::AgentId;
use musterbeat_core::metadata::Readings;
use musterbeat_core::port::{MetadataStore, Notice, Reach, StoreError, Topic, Watch};
use tokio::sync::watch::{Receiver, Sender};
use tokio::time::{Instant, sleep, sleep_until};

use super::Encode;
use crate::lookup::{Load, Lookup};
use crate::metrics::{METADATA_READS, METADATA_WATCHED};
use crate::notices::watch_all;
use crate::retry::BACKOFF;
use crate::weak_map::WeakMap;

/// Time between two updates of one watcher, at least.
pub const UPDATE_PAUSE: Duration = Duration::from_secs(1);

/// Time between two reads of what changed, at least: notices gather meanwhile.
const READ_PAUSE: Duration = Duration::from_millis(100);

/// Agents that one statement reads, at most: with 128 keys each, some 128,000 rows.
const READ_TOGETHER_MAX: usize = 1_000;

/// The agents that are watched in this process. Clones share them.
#[derive(Clone)]
pub(super) struct Watching {
    metadata: Arc<dyn MetadataStore>,
    encode: Encode,
    /// Held by their watchers.
    watched: Arc<WeakMap<AgentId, Watched>>,
    /// For who comes: several who come at once are served by one statement.
    firsts: Lookup<AgentId, Readings>,
}

/// An agent that somebody watches.
struct Watched {
    latest: Sender<Latest>,
}

/// What the watchers of an agent are sent.
#[derive(Clone)]
enum Latest {
    /// Nothing was read yet.
    Unread,
    Is(Bytes),
    /// The agent is gone.
    Gone,
}

impl Watched {
    fn new() -> Self {
        metrics::gauge!(METADATA_WATCHED.name).increment(1);
        Self { latest: Sender::new(Latest::Unread) }
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        metrics::gauge!(METADATA_WATCHED.name).decrement(1);
    }
}

/// One who watches an agent; dropping it ends the watch.
pub struct MetadataWatcher {
    latest: Receiver<Latest>,
    /// When it was told last.
    told_at: Option<Instant>,
    _watched: Arc<Watched>,
}

impl MetadataWatcher {
    /// Waits for what is newer than what it returned last, at least [`UPDATE_PAUSE`] after it;
    /// `None` when the agent is gone. The first call returns at once.
    ///
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Option<Bytes> {
        if let Some(told_at) = self.told_at {
            sleep_until(told_at + UPDATE_PAUSE).await;
            // The sender lives as long as this watcher.
            self.latest.changed().await.ok()?;
        }
        // In the step that found it: whoever drops the future before has not taken it.
        let latest = self.latest.borrow_and_update().clone();
        self.told_at = Some(Instant::now());
        match latest {
            Latest::Is(bytes) => Some(bytes),
            Latest::Unread | Latest::Gone => None,
        }
    }
}

impl Watching {
    pub(super) fn new(metadata: Arc<dyn MetadataStore>, encode: Encode) -> Self {
        let firsts = Lookup::without_memory(ReadingsOf(Arc::clone(&metadata)));
        Self { metadata, encode, watched: Arc::default(), firsts }
    }

    /// Begins to watch an agent; `None` when it is not there.
    pub(super) async fn watch(
        &self,
        agent: AgentId,
    ) -> Result<Option<MetadataWatcher>, StoreError> {
        let is_fit = |watched: &Watched| !matches!(*watched.latest.borrow(), Latest::Gone);
        // Held before it is read: what changes meanwhile is told to it.
        let watched = self.watched.hold(agent, is_fit, Watched::new);
        if matches!(*watched.latest.borrow(), Latest::Unread) {
            let Some(first) = self.firsts.get(&agent).await? else { return Ok(None) };
            let first = (self.encode)(&first);
            watched.latest.send_if_modified(|latest| {
                // What the follower read meanwhile is not older.
                let is_first = matches!(latest, Latest::Unread);
                if is_first {
                    *latest = Latest::Is(first);
                }
                is_first
            });
        }
        let latest = watched.latest.subscribe();
        Ok(Some(MetadataWatcher { latest, told_at: None, _watched: watched }))
    }

    /// Reads what changes and is watched, for ever.
    pub(super) async fn follow(&self, watch: &dyn Watch) {
        let mut watcher = watch_all(watch, Topic::Agent).await;
        // What changed before the watch began was told to nobody.
        let mut changed: BTreeSet<AgentId> = self.watched.keys().into_iter().collect();
        loop {
            self.read(changed).await;
            sleep(READ_PAUSE).await;
            changed = match watcher.recv().await {
                Notice::Changed(ids) => {
                    let agents = ids.into_iter().map(AgentId::new);
                    agents.filter(|agent| self.watched.get(agent).is_some()).collect()
                }
                Notice::Resync(_) => self.watched.keys().into_iter().collect(),
            };
        }
    }

    /// Reads agents and tells their watchers; tries again until it can.
    async fn read(&self, agents: BTreeSet<AgentId>) {
        let agents: Vec<AgentId> = agents.into_iter().collect();
        for agents in agents.chunks(READ_TOGETHER_MAX) {
            let mut failures = 0;
            let found = loop {
                metrics::counter!(METADATA_READS.name).increment(1);
                match self.metadata.read(agents, Reach::Everything).await {
                    Ok(found) => break found,
                    Err(error) => {
                        failures += 1;
                        tracing::warn!(
                            agents = agents.len(),
                            failures,
                            error = &error as &dyn std::error::Error,
                            "what agents reported cannot be read for now"
                        );
                        sleep(BACKOFF.delay(failures, rand::random())).await;
                    }
                }
            };
            self.tell(agents, &found);
        }
    }

    fn tell(&self, agents: &[AgentId], found: &BTreeMap<AgentId, Readings>) {
        for agent in agents {
            let Some(watched) = self.watched.get(agent) else { continue };
            let latest = match found.get(agent) {
                Some(readings) => Latest::Is((self.encode)(readings)),
                None => Latest::Gone,
            };
            watched.latest.send_if_modified(|former| {
                let is_new = match (&*former, &latest) {
                    (Latest::Is(former), Latest::Is(latest)) => former != latest,
                    (Latest::Gone, _) => false,
                    _ => true,
                };
                if is_new {
                    *former = latest;
                }
                is_new
            });
        }
    }
}

struct ReadingsOf(Arc<dyn MetadataStore>);

#[async_trait]
impl Load<AgentId, Readings> for ReadingsOf {
    fn what(&self) -> &'static str {
        "watched agent"
    }

    async fn load(&self, keys: &[AgentId]) -> Result<HashMap<AgentId, Readings>, StoreError> {
        Ok(self.0.read(keys, Reach::Everything).await?.into_iter().collect())
    }
}
