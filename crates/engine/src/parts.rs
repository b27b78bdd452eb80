//! Pieces of an answer as they come, for everyone who follows a run of this process.
//!
//! Each run has one ring of parts, bounded in bytes and shared by all its readers. A reader has a
//! place in it and no queue of its own, so the writer never waits, however slow a reader is:
//! one whose place was evicted is told how many parts it missed and goes on with the oldest kept.
//!
//! A step's parts are there until the next step begins or the run ends, because what they said
//! is a stored message by then. The stored messages are the truth.
//!
//! There is one lock a run. The lock across runs is taken when a handle comes or goes only.

mod ring;

use std::collections::hash_map::{Entry, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use metrics::{Counter, Gauge, counter, gauge};
use musterbeat_core::id::{Fence, RunId, Step};
use tokio::sync::Notify;

use self::ring::{Place, Ring};
use crate::metrics::{STREAM_BUFFERED_BYTES, STREAM_PARTS, STREAM_READERS, STREAM_RESYNCS};

/// How much of one run's parts is kept by default.
///
/// It holds minutes of a fast model's tokens, more than a reader on a bad connection lags.
pub const RING_BYTES_MAX: usize = 1024 * 1024;

/// What one part costs beside its bytes: its handle and the allocator's smallest blocks.
///
/// Counted, because a ring of tokens of a few bytes is mostly this.
pub const PART_OVERHEAD_BYTES: usize = 64;

/// Bounds of what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartLimits {
    /// Most that the parts of one run may cost, each its bytes and [`PART_OVERHEAD_BYTES`].
    pub ring_bytes_max: usize,
}

impl Default for PartLimits {
    fn default() -> Self {
        Self { ring_bytes_max: RING_BYTES_MAX }
    }
}

/// Names one part of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartId {
    /// The owner under whom it came.
    pub fence: Fence,
    /// The step that it belongs to.
    pub step: Step,
    /// Its place within the step: from 1, without a gap.
    pub seq: u64,
}

/// What a reader learns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartEvent {
    /// The next part.
    Part {
        /// Its name.
        id: PartId,
        /// What was published, shared with every other reader.
        bytes: Bytes,
    },
    /// The reader came too late for some parts of the step; it goes on with the oldest kept.
    Resync {
        /// How many.
        missed: u64,
    },
}

/// The parts of all runs of this process; cloning it is cheap and shares them.
#[derive(Clone, Debug, Default)]
pub struct PartStreams(Arc<Registry>);

impl PartStreams {
    /// Has no runs.
    pub fn new(limits: PartLimits) -> Self {
        Self(Arc::new(Registry { limits, streams: Mutex::default() }))
    }

    /// Begins to write the parts of `run`.
    ///
    /// It replaces an earlier writer of the run, whose parts are dropped and whose calls have
    /// no effect from here on.
    pub fn open(&self, run: RunId) -> PartWriter {
        let handle = self.attach(run);
        let key = handle.stream.replace_writer();
        PartWriter { handle, key }
    }

    /// Begins to read the parts of `run`, open or not, with the first part of its present step.
    pub fn subscribe(&self, run: RunId) -> PartReader {
        let handle = self.attach(run);
        handle.stream.meters.readers.increment(1);
        PartReader { handle, place: Place::default() }
    }

    fn attach(&self, run: RunId) -> Handle {
        let mut streams = self.0.streams();
        let seat = streams.entry(run).or_insert_with(|| Seat::new(self.0.limits));
        seat.handles += 1;
        Handle { registry: Arc::clone(&self.0), run, stream: Arc::clone(&seat.stream) }
    }
}

/// Writes the parts of one run; dropping it ends them and drops what is kept.
///
/// No method waits for a reader.
#[derive(Debug)]
pub struct PartWriter {
    handle: Handle,
    key: WriterKey,
}

impl PartWriter {
    /// Begins a step: the parts of the former one are dropped and `seq` starts again.
    ///
    /// Readers move to the new step without a word about what they had not read of the old one.
    /// Beginning the present step again changes nothing.
    pub fn begin(&self, fence: Fence, step: Step) {
        // The parts are freed after the lock is released.
        drop(self.handle.stream.write(self.key, |ring| ring.begin(fence, step)));
    }

    /// Appends a part to the present step; before the first [`begin`](Self::begin) it has no
    /// name and is dropped.
    ///
    /// A part that alone is larger than the ring is not kept, and neither is any before it.
    pub fn publish(&self, part: Vec<u8>) {
        // Boxing gives back what the vector reserved: the bound is on memory, not on text.
        let part = Bytes::from(part.into_boxed_slice());
        let stream = &self.handle.stream;
        if stream.write(self.key, |ring| ring.push(part)) {
            stream.meters.parts.increment(1);
            stream.published.notify_waiters();
        }
    }
}

