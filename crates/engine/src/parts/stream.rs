//! The parts of one run, their writer, and those who wait for them.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::{Counter, Gauge, counter, gauge};
use musterbeat_core::id::Fence;
use tokio::sync::Notify;

use super::reader::TapEvent;
use super::ring::{Place, Ring};
use super::{PartEvent, PartLimits};
use crate::metrics::{
    STREAM_BUFFERED_BYTES, STREAM_PARTS, STREAM_PARTS_REFUSED, STREAM_READERS, STREAM_RESYNCS,
};

/// Tells a run's writer from those it replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct WriterKey(u64);

/// Which writer goes before which: the higher fence, then the owner before a mirror of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    fence: Fence,
    is_owner: bool,
}

impl Rank {
    pub(super) const fn owner(fence: Fence) -> Self {
        Self { fence, is_owner: true }
    }

    pub(super) const fn mirror(fence: Fence) -> Self {
        Self { fence, is_owner: false }
    }
}

/// The parts of one run and those who wait for them.
#[derive(Debug)]
pub(super) struct Stream {
    state: Mutex<State>,
    /// Rung with each part, and when a step or a writer comes or goes.
    pub(super) moved: Notify,
    pub(super) meters: Arc<Meters>,
}

#[derive(Debug)]
struct State {
    /// The writer that came last, present or gone.
    writer: WriterKey,
    /// `None` while nobody writes.
    rank: Option<Rank>,
    /// The highest rank that wrote.
    rank_max: Option<Rank>,
    ring: Ring,
}

impl Stream {
    pub(super) fn new(limits: PartLimits, meters: Arc<Meters>) -> Self {
        let state = State {
            writer: WriterKey::default(),
            rank: None,
            rank_max: None,
            ring: Ring::new(limits.ring_bytes_max),
        };
        Self { state: Mutex::new(state), moved: Notify::new(), meters }
    }

    /// Makes room for a writer and returns its key, `None` when another goes before it.
    ///
    /// A mirror is late even after a higher one has ended. An owner is not: its claim is new,
    /// and only a database that was restored gives it a lower fence than was seen.
    pub(super) fn replace_writer(&self, rank: Rank) -> Option<WriterKey> {
        let mut state = self.state();
        let before = if rank.is_owner { state.rank } else { state.rank_max };
        if Some(rank) < before {
            return None;
        }
        state.writer.0 += 1;
        state.rank = Some(rank);
        state.rank_max = state.rank_max.max(Some(rank));
        let key = state.writer;
        drop(state);
        drop(self.write(key, Ring::end));
        self.moved.notify_waiters();
        Some(key)
    }

    /// Ends a writer and drops its parts, unless another one replaced it.
    pub(super) fn end_writer(&self, key: WriterKey) {
        let parts = self.write(key, Ring::end);
        let mut state = self.state();
        if state.writer == key {
            state.rank = None;
        }
        drop(state);
        self.moved.notify_waiters();
        // Freed after the lock is released.
        drop(parts);
    }

    /// Returns the key of the owner under `fence`, while it writes here.
    pub(super) fn owner(&self, fence: Fence) -> Option<WriterKey> {
        let state = self.state();
        (state.rank == Some(Rank::owner(fence))).then_some(state.writer)
    }

    /// Changes the ring for the writer `key`; nothing happens if another one replaced it.
    pub(super) fn write<T: Default>(
        &self,
        key: WriterKey,
        write: impl FnOnce(&mut Ring) -> T,
    ) -> T {
        let mut state = self.state();
        if state.writer != key || state.rank.is_none() {
            return T::default();
        }
        let before = state.ring.bytes();
        let written = write(&mut state.ring);
        let after = state.ring.bytes();
        drop(state);
        self.meters.buffered_moved(before, after);
        written
    }

    pub(super) fn read(&self, place: &mut Place) -> Option<PartEvent> {
        let event = self.state().ring.read(place);
        if matches!(event, Some(PartEvent::Resync { .. })) {
            self.meters.resyncs.increment(1);
        }
        event
    }

    /// Reads for a mirror of the writer `key`; the end comes when that writer has gone.
    pub(super) fn tap(&self, key: WriterKey, place: &mut Place) -> Option<TapEvent> {
        let state = self.state();
        if state.writer != key || state.rank.is_none() {
            return Some(TapEvent::End);
        }
        if let Some((fence, step)) = state.ring.enter(place) {
            return Some(TapEvent::Begin { fence, step });
        }
        match state.ring.read(place)? {
            PartEvent::Part { id, bytes } => Some(TapEvent::Part { id, bytes }),
            PartEvent::Resync { .. } => {
                state.ring.awaited(*place).map(|next| TapEvent::Resync { next })
            }
        }
    }

    #[cfg(test)]
    pub(super) fn buffered_bytes(&self) -> usize {
        self.state().ring.bytes()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No step of a change panics halfway, so a ring is whole even if its lock is poisoned.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Handles of the metrics, found once for all streams: looking one up takes a lock across runs.
pub(super) struct Meters {
    pub(super) readers: Gauge,
    buffered_bytes: Gauge,
    resyncs: Counter,
    pub(super) parts: Counter,
    pub(super) refused: Counter,
}

impl Default for Meters {
    fn default() -> Self {
        Self {
            readers: gauge!(STREAM_READERS.name),
            buffered_bytes: gauge!(STREAM_BUFFERED_BYTES.name),
            resyncs: counter!(STREAM_RESYNCS.name),
            parts: counter!(STREAM_PARTS.name),
            refused: counter!(STREAM_PARTS_REFUSED.name),
        }
    }
}

impl Meters {
    fn buffered_moved(&self, before: usize, after: usize) {
        let moved = u32::try_from(before.abs_diff(after)).unwrap_or(u32::MAX);
        if before < after {
            self.buffered_bytes.increment(moved);
        } else {
            self.buffered_bytes.decrement(moved);
        }
    }
}

impl fmt::Debug for Meters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Meters")
    }
}
