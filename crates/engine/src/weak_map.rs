//! Values that live as long as somebody holds them, found by a key.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Entries below which nothing is swept.
const SWEEP_MIN: usize = 64;

/// Finds what somebody holds; what nobody holds any more costs no more than what somebody does.
#[derive(Debug)]
pub struct WeakMap<K, V>(Mutex<Entries<K, V>>);

#[derive(Debug)]
struct Entries<K, V> {
    values: HashMap<K, Weak<V>>,
    /// How many there are when those that nobody holds are taken out: twice what was left before.
    sweep_at: usize,
}

impl<K, V> Default for WeakMap<K, V> {
    fn default() -> Self {
        Self(Mutex::new(Entries { values: HashMap::new(), sweep_at: SWEEP_MIN }))
    }
}

impl<K: Eq + Hash, V> WeakMap<K, V> {
    /// Returns the value of `key` if it is held and fit; otherwise puts another in its place.
    pub fn hold(
        &self,
        key: K,
        is_fit: impl FnOnce(&V) -> bool,
        make: impl FnOnce() -> V,
    ) -> Arc<V> {
        let mut entries = self.entries();
        let there = entries.values.get(&key).and_then(Weak::upgrade);
        if let Some(value) = there
            && is_fit(&value)
        {
            return value;
        }
        if entries.values.len() >= entries.sweep_at {
            entries.values.retain(|_, value| value.strong_count() > 0);
            entries.sweep_at = (2 * entries.values.len()).max(SWEEP_MIN);
        }
        let value = Arc::new(make());
        entries.values.insert(key, Arc::downgrade(&value));
        value
    }

    /// Returns the value of `key` if somebody holds it.
    pub fn get(&self, key: &K) -> Option<Arc<V>> {
        self.entries().values.get(key).and_then(Weak::upgrade)
    }

    /// Returns the keys of all values that somebody holds.
    pub fn keys(&self) -> Vec<K>
    where
        K: Copy,
    {
        let entries = self.entries();
        let held = entries.values.iter().filter(|(_, value)| value.strong_count() > 0);
        held.map(|(key, _)| *key).collect()
    }

    fn entries(&self) -> MutexGuard<'_, Entries<K, V>> {
        // No step of a change panics halfway, so it is whole even if its lock is poisoned.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_is_shared_while_it_is_held_and_fit() {
        let map = WeakMap::default();
        let first = map.hold(1, |_| true, || 'a');
        assert!(Arc::ptr_eq(&first, &map.hold(1, |_| true, || 'b')));
        assert_eq!(*map.hold(2, |_| true, || 'c'), 'c');
        assert_eq!((map.get(&1).as_deref(), map.get(&2)), (Some(&'a'), None));
        assert_eq!(map.keys(), [1]);

        let second = map.hold(1, |_| false, || 'd');
        drop(first);
        assert_eq!(map.get(&1).as_deref(), Some(&'d'), "the end of one is not that of the next");
        drop(second);
        assert!(map.keys().is_empty());
    }

    #[test]
    fn what_nobody_holds_is_swept() {
        let map = WeakMap::default();
        let held: Vec<_> = (0..100).map(|key| map.hold(key, |_| true, || key)).collect();
        for key in 100..10_000 {
            map.hold(key, |_| true, || key);
        }
        let entries = map.entries().values.len();
        assert!((100..=200).contains(&entries), "{entries} entries");
        assert!((0..100).all(|key| map.get(&key).as_deref() == Some(&key)));
        drop(held);
    }
}
