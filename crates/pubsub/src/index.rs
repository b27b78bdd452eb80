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

/// The slates of those who watch the same; most ids have one watcher, which takes no node.
#[derive(Debug, Default)]
struct Slates {
    first: Option<(WatcherKey, Arc<Slate>)>,
    #[expect(clippy::box_collection, reason = "most ids have none: a pointer is a third of it")]
    others: Option<Box<BTreeMap<WatcherKey, Arc<Slate>>>>,
}

impl Slates {
    fn insert(&mut self, key: WatcherKey, slate: &Arc<Slate>) {
        if self.first.is_none() {
            self.first = Some((key, Arc::clone(slate)));
        } else {
            self.others.get_or_insert_default().insert(key, Arc::clone(slate));
        }
    }

    fn remove(&mut self, key: WatcherKey) {
        if self.first.take_if(|(first, _)| *first == key).is_none()
            && let Some(others) = &mut self.others
        {
            others.remove(&key);
        }
    }

    fn is_empty(&self) -> bool {
        self.first.is_none() && self.others.as_ref().is_none_or(|others| others.is_empty())
    }

    fn iter(&self) -> impl Iterator<Item = &Arc<Slate>> {
        let others = self.others.iter().flat_map(|others| others.values());
        self.first.iter().map(|(_, slate)| slate).chain(others)
    }
}

/// The watchers of one topic, found by what they watch.
#[derive(Debug, Default)]
pub(crate) struct Index {
    last_key: u64,
    watchers: usize,
    of_all: Slates,
    /// INVARIANT: no id is here without a watcher, so its length is the number of watched ids.
    by_id: HashMap<Uuid, Slates>,
}

impl Index {
    /// Adds a watcher.
    pub(crate) fn insert(&mut self, interest: &Interest, slate: &Arc<Slate>) -> WatcherKey {
        self.last_key += 1;
        let key = WatcherKey(self.last_key);
        self.watchers += 1;
        let mut remember = |id| self.by_id.entry(id).or_default().insert(key, slate);
        match interest {
            Interest::All => self.of_all.insert(key, slate),
            Interest::One(id) => remember(*id),
            Interest::Ids(ids) => ids.iter().copied().for_each(remember),
        }
        key
    }

    /// Removes the watcher `key`, which was added with `interest`.
    pub(crate) fn remove(&mut self, key: WatcherKey, interest: &Interest) {
        self.watchers -= 1;
        match interest {
            Interest::All => self.of_all.remove(key),
            Interest::One(id) => self.forget(*id, key),
            Interest::Ids(ids) => ids.iter().for_each(|id| self.forget(*id, key)),
        }
    }

    /// Marks `ids`, sorted and distinct, and returns whom to ring.
    pub(crate) fn mark(&self, ids: &[Uuid]) -> Vec<Arc<Slate>> {
        let mut dirtied: Vec<_> =
            self.of_all.iter().filter(|slate| slate.add(ids)).cloned().collect();
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
            self.of_all.iter().filter(|slate| slate.resync(unnamed)).cloned().collect();
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
        let meant = self.by_id.iter().filter(|(id, _)| may_be(id)).flat_map(|(_, it)| it.iter());
        let all = self.of_all.iter().chain(meant);
        all.filter(|slate| slate.resync(resync)).cloned().collect()
    }

    /// Marks every watcher of anything with a resync and returns whom to ring.
    pub(crate) fn resync(&self, resync: Resync) -> Vec<Arc<Slate>> {
        self.resync_if(|_| true, resync)
    }

    /// Returns how many watch.
    pub(crate) fn watchers(&self) -> usize {
        self.watchers
    }

    fn forget(&mut self, id: Uuid, key: WatcherKey) {
        if let Entry::Occupied(mut slates) = self.by_id.entry(id) {
            slates.get_mut().remove(key);
            if slates.get().is_empty() {
                slates.remove();
            }
        }
    }
}

fn mark_each(slates: &Slates, id: Uuid, dirtied: &mut Vec<Arc<Slate>>) {
    dirtied.extend(slates.iter().filter(|slate| slate.add(&[id])).cloned());
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn nothing_stays_of_a_removed_watcher() {
        let mut index = Index::default();
        let slate = Arc::new(Slate::new(9));
        let two = Interest::One(Uuid::from_u128(2));
        let interests = [Interest::All, ids([1, 2]), ids([2, 3]), two, Interest::All, ids([])];
        for order in [[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0], [3, 0, 4, 2, 1, 5]] {
            let keys = interests.each_ref().map(|interest| index.insert(interest, &slate));
            assert_eq!((index.watchers(), index.by_id.len()), (6, 3));
            for number in order {
                index.remove(keys[number], &interests[number]);
            }
            assert_eq!((index.watchers(), index.by_id.len()), (0, 0));
            assert!(index.of_all.is_empty());
            assert_eq!(Arc::strong_count(&slate), 1);
        }
    }

    fn ids<const N: usize>(numbers: [u128; N]) -> Interest {
        Interest::Ids(BTreeSet::from(numbers.map(Uuid::from_u128)))
    }
}
