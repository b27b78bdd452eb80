//! Collects changes by key, and says when to write them.
//!
//! Whoever writes asks [`Batch::due`], [takes](Batch::take) everything that waits, writes it, and
//! answers with [`written`](Batch::written) or, if that failed, [`put_back`](Batch::put_back).
//! Meanwhile changes go on to be collected. One write is in flight at a time.
//!
//! ```
//! use std::time::Duration;
//!
//! use musterbeat_core::batch::{Batch, FlushReason, Limits};
//! use musterbeat_core::lease::Moment;
//!
//! let limits =
//!     Limits { flush_at: 2, interval: Duration::from_secs(5), entries_max: 10, bytes_max: 0 };
//! let mut batch = Batch::new(limits, Moment::default());
//! batch.add("a", ());
//! assert_eq!(batch.due(Moment::default()), None);
//! batch.add("b", ());
//! assert_eq!(batch.due(Moment::default()), Some(FlushReason::Capacity));
//! assert_eq!(batch.take(Moment::default()).len(), 2);
//! batch.written();
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::mem;
use std::time::Duration;

use crate::lease::Moment;

/// What is known of a key.
pub trait Entry {
    /// Takes over `other`, which came later; the rule of what wins is the entry's.
    fn merge(&mut self, other: Self);

    /// Returns how many bytes it holds besides its key.
    fn bytes(&self) -> usize {
        0
    }
}

/// That a key changed, and nothing else.
impl Entry for () {
    fn merge(&mut self, (): Self) {}
}

/// When a batch is written, and how much it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Waiting entries that are written at once.
    pub flush_at: usize,
    /// Time from one flush to the next; with zero everything is due at once.
    pub interval: Duration,
    /// Most keys that wait or are being written.
    pub entries_max: usize,
    /// Most bytes of entries that wait or are being written, but for those that replace others.
    pub bytes_max: usize,
}

/// What became of a change that was added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// It is the first one of its key that waits.
    New,
    /// It was merged with what waited.
    Merged,
    /// There is no room for another key; nothing changed.
    Refused,
}

/// Why a batch is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FlushReason {
    /// Enough entries wait.
    Capacity,
    /// The interval since the last flush has passed.
    Scheduled,
    /// The batch was closed.
    Shutdown,
}

impl FlushReason {
    /// Returns the word that metrics use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Capacity => "capacity",
            Self::Scheduled => "scheduled",
            Self::Shutdown => "shutdown",
        }
    }
}

/// Changes that wait to be written, one entry a key.
#[derive(Clone, Debug)]
pub struct Batch<K, V> {
    limits: Limits,
    waiting: BTreeMap<K, V>,
    /// INVARIANT: the sum over what waits.
    waiting_bytes: usize,
    /// Keys of the write in flight, which may come back.
    in_flight: BTreeSet<K>,
    in_flight_bytes: usize,
    /// INVARIANT: how many keys wait and are not in flight, too.
    waiting_only: usize,
    flushed: Moment,
    closed: bool,
}

impl<K: Ord + Clone, V: Entry> Batch<K, V> {
    /// Starts empty; the first interval begins at `now`.
    pub const fn new(limits: Limits, now: Moment) -> Self {
        Self {
            limits,
            waiting: BTreeMap::new(),
            waiting_bytes: 0,
            in_flight: BTreeSet::new(),
            in_flight_bytes: 0,
            waiting_only: 0,
            flushed: now,
            closed: false,
        }
    }

    /// Adds a change of `key`, or merges it with the one that waits.
    ///
    /// A key that waits or is being written needs no room; a new one may be refused.
    /// A closed batch refuses every key that does not wait.
    pub fn add(&mut self, key: K, value: V) -> Added {
        if let Some(entry) = self.waiting.get_mut(&key) {
            self.waiting_bytes -= entry.bytes();
            entry.merge(value);
            self.waiting_bytes += entry.bytes();
            return Added::Merged;
        }
        let comes_back = self.in_flight.contains(&key);
        if self.closed || !comes_back && !self.has_room(&value) {
            return Added::Refused;
        }
        self.waiting_bytes += value.bytes();
        self.waiting_only += usize::from(!comes_back);
        self.waiting.insert(key, value);
        Added::New
    }

