//! The newest parts of one step that fit into a number of bytes.

use std::collections::VecDeque;
use std::mem;

use bytes::Bytes;
use musterbeat_core::id::{Fence, Step};

use super::{PART_OVERHEAD_BYTES, PartEvent, PartId};

/// The parts of one step, the oldest evicted first.
#[derive(Debug)]
pub(super) struct Ring {
    bytes_max: usize,
    /// INVARIANT: what `parts` cost, never above `bytes_max`.
    bytes: usize,
    /// Grows with each step, so that readers tell even two steps of one name apart.
    epoch: u64,
    step: Option<(Fence, Step)>,
    /// INVARIANT: contiguous, beginning with `seq_first`; empty without a step.
    parts: VecDeque<Bytes>,
    seq_first: u64,
}

/// How far a reader has come.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Place {
    epoch: u64,
    seq_next: u64,
}

impl Ring {
    pub(super) const fn new(bytes_max: usize) -> Self {
        Self { bytes_max, bytes: 0, epoch: 0, step: None, parts: VecDeque::new(), seq_first: 1 }
    }

    /// Returns what the parts cost.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Begins a step, unless it is the present one, and returns the parts of the former one.
    pub(super) fn begin(&mut self, fence: Fence, step: Step) -> VecDeque<Bytes> {
        if self.step == Some((fence, step)) {
            return VecDeque::new();
        }
        let former = self.end();
        self.epoch += 1;
        self.step = Some((fence, step));
        former
    }

    /// Ends the step and returns its parts.
    pub(super) fn end(&mut self) -> VecDeque<Bytes> {
        self.step = None;
        self.drop_before(1)
    }

    /// Appends a part and evicts what no longer fits; false without a step.
    pub(super) fn push(&mut self, part: Bytes) -> bool {
        if self.step.is_none() {
            return false;
        }
        self.bytes += cost(&part);
        self.parts.push_back(part);
        while self.bytes_max < self.bytes
            && let Some(oldest) = self.parts.pop_front()
        {
            self.bytes -= cost(&oldest);
            self.seq_first += 1;
        }
        true
    }

    /// Moves on to `next`, the name of a part to come, and returns the parts that this drops.
    ///
    /// They are those of the former step, or those before a gap. `None` when `next` is not ahead:
    /// its part is known.
    pub(super) fn advance(&mut self, next: PartId) -> Option<VecDeque<Bytes>> {
        if self.step > Some((next.fence, next.step)) {
            return None;
        }
        let mut dropped = self.begin(next.fence, next.step);
        let known = self.seq_first + self.parts.len() as u64;
        if next.seq < known {
            return None;
        }
        if next.seq > known {
            dropped.append(&mut self.drop_before(next.seq));
        }
        Some(dropped)
    }

    /// Returns what follows `place` and moves it; `None` when there is nothing yet.
    pub(super) fn read(&self, place: &mut Place) -> Option<PartEvent> {
        let (fence, step) = self.step?;
        self.enter(place);
        if place.seq_next < self.seq_first {
            let missed = self.seq_first - place.seq_next;
            place.seq_next = self.seq_first;
            return Some(PartEvent::Resync { missed });
        }
        let seq = place.seq_next;
        let bytes = self.parts.get(usize::try_from(seq - self.seq_first).ok()?)?.clone();
        place.seq_next += 1;
        Some(PartEvent::Part { id: PartId { fence, step, seq }, bytes })
    }

    /// Moves `place` into the present step, and returns it if the place was not there yet.
    pub(super) fn enter(&self, place: &mut Place) -> Option<(Fence, Step)> {
        let step = self.step?;
        if place.epoch == self.epoch {
            return None;
        }
        *place = Place { epoch: self.epoch, seq_next: 1 };
        Some(step)
    }

    /// Returns the name of the part that `place` waits for.
    pub(super) fn awaited(&self, place: Place) -> Option<PartId> {
        let (fence, step) = self.step?;
        Some(PartId { fence, step, seq: place.seq_next })
    }

    fn drop_before(&mut self, seq: u64) -> VecDeque<Bytes> {
        self.bytes = 0;
        self.seq_first = seq;
        // Taken and not cleared: a buffer that one long answer grew is given back.
        mem::take(&mut self.parts)
    }
}

fn cost(part: &Bytes) -> usize {
    part.len() + PART_OVERHEAD_BYTES
}
