//! Brings what changed to those in this process who watch it.
//!
//! A transport decodes what it received once and calls [`Hub::changed`], whose cost grows with the
//! smaller of the ids that changed and the ids that are watched, not with the watchers.
//! Locks are held for look-ups only, and a watcher is rung when all of them are released:
//! the code that runs in a waker may itself watch or end a watch.

use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use musterbeat_core::port::{Interest, Notice, Resync, Topic, Watcher};
use uuid::Uuid;

use crate::index::{Index, WatcherKey};
use crate::metrics;
use crate::slate::Slate;

/// Ids that a watcher of all ids may leave unread before they become one resync.
///
/// It bounds a stuck watcher to about 300 kB, and from about this size on one pass over
/// a table is cheaper than looking up each row.
pub const MARKS_MAX: usize = 10_000;

/// Knows who in this process watches what; cloning it is cheap and shares it.
#[derive(Clone, Debug)]
pub struct Hub(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    indexes: [RwLock<Index>; Topic::ALL.len()],
    marks_max: usize,
}

impl Default for Hub {
    fn default() -> Self {
        Self::with_marks_max(MARKS_MAX)
    }
}

impl Hub {
    /// Begins to watch: each change that is told after this returns leads to a notice.
    pub fn watch(&self, topic: Topic, interest: Interest) -> HubWatcher {
        let slate = Arc::new(Slate::new(self.marks_max(&interest)));
        let key = self.alter(topic, |index| index.insert(&interest, &slate));
        metrics::watcher_began(topic);
        HubWatcher { hub: self.clone(), topic, interest, key, slate }
    }

    /// Marks `ids`, in any order, with those who watch them.
    pub fn changed(&self, topic: Topic, ids: impl Iterator<Item = Uuid>) {
        let mut ids: Vec<_> = ids.collect();
        ids.sort_unstable();
        ids.dedup();
        ring(&self.look(topic, |index| index.mark(&ids)));
    }

    /// Marks the watched ids that `may_be` returns true for, with those who watch them.
    ///
    /// Ids that nobody watches are not known here, so who watches all is told to read again.
    pub fn changed_if(&self, topic: Topic, may_be: impl Fn(&Uuid) -> bool) {
        ring(&self.look(topic, |index| index.mark_if(may_be)));
    }

    /// Tells those who watch all, or an id that `may_be` returns true for, to read again.
    pub fn resync_if(&self, topic: Topic, may_be: impl Fn(&Uuid) -> bool, resync: Resync) {
        ring(&self.look(topic, |index| index.resync_if(may_be, resync)));
    }

    /// Tells every watcher of `topic` that changes were lost, or are too many to name.
    pub fn resync(&self, topic: Topic, resync: Resync) {
        ring(&self.look(topic, |index| index.resync(resync)));
    }

    /// Returns how many watch `topic`.
    pub fn watchers(&self, topic: Topic) -> usize {
        self.look(topic, Index::watchers)
    }

    fn with_marks_max(marks_max: usize) -> Self {
        Self(Arc::new(Shared { indexes: Default::default(), marks_max }))
    }

    /// Returns how many ids the marks of a watcher may hold; those it names never overflow.
    fn marks_max(&self, interest: &Interest) -> usize {
        match interest {
            Interest::All => self.0.marks_max,
            Interest::One(_) => 1,
            Interest::Ids(ids) => ids.len(),
        }
    }

    // An index is whole even if its lock is poisoned: only an allocation can fail inside.
    fn look<T>(&self, topic: Topic, look: impl FnOnce(&Index) -> T) -> T {
        look(&self.0.indexes[topic as usize].read().unwrap_or_else(PoisonError::into_inner))
    }

    fn alter<T>(&self, topic: Topic, alter: impl FnOnce(&mut Index) -> T) -> T {
        alter(&mut self.0.indexes[topic as usize].write().unwrap_or_else(PoisonError::into_inner))
    }
}

fn ring(slates: &[Arc<Slate>]) {
    for slate in slates {
        slate.ring();
    }
}

/// One who watches a topic of a [`Hub`]; dropping it ends the watch and its cost.
#[derive(Debug)]
pub struct HubWatcher {
    hub: Hub,
    topic: Topic,
    interest: Interest,
    key: WatcherKey,
    slate: Arc<Slate>,
}

impl HubWatcher {
    /// Returns what it watches.
    pub(crate) fn watched(&self) -> (Topic, &Interest) {
        (self.topic, &self.interest)
    }

    /// Waits for changes and returns all that were marked since the last call.
    ///
    /// Dropping the future loses nothing: marks are taken in the step that returns them.
    pub async fn recv(&mut self) -> Notice {
        let notice = self.slate.take().await;
        metrics::delivered(self.topic, &notice);
        notice
    }
}

#[async_trait]
impl Watcher for HubWatcher {
    async fn recv(&mut self) -> Notice {
        self.recv().await
    }
}

impl Drop for HubWatcher {
    fn drop(&mut self) {
        self.hub.alter(self.topic, |index| index.remove(self.key, &self.interest));
        metrics::watcher_ended(self.topic);
    }
}

#[cfg(test)]
mod tests;
