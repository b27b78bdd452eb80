//! Who reads the parts of a run: a follower here, or a mirror elsewhere.

use bytes::Bytes;
use musterbeat_core::id::{Fence, Step};

use super::ring::Place;
use super::stream::WriterKey;
use super::{Handle, PartEvent, PartId};

/// Reads the parts of one run, across its steps and owners; it never ends.
#[derive(Debug)]
pub struct PartReader {
    handle: Handle,
    place: Place,
}

impl PartReader {
    pub(super) fn new(handle: Handle) -> Self {
        handle.stream.meters.readers.increment(1);
        Self { handle, place: Place::default() }
    }

    /// Waits for the next part, or for word of missed ones.
    ///
    /// Dropping the future loses nothing: the place moves in the step that returns the part.
    pub async fn next(&mut self) -> PartEvent {
        loop {
            // Before the look, so that a part published in between ends the wait.
            let moved = self.handle.stream.moved.notified();
            if let Some(event) = self.handle.stream.read(&mut self.place) {
                return event;
            }
            moved.await;
        }
    }

    /// Returns the next part, or word of missed ones, if there is one already.
    pub fn try_next(&mut self) -> Option<PartEvent> {
        self.handle.stream.read(&mut self.place)
    }
}

impl Drop for PartReader {
    fn drop(&mut self) {
        self.handle.stream.meters.readers.decrement(1);
    }
}

/// What a mirror of a run's parts is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TapEvent {
    /// A step began.
    Begin {
        /// The owner's fence.
        fence: Fence,
        /// Which step.
        step: Step,
    },
    /// The next part.
    Part {
        /// Its name.
        id: PartId,
        /// The part as it was encoded.
        bytes: Bytes,
    },
    /// The parts before `next` were read too late or not at all.
    Resync {
        /// The part to go on with.
        next: PartId,
    },
    /// The writer has ended, or another one replaced it; nothing follows.
    End,
}

/// Reads what one owner writes, for a mirror of it.
#[derive(Debug)]
pub struct PartTap {
    handle: Handle,
    key: WriterKey,
    place: Place,
}

impl PartTap {
    pub(super) fn new(handle: Handle, key: WriterKey) -> Self {
        Self { handle, key, place: Place::default() }
    }

    /// Waits for what the mirror is to be told next; at the end it returns the end again.
    ///
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> TapEvent {
        loop {
            let moved = self.handle.stream.moved.notified();
            if let Some(event) = self.handle.stream.tap(self.key, &mut self.place) {
                return event;
            }
            moved.await;
        }
    }
}
