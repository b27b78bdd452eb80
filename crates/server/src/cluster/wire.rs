//! How a replica tells another the parts of a run: frames with a head of fixed size.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use musterbeat_core::id::{Fence, Step};
use musterbeat_engine::parts::{PartId, RING_BYTES_MAX, TapEvent};

/// What the stream of frames is called.
pub(super) const MEDIA_TYPE: &str = "application/vnd.musterbeat.parts.v1";

/// Bytes of a head: kind, fence, step, seq, length.
const HEAD_BYTES: usize = 1 + 8 + 8 + 8 + 4;

const ALIVE: u8 = 0;
const BEGIN: u8 = 1;
const PART: u8 = 2;
const RESYNC: u8 = 3;
const END: u8 = 4;

/// What a frame says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// There was nothing to say for a while.
    Alive,
    /// Something of the parts.
    Tap(TapEvent),
}

/// The bytes are not frames of this version.
#[derive(Debug, thiserror::Error)]
#[error("the other replica sends what is no part: kind {kind}, {length} bytes")]
pub(super) struct WireError {
    kind: u8,
    length: u32,
}

/// Encodes a frame as its head and its parts' bytes, which are shared.
pub(super) fn encode(told: Told) -> (Bytes, Option<Bytes>) {
    let nothing = PartId { fence: Fence(0), step: Step(0), seq: 0 };
    match told {
        Told::Alive => (head(ALIVE, nothing, 0), None),
        Told::Tap(TapEvent::Begin { fence, step }) => {
            (head(BEGIN, PartId { fence, step, seq: 0 }, 0), None)
        }
        Told::Tap(TapEvent::Part { id, bytes }) => (head(PART, id, bytes.len()), Some(bytes)),
        Told::Tap(TapEvent::Resync { next }) => (head(RESYNC, next, 0), None),
        Told::Tap(TapEvent::End) => (head(END, nothing, 0), None),
    }
}

fn head(kind: u8, id: PartId, length: usize) -> Bytes {
    let mut head = BytesMut::with_capacity(HEAD_BYTES);
    head.put_u8(kind);
    head.put_i64(id.fence.0);
    head.put_i64(id.step.0);
    head.put_u64(id.seq);
    // A part that is larger than its ring is not kept, so it is never told.
    head.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    head.freeze()
}

/// Puts frames together again from bytes that come in pieces of any size.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    bytes: BytesMut,
}

impl Decoder {
    /// Takes more bytes.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Returns the next whole frame, `None` until there is one.
    pub(super) fn next(&mut self) -> Result<Option<Told>, WireError> {
        if self.bytes.len() < HEAD_BYTES {
            return Ok(None);
        }
        let mut head = &self.bytes[..HEAD_BYTES];
        let kind = head.get_u8();
        let (fence, step) = (Fence(head.get_i64()), Step(head.get_i64()));
        let id = PartId { fence, step, seq: head.get_u64() };
        let length = head.get_u32();
        let whole = HEAD_BYTES + length as usize;
        let told = match kind {
            ALIVE => Told::Alive,
            BEGIN => Told::Tap(TapEvent::Begin { fence, step }),
            PART if length as usize <= RING_BYTES_MAX => {
                if self.bytes.len() < whole {
                    return Ok(None);
                }
                // Copied: a part must not hold the whole piece that it came in.
                let bytes = Bytes::copy_from_slice(&self.bytes[HEAD_BYTES..whole]);
                self.bytes.advance(whole);
                return Ok(Some(Told::Tap(TapEvent::Part { id, bytes })));
            }
            RESYNC => Told::Tap(TapEvent::Resync { next: id }),
            END => Told::Tap(TapEvent::End),
            _ => return Err(WireError { kind, length }),
        };
        self.bytes.advance(HEAD_BYTES);
        Ok(Some(told))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(seq: u64) -> PartId {
        PartId { fence: Fence(i64::MAX), step: Step(3), seq }
    }

    fn all() -> Vec<Told> {
        let part = |seq, bytes| Told::Tap(TapEvent::Part { id: id(seq), bytes });
        vec![
            Told::Tap(TapEvent::Begin { fence: Fence(1), step: Step(0) }),
            part(1, Bytes::from_static(b"event: part\n\n")),
            Told::Alive,
            Told::Tap(TapEvent::Resync { next: id(9) }),
            part(9, Bytes::new()),
            Told::Tap(TapEvent::End),
        ]
    }

    #[test]
    fn frames_come_out_as_they_went_in_however_they_are_cut() {
        let mut wire = Vec::new();
        for told in all() {
            let (head, bytes) = encode(told);
            wire.extend_from_slice(&head);
            wire.extend_from_slice(&bytes.unwrap_or_default());
        }
        for piece in [1, 2, 7, HEAD_BYTES, wire.len()] {
            let mut decoder = Decoder::default();
            let mut told = Vec::new();
            for bytes in wire.chunks(piece) {
                decoder.feed(bytes);
                while let Some(frame) = decoder.next().unwrap() {
                    told.push(frame);
                }
            }
            assert_eq!(told, all(), "in pieces of {piece} bytes");
        }
    }

    #[test]
    fn frames_of_another_kind_or_without_bound_are_refused() {
        for head in [head(9, id(1), 0), head(PART, id(1), RING_BYTES_MAX + 1)] {
            let mut decoder = Decoder::default();
            decoder.feed(&head);
            assert!(decoder.next().is_err());
        }
    }
}