impl Drop for PartWriter {
    fn drop(&mut self) {
        drop(self.handle.stream.write(self.key, Ring::end));
    }
}

/// Reads the parts of one run, across its steps and owners in this process; it never ends.
#[derive(Debug)]
pub struct PartReader {
    handle: Handle,
    place: Place,
}

impl PartReader {
    /// Waits for the next part, or for word of missed ones.
    ///
    /// Dropping the future loses nothing: the place moves in the step that returns the part.
    pub async fn next(&mut self) -> PartEvent {
        let stream = &self.handle.stream;
        loop {
            // Before the look, so that a part published in between ends the wait.
            let published = stream.published.notified();
            if let Some(event) = stream.read(&mut self.place) {
                return event;
            }
            published.await;
        }
    }
}

impl Drop for PartReader {
    fn drop(&mut self) {
        self.handle.stream.meters.readers.decrement(1);
    }
}

/// Who holds which stream.
#[derive(Debug, Default)]
struct Registry {
    limits: PartLimits,
    streams: Mutex<HashMap<RunId, Seat>>,
}

impl Registry {
    fn streams(&self) -> MutexGuard<'_, HashMap<RunId, Seat>> {
        // No step of a change panics halfway, so the map is whole even if its lock is poisoned.
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A stream with the number of its holders.
#[derive(Debug)]
struct Seat {
    stream: Arc<Stream>,
    /// INVARIANT: above 0 while the registry is unlocked.
    handles: usize,
}

impl Seat {
    fn new(limits: PartLimits) -> Self {
        Self { stream: Arc::new(Stream::new(limits)), handles: 0 }
    }
}

/// A writer's or reader's hold on a stream; the last one takes it out of the registry.
struct Handle {
    registry: Arc<Registry>,
    run: RunId,
    stream: Arc<Stream>,
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Handle").field(&self.run).finish()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        if let Entry::Occupied(mut seat) = self.registry.streams().entry(self.run) {
            seat.get_mut().handles -= 1;
            if seat.get().handles == 0 {
                seat.remove();
            }
        }
    }
}

/// Tells a run's writer from those it replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct WriterKey(u64);

/// The parts of one run and those who wait for them.
#[derive(Debug)]
struct Stream {
    state: Mutex<State>,
    published: Notify,
    meters: Meters,
}

#[derive(Debug)]
struct State {
    writer: WriterKey,
    ring: Ring,
}

impl Stream {
    fn new(limits: PartLimits) -> Self {
        let state = State { writer: WriterKey::default(), ring: Ring::new(limits.ring_bytes_max) };
        Self { state: Mutex::new(state), published: Notify::new(), meters: Meters::new() }
    }

    fn replace_writer(&self) -> WriterKey {
        let key = {
            let mut state = self.state();
            state.writer.0 += 1;
            state.writer
        };
        drop(self.write(key, Ring::end));
        key
    }

    /// Changes the ring for the writer `key`; nothing happens if another one replaced it.
    fn write<T: Default>(&self, key: WriterKey, write: impl FnOnce(&mut Ring) -> T) -> T {
        let mut state = self.state();
        if state.writer != key {
            return T::default();
        }
        let before = state.ring.bytes();
        let written = write(&mut state.ring);
        let after = state.ring.bytes();
        drop(state);
        self.meters.buffered_moved(before, after);
        written
    }

    fn read(&self, place: &mut Place) -> Option<PartEvent> {
        let event = self.state().ring.read(place);
        if matches!(event, Some(PartEvent::Resync { .. })) {
            self.meters.resyncs.increment(1);
        }
        event
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No step of a change panics halfway, so a ring is whole even if its lock is poisoned.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Handles of the metrics, found once a stream: looking one up takes a lock across runs.
struct Meters {
    readers: Gauge,
    buffered_bytes: Gauge,
    resyncs: Counter,
    parts: Counter,
}

impl Meters {
    fn new() -> Self {
        Self {
            readers: gauge!(STREAM_READERS.name),
            buffered_bytes: gauge!(STREAM_BUFFERED_BYTES.name),
            resyncs: counter!(STREAM_RESYNCS.name),
            parts: counter!(STREAM_PARTS.name),
        }
    }

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

#[cfg(test)]
mod tests;
