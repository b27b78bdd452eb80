//! Who writes the parts of a run: its owner, or a mirror of it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use musterbeat_core::id::{Fence, Step};

use super::stream::WriterKey;
use super::{Encode, Handle, PartId};

/// Writes the parts of one run; dropping it ends them and drops what is kept.
///
/// No method waits for a reader.
#[derive(Debug)]
pub struct PartWriter {
    /// `None` when a writer of a higher fence was there before.
    seat: Option<WriterSeat>,
    encode: Encode,
    /// The name of the next part. Readers never take this lock, so none waits for an encoding.
    next: Mutex<Option<PartId>>,
}

impl PartWriter {
    pub(super) fn new(handle: Handle, key: Option<WriterKey>, encode: Encode) -> Self {
        let seat = key.map(|key| WriterSeat { handle, key });
        Self { seat, encode, next: Mutex::new(None) }
    }

    /// Begins a step: the parts of the former one are dropped and `seq` starts again.
    ///
    /// Readers move to the new step without a word about what they had not read of the old one.
    /// Beginning the present step again changes nothing.
    pub fn begin(&self, fence: Fence, step: Step) {
        let Some(seat) = &self.seat else { return };
        let mut next = self.next();
        if next.is_some_and(|next| (next.fence, next.step) == (fence, step)) {
            return;
        }
        *next = Some(PartId { fence, step, seq: 1 });
        seat.begin(fence, step);
    }

    /// Encodes a part and appends it to the present step; before the first
    /// [`begin`](Self::begin) it has no name and is dropped.
    ///
    /// A part that alone is larger than the ring is not kept, and neither is any before it.
    pub fn publish(&self, part: &[u8]) {
        let Some(seat) = &self.seat else { return };
        let stream = &seat.handle.stream;
        let mut next = self.next();
        let Some(id) = &mut *next else { return };
        let Some(encoded) = (self.encode)(*id, part) else {
            stream.meters.refused.increment(1);
            return;
        };
        // Boxing gives back what the encoding reserved: the bound is on memory, not on text.
        let encoded = Bytes::from(encoded.into_boxed_slice());
        if stream.write(seat.key, |ring| ring.push(encoded)) {
            id.seq += 1;
            drop(next);
            stream.meters.parts.increment(1);
            stream.moved.notify_waiters();
        }
    }

    fn next(&self) -> MutexGuard<'_, Option<PartId>> {
        // A panic of `encode` leaves the name of the part that is still to come.
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Repeats the parts of an owner in another process; dropping it ends them.
///
/// What it is given is encoded already and bears its names, so it may begin in the middle of a
/// step, and again after a break: readers get each part once, and word of those that are missing.
#[derive(Debug)]
pub struct PartMirror {
    seat: WriterSeat,
}

impl PartMirror {
    pub(super) fn new(handle: Handle, key: WriterKey) -> Self {
        Self { seat: WriterSeat { handle, key } }
    }

    /// Begins a step, unless it is the present one: the parts of the former are dropped.
    pub fn begin(&self, fence: Fence, step: Step) {
        self.seat.begin(fence, step);
    }

    /// Appends a part, unless it is known; parts between the last one and this are missed.
    pub fn put(&self, id: PartId, encoded: Bytes) {
        let stream = &self.seat.handle.stream;
        let put = stream.write(self.seat.key, |ring| {
            let dropped = ring.advance(id)?;
            ring.push(encoded);
            Some(dropped)
        });
        if put.is_some() {
            stream.moved.notify_waiters();
        }
    }

    /// Gives up the parts before `next`: readers who have not read them have missed them.
    pub fn skip_to(&self, next: PartId) {
        let stream = &self.seat.handle.stream;
        if stream.write(self.seat.key, |ring| ring.advance(next)).is_some() {
            stream.moved.notify_waiters();
        }
    }
}

/// A writer's hold on a stream.
#[derive(Debug)]
struct WriterSeat {
    handle: Handle,
    key: WriterKey,
}

impl WriterSeat {
    fn begin(&self, fence: Fence, step: Step) {
        // The parts are freed after the lock is released.
        drop(self.handle.stream.write(self.key, |ring| ring.begin(fence, step)));
        self.handle.stream.moved.notify_waiters();
    }
}

impl Drop for WriterSeat {
    fn drop(&mut self) {
        self.handle.stream.end_writer(self.key);
    }
}
