//! What was found and not sent yet: the newest value of each key.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use musterbeat_core::metadata::{KEYS_MAX, Key, REPORT_KEY_BYTES_MAX};
use serde::{Serialize, Serializer};
use tokio::sync::Notify;

use crate::source::Reading;

/// Bytes of a report, at most: a server takes a body of 1 MiB.
const REPORT_BYTES_MAX: usize = 512 * 1024;

/// Values that wait.
///
/// INVARIANT: as many as keys are defined, at most: [`Self::forget`] is told which are gone.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    waiting: Mutex<Waiting>,
    bell: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    entries: BTreeMap<Key, (Place, Reading)>,
    next: Place,
}

/// Where a key stands in the queue; one whose value is replaced keeps its place, so that a key
/// that is found often holds up no other.
type Place = u64;

/// A value to be sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Entry {
    #[serde(serialize_with = "text")]
    pub(crate) key: Key,
    #[serde(flatten)]
    pub(crate) reading: Reading,
    #[serde(skip)]
    place: Place,
}

impl Backlog {
    /// Adds what was found, in place of an older value.
    pub(crate) fn put(&self, key: Key, reading: Reading) {
        let mut waiting = self.lock();
        let next = waiting.next;
        let (_, kept) = waiting.entries.entry(key).or_insert_with(|| (next, Reading::default()));
        *kept = reading;
        waiting.next += 1;
        drop(waiting);
        self.bell.notify_one();
    }

    /// Takes as much as a report may hold, what waits longest first.
    pub(crate) fn take(&self) -> Vec<Entry> {
        let mut waiting = self.lock();
        let mut queue: Vec<(Place, Key)> =
            waiting.entries.iter().map(|(key, (place, _))| (*place, key.clone())).collect();
        queue.sort_unstable();
        let (mut taken, mut key_bytes, mut bytes) = (Vec::new(), 0, 2);
        for (place, key) in queue.into_iter().take(KEYS_MAX) {
            let Some((_, reading)) = waiting.entries.remove(&key) else { continue };
            key_bytes += key.as_str().len();
            let entry = Entry { key, reading, place };
            bytes += encoded_bytes(&entry);
            if REPORT_KEY_BYTES_MAX < key_bytes || REPORT_BYTES_MAX < bytes {
                waiting.entries.insert(entry.key, (place, entry.reading));
                break;
            }
            taken.push(entry);
        }
        taken
    }

    /// Lets entries that were not stored wait again, but for those that were found anew.
    pub(crate) fn put_back(&self, entries: impl IntoIterator<Item = Entry>) {
        let mut waiting = self.lock();
        for Entry { key, reading, place } in entries {
            let (kept, _) = waiting.entries.entry(key).or_insert((place, reading));
            *kept = place.min(*kept);
        }
        drop(waiting);
        self.bell.notify_one();
    }

    /// Drops what waits of a key that is not to be reported any more.
    pub(crate) fn forget(&self, key: &Key) {
        self.lock().entries.remove(key);
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().entries.len()
    }

    /// Waits until something is added; what was added since the last wait counts.
    pub(crate) async fn rung(&self) {
        self.bell.notified().await;
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        // No step of a change panics halfway, so it is whole even if its lock is poisoned.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns what an entry takes in a report, with its comma.
fn encoded_bytes(entry: &Entry) -> usize {
    serde_json::to_string(entry).map_or(0, |text| text.len() + 1)
}

fn text<S: Serializer>(key: &Key, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(key.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_value_of_a_key_waits_at_the_place_of_the_oldest() {
        let backlog = Backlog::default();
        for (key, value) in [("b", "1"), ("a", "1"), ("b", "2"), ("c", "1"), ("b", "3")] {
            put(&backlog, key, value);
        }
        assert_eq!(backlog.len(), 3);
        assert_eq!(shown(&backlog.take()), ["b=3", "a=1", "c=1"]);
        assert_eq!(backlog.len(), 0);
    }

    #[test]
    fn what_comes_back_goes_under_what_arrived_since() {
        let backlog = Backlog::default();
        put(&backlog, "a", "old");
        put(&backlog, "b", "old");
        let taken = backlog.take();
        put(&backlog, "c", "new");
        put(&backlog, "b", "new");
        backlog.put_back(taken);
        assert_eq!(shown(&backlog.take()), ["a=old", "b=new", "c=new"]);
    }

    #[test]
    fn a_report_is_bounded_in_bytes_of_keys_and_every_key_has_its_turn() {
        let backlog = Backlog::default();
        let keys: Vec<String> = (0..KEYS_MAX).map(|number| format!("{number:0127}")).collect();
        let mut sent = std::collections::BTreeSet::new();
        for round in 0..3 {
            // Each of them is found anew before each report.
            for key in &keys {
                put(&backlog, key, &round.to_string());
            }
            let taken = backlog.take();
            let bytes: usize = taken.iter().map(|entry| entry.key.as_str().len()).sum();
            assert!(bytes <= REPORT_KEY_BYTES_MAX, "{bytes} bytes");
            assert!(backlog.len() <= KEYS_MAX);
            sent.extend(taken.into_iter().map(|entry| entry.key));
        }
        assert_eq!(sent.len(), KEYS_MAX);
    }

    #[test]
    fn a_report_is_bounded_in_bytes_as_they_are_sent() {
        let backlog = Backlog::default();
        // Each of these bytes takes six in JSON.
        let value = "\u{1}".repeat(2_048);
        (0..KEYS_MAX).for_each(|number| put(&backlog, &number.to_string(), &value));
        let taken = backlog.take();
        let bytes = serde_json::to_string(&taken).unwrap().len();
        assert!(bytes <= REPORT_BYTES_MAX && REPORT_BYTES_MAX / 2 < bytes, "{bytes} bytes");
        assert_eq!(taken.len() + backlog.len(), KEYS_MAX);
    }

    #[test]
    fn an_entry_is_sent_without_an_error_that_it_does_not_have() {
        let key = Key::new("load").unwrap();
        let entry = Entry { key, reading: Reading::of("0.42"), place: 7 };
        let text = serde_json::to_string(&entry).unwrap();
        assert_eq!(text, r#"{"key":"load","value":"0.42"}"#);
        let entry = Entry { reading: Reading::failed("away"), ..entry };
        let text = serde_json::to_string(&entry).unwrap();
        assert_eq!(text, r#"{"key":"load","value":"","error":"away"}"#);
    }

    fn put(backlog: &Backlog, key: &str, value: &str) {
        backlog.put(Key::new(key).unwrap(), Reading::of(value));
    }

    fn shown(entries: &[Entry]) -> Vec<String> {
        entries.iter().map(|entry| format!("{}={}", entry.key, entry.reading.value)).collect()
    }
}
