//! Who watches what, in one topic.

use std::collections::btree_map::BTreeMap;
use std::collections::hash_map::{Entry, HashMap};
use std::sync::Arc;

use musterbeat_core::port::{Interest, Resync, ResyncCause};
use uuid::Uuid;

use crate::slate::Slate;

/// One watcher of a topic; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct WatcherKey(u64);

type Slates = BTreeMap<WatcherKey, Arc<Slate>>;

/// The watchers of one topic, found by what they watch.
#[derive(Debug, Default)]
pub(crate) struct Index {
    last_key: u64,
    everyone: Slates,
    of_all: Slates,
    /// INVARIANT: no id is here without a watcher, so its length is the number of watched ids.
    by_id: HashMap<Uuid, Slates>,
}

impl Index {
    /// Adds a watcher.
    pub(crate) fn insert(&mut self, interest: &Interest, slate: &Arc<Slate>) -> WatcherKey {
        self.last_key += 1;
        let key = WatcherKey(self.last_key);
        self.everyone.insert(key, Arc::clone(slate));
        match interest {
            Interest::All => {
                self.of_all.insert(key, Arc::clone(slate));
            }
            Interest::Ids(ids) => {
                for id in ids {
                    self.by_id.entry(*id).or_default().insert(key, Arc::clone(slate));
                }
            }
        }
        key
    }

    /// Removes the watcher `key`, which was added with `interest`.
    pub(crate) fn remove(&mut self, key: WatcherKey, interest: &Interest) {
        self.everyone.remove(&key);
        match interest {
            Interest::All => {
                self.of_all.remove(&key);
            }
            Interest::Ids(ids) => {
                for id in ids {
                    self.forget(*id, key);
                }
            }
        }
    }

    /// Marks `ids`, sorted and distinct, and returns whom to ring.
    pub(crate) fn mark(&self, ids: &[Uuid]) -> Vec<Arc<Slate>> {
        let mut dirtied: Vec<_> =
            self.of_all.values().filter(|slate| slate.add(ids)).cloned().collect();
        // The smaller side is walked: neither a burst of ids that nobody watches
        // nor a crowd of watchers makes the other expensive.
        if self.by_id.len() < ids.len() {
            for (id, slates) in &self.by_id {
                if ids.binary_search(id).is_ok() {
                    mark_each(slates, *id, &mut dirtied);
                }
            }
        } else {
            for id in ids {
                if let Some(slates) = self.by_id.get(id) {
                    mark_each(slates, *id, &mut dirtied);
                }
            }
        }
        dirtied
    }

    /// Marks the watched ids that may be among those that changed, and returns whom to ring.
    pub(crate) fn mark_if(&self, may_be: impl Fn(&Uuid) -> bool) -> Vec<Arc<Slate>> {
        let unnamed = Resync::of(ResyncCause::Unnamed);
        let mut dirtied: Vec<_> =
            self.of_all.values().filter(|slate| slate.resync(unnamed)).cloned().collect();
        for (id, slates) in self.by_id.iter().filter(|(id, _)| may_be(id)) {
            mark_each(slates, *id, &mut dirtied);
        }
        dirtied
    }

    /// Marks those with a resync who watch all or an id that may be meant; returns whom to ring.
    pub(crate) fn resync_if(
        &self,
        may_be: impl Fn(&Uuid) -> bool,
        resync: Resync,
    ) -> Vec<Arc<Slate>> {
        let meant = self.by_id.iter().filter(|(id, _)| may_be(id)).flat_map(|(_, it)| it.values());
        let all = self.of_all.values().chain(meant);
        all.filter(|slate| slate.resync(resync)).cloned().collect()
    }

    /// Marks every watcher with a resync and returns whom to ring.
    pub(crate) fn resync(&self, resync: Resync) -> Vec<Arc<Slate>> {
        self.everyone.values().filter(|slate| slate.resync(resync)).cloned().collect()
    }

    /// Returns how many watch.
    pub(crate) fn watchers(&self) -> usize {
        self.everyone.len()
    }

    fn forget(&mut self, id: Uuid, key: WatcherKey) {
        if let Entry::Occupied(mut slates) = self.by_id.entry(id) {
            slates.get_mut().remove(&key);
            if slates.get().is_empty() {
                slates.remove();
            }
        }
    }
}

fn mark_each(slates: &Slates, id: Uuid, dirtied: &mut Vec<Arc<Slate>>) {
    dirtied.extend(slates.values().filter(|slate| slate.add(&[id])).cloned());
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn nothing_stays_of_a_removed_watcher() {
        let mut index = Index::default();
        let slate = Arc::new(Slate::new(9));
        let interests = [Interest::All, ids([1, 2]), ids([2, 3]), ids([])];
        let keys = interests.each_ref().map(|interest| index.insert(interest, &slate));
        assert_eq!((index.watchers(), index.by_id.len()), (4, 3));

        for (key, interest) in keys.into_iter().zip(&interests) {
            index.remove(key, interest);
        }
        assert_eq!((index.watchers(), index.of_all.len(), index.by_id.len()), (0, 0, 0));
        assert_eq!(Arc::strong_count(&slate), 1);
    }

    fn ids<const N: usize>(numbers: [u128; N]) -> Interest {
        Interest::Ids(BTreeSet::from(numbers.map(Uuid::from_u128)))
    }
}
