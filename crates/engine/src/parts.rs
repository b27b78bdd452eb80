//! Pieces of an answer as they come, for everyone who follows a run of this process.
//!
//! Each run has one ring of parts, bounded in bytes and shared by all its readers. A reader has a
//! place in it and no queue of its own, so the writer never waits, however slow a reader is:
//! one whose place was evicted is told how many parts it missed and goes on with the oldest kept.
//! A part is encoded once, when it is published, and readers share the bytes.
//!
//! A step's parts are there until the next step begins or the run ends, because what they said
//! is a stored message by then. The stored messages are the truth.
//!
//! A run has one writer: its owner, or a mirror of an owner elsewhere, which a [`PartTap`] there
//! feeds. The higher fence wins, and the owner wins over a mirror.
//!
//! There is one lock a run. The lock across runs is taken when a handle comes or goes only.

mod reader;
mod ring;
mod stream;
mod writer;

use std::collections::hash_map::{Entry, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use bytes::Bytes;
use musterbeat_core::id::{Fence, RunId, Step};

pub use self::reader::{PartReader, PartTap, TapEvent};
use self::stream::{Meters, Rank, Stream};
pub use self::writer::{PartMirror, PartWriter};

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

/// Makes of a published part what its readers are given; `None` when it is not for them.
pub type Encode = fn(PartId, &[u8]) -> Option<Vec<u8>>;

/// What a reader learns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PartEvent {
    /// The next part.
    Part {
        /// Its name.
        id: PartId,
        /// The part as it was encoded, shared with every other reader.
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
    /// Has no runs; what is published is kept as `encode` returns it.
    pub fn new(limits: PartLimits, encode: Encode) -> Self {
        Self(Arc::new(Registry { limits, encode, ..Registry::default() }))
    }

    /// Begins to write the parts of `run` as its owner under `fence`.
    ///
    /// It replaces an earlier writer of the run, whose parts are dropped and whose calls have
    /// no effect from here on; but under a lower fence than that writer's it is itself the one
    /// without effect.
    pub fn open(&self, run: RunId, fence: Fence) -> PartWriter {
        let handle = self.attach(run);
        let key = handle.stream.replace_writer(Rank::owner(fence));
        PartWriter::new(handle, key, self.0.encode)
    }

    /// Begins to repeat what the owner under `fence` writes in another process.
    ///
    /// `None` when a writer of a higher fence was seen, or the owner is here.
    pub fn mirror(&self, run: RunId, fence: Fence) -> Option<PartMirror> {
        let handle = self.attach(run);
        let key = handle.stream.replace_writer(Rank::mirror(fence))?;
        Some(PartMirror::new(handle, key))
    }

    /// Begins to read the parts of `run`, open or not, with the first part of its present step.
    pub fn subscribe(&self, run: RunId) -> PartReader {
        PartReader::new(self.attach(run))
    }

    /// Begins to read what the owner under `fence` writes, for a mirror elsewhere.
    ///
    /// `None` when that owner writes nothing in this process: not yet, or not any more. What a
    /// mirror writes is not read this way, so nothing is relayed twice.
    pub fn tap(&self, run: RunId, fence: Fence) -> Option<PartTap> {
        let handle = self.attached(run)?;
        let key = handle.stream.owner(fence)?;
        Some(PartTap::new(handle, key))
    }

    fn attach(&self, run: RunId) -> Handle {
        let mut streams = self.0.streams();
        let seat = streams.entry(run).or_insert_with(|| {
            // Not before the first stream: a recorder of metrics may be installed until then.
            let meters = self.0.meters.get_or_init(Arc::default);
            Seat::new(self.0.limits, Arc::clone(meters))
        });
        seat.taken(&self.0, run)
    }

    fn attached(&self, run: RunId) -> Option<Handle> {
        Some(self.0.streams().get_mut(&run)?.taken(&self.0, run))
    }
}

/// Who holds which stream.
#[derive(Debug)]
struct Registry {
    limits: PartLimits,
    encode: Encode,
    meters: OnceLock<Arc<Meters>>,
    streams: Mutex<HashMap<RunId, Seat>>,
}

impl Default for Registry {
    fn default() -> Self {
        let encode: Encode = |_, part| Some(part.to_vec());
        Self {
            limits: PartLimits::default(),
            encode,
            meters: OnceLock::new(),
            streams: Mutex::default(),
        }
    }
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
    fn new(limits: PartLimits, meters: Arc<Meters>) -> Self {
        Self { stream: Arc::new(Stream::new(limits, meters)), handles: 0 }
    }

    fn taken(&mut self, registry: &Arc<Registry>, run: RunId) -> Handle {
        self.handles += 1;
        Handle { registry: Arc::clone(registry), run, stream: Arc::clone(&self.stream) }
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

#[cfg(test)]
mod tests;