    /// Says whether to write at `now`, and why.
    ///
    /// After a pause longer than the interval the first change is due at once.
    pub fn due(&self, now: Moment) -> Option<FlushReason> {
        let is_late = self.flushed.after(self.limits.interval) <= now;
        match self.waiting.len() {
            0 => None,
            _ if self.closed => Some(FlushReason::Shutdown),
            waiting if self.limits.flush_at <= waiting => Some(FlushReason::Capacity),
            _ => is_late.then_some(FlushReason::Scheduled),
        }
    }

    /// Returns when to write, the last flush if that is at once; `None` while nothing waits.
    pub fn deadline(&self) -> Option<Moment> {
        let at_once = self.closed || self.limits.flush_at <= self.waiting.len();
        let interval = if at_once { Duration::ZERO } else { self.limits.interval };
        (!self.is_empty()).then(|| self.flushed.after(interval))
    }

    /// Takes everything that waits, to write it; the next interval begins at `now`.
    ///
    /// A former write without an answer counts as written.
    pub fn take(&mut self, now: Moment) -> BTreeMap<K, V> {
        let bytes = self.waiting_bytes;
        let taken = self.drain(now);
        self.in_flight = taken.keys().cloned().collect();
        self.in_flight_bytes = bytes;
        taken
    }

    /// Takes everything that waits as [`take`](Self::take) does, for one who never puts it back.
    pub fn drain(&mut self, now: Moment) -> BTreeMap<K, V> {
        let drained = mem::take(&mut self.waiting);
        (self.waiting_bytes, self.flushed) = (0, now);
        self.written();
        drained
    }

    /// Notes that what was taken is written.
    pub fn written(&mut self) {
        self.in_flight.clear();
        self.in_flight_bytes = 0;
        self.waiting_only = self.waiting.len();
    }

    /// Puts back those of the taken entries that were not written, under what came meanwhile.
    ///
    /// They are due as if they had just been added, so whoever writes waits before trying again.
    pub fn put_back(&mut self, entries: BTreeMap<K, V>) {
        for (key, mut entry) in entries {
            if let Some(later) = self.waiting.remove(&key) {
                self.waiting_bytes -= later.bytes();
                entry.merge(later);
            }
            self.waiting_bytes += entry.bytes();
            self.waiting.insert(key, entry);
        }
        self.written();
    }

    /// Takes no further keys; what waits, also what is put back, is due at once.
    pub const fn close(&mut self) {
        self.closed = true;
    }

    /// Returns how many entries wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Says whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Returns how many bytes the entries hold that wait.
    pub const fn bytes(&self) -> usize {
        self.waiting_bytes
    }

    fn has_room(&self, value: &V) -> bool {
        let entries = self.waiting_only + self.in_flight.len();
        let bytes = self.waiting_bytes + self.in_flight_bytes + value.bytes();
        entries < self.limits.entries_max && bytes <= self.limits.bytes_max
    }
}

/// How many rows to write together, until those that storage refuses stand alone.
///
/// Whoever writes takes [`next`](Self::next) rows and says what became of them. A refused part is
/// halved, from its front; with each one that is written they grow again, to twice the size.
#[derive(Clone, Copy, Debug)]
pub struct Portion {
    max: usize,
    size: usize,
}

impl Portion {
    /// Takes at most `max` rows, and at least one.
    pub const fn new(max: usize) -> Self {
        let max = if max == 0 { 1 } else { max };
        Self { max, size: max }
    }

    /// Returns how many of the rows that are left to write together.
    pub fn next(&self, left: usize) -> usize {
        self.size.min(left)
    }

    /// Notes that a part was written.
    pub fn written(&mut self) {
        self.size = self.size.saturating_mul(2).min(self.max);
    }

    /// Notes that a part of so many rows was refused; true when it stood alone, and is to blame.
    pub const fn refused(&mut self, part: usize) -> bool {
        self.size = part.div_ceil(2);
        part <= 1
    }
}

#[cfg(test)]
mod tests;
