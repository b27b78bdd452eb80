//! Answers that hosts gave, kept to ask only for what has changed.

use std::sync::{Mutex, MutexGuard, PoisonError};

use lru::LruCache;
use reqwest::header::HeaderValue;

use crate::metrics;

/// What an entry takes besides its texts: pointers, lengths, and its place in two lists.
const ENTRY_BYTES: usize = 256;

/// Which answer: to a URL, as one token sees it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) url: String,
    /// Digest of the token, which itself is kept in one place only.
    pub(crate) token: [u8; 32],
}

/// An answer, and the tag by which its host knows it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) etag: HeaderValue,
    pub(crate) body: Vec<u8>,
}

/// Answers up to a bound in bytes; what was used least recently goes first.
#[derive(Debug)]
pub(crate) struct Cache {
    kept: Mutex<Kept>,
    bytes_max: usize,
}

#[derive(Debug)]
struct Kept {
    entries: LruCache<Key, Entry>,
    /// INVARIANT: the sum of [`weight`] over the entries.
    bytes: usize,
}

impl Cache {
    pub(crate) fn new(bytes_max: usize) -> Self {
        let kept = Kept { entries: LruCache::unbounded(), bytes: 0 };
        Self { kept: Mutex::new(kept), bytes_max }
    }

    /// Returns what is kept, which counts as a use.
    pub(crate) fn get(&self, key: &Key) -> Option<Entry> {
        self.lock().entries.get(key).cloned()
    }

    /// Keeps an answer in place of an older one, unless it alone is above the bound.
    pub(crate) fn put(&self, key: Key, entry: Entry) {
        let added = weight(&key, &entry);
        let mut kept = self.lock();
        if let Some(old) = kept.entries.pop(&key) {
            kept.forget(&key, &old);
        }
        if added > self.bytes_max {
            return;
        }
        while kept.bytes + added > self.bytes_max {
            let Some((key, old)) = kept.entries.pop_lru() else { break };
            kept.forget(&key, &old);
        }
        kept.entries.put(key, entry);
        kept.bytes += added;
        metrics::cache_grew(added);
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Cache {
    fn drop(&mut self) {
        metrics::cache_shrank(self.lock().bytes);
    }
}

impl Kept {
    /// Counts an entry that was taken out.
    fn forget(&mut self, key: &Key, entry: &Entry) {
        let bytes = weight(key, entry);
        self.bytes -= bytes;
        metrics::cache_shrank(bytes);
    }
}

fn weight(key: &Key, entry: &Entry) -> usize {
    ENTRY_BYTES + key.url.len() + entry.etag.len() + entry.body.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_least_recently_goes_first() {
        let cache = Cache::new(3 * weight(&key("a"), &entry("1", 1_000)));
        for url in ["a", "b", "c"] {
            cache.put(key(url), entry("1", 1_000));
        }
        assert!(cache.get(&key("a")).is_some());
        cache.put(key("d"), entry("1", 1_000));
        let kept = ["a", "b", "c", "d"].map(|url| cache.get(&key(url)).is_some());
        assert_eq!(kept, [true, false, true, true]);
    }

    #[test]
    fn the_bound_holds_whatever_is_put() {
        let cache = Cache::new(10_000);
        for round in 0_usize..1_000 {
            cache.put(key(&(round % 37).to_string()), entry("1", round * 7_919 % 6_000));
            let kept = cache.lock();
            let sum: usize = kept.entries.iter().map(|(key, entry)| weight(key, entry)).sum();
            assert_eq!(kept.bytes, sum);
            assert!(kept.bytes <= 10_000, "{} bytes", kept.bytes);
        }
    }

    #[test]
    fn an_answer_above_the_bound_replaces_and_is_not_kept() {
        let cache = Cache::new(1_000);
        cache.put(key("a"), entry("1", 10));
        cache.put(key("b"), entry("1", 10));
        cache.put(key("a"), entry("2", 1_000));
        assert_eq!(cache.get(&key("a")), None);
        assert_eq!(cache.get(&key("b")), Some(entry("1", 10)));
    }

    #[test]
    fn one_token_does_not_see_what_another_was_told() {
        let cache = Cache::new(1_000);
        cache.put(key("a"), entry("1", 10));
        assert_eq!(cache.get(&Key { token: [1; 32], ..key("a") }), None);
    }

    fn key(url: &str) -> Key {
        Key { url: url.to_owned(), token: [0; 32] }
    }

    fn entry(etag: &'static str, bytes: usize) -> Entry {
        Entry { etag: HeaderValue::from_static(etag), body: vec![b' '; bytes] }
    }
}
