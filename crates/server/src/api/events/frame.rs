//! Frames of server-sent events, made once and shared by all who are sent them.

use std::fmt::Display;
use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;
use musterbeat_engine::parts::PartId;
use serde::Serialize;
use serde_json::value::RawValue;

/// Ends a frame that carries no id.
const END: Bytes = Bytes::from_static(b"\n");

/// What a quiet stream sends.
pub(in crate::api) const PING: Bytes = Bytes::from_static(b"event: ping\ndata: {}\n\n");

/// Tells that a snapshot follows, since the history was replaced.
pub(super) const HISTORY_RESET: Bytes = Bytes::from_static(b"event: history_reset\ndata: {}\n");

#[derive(Serialize)]
struct PartWire<'a> {
    fence: i64,
    step: i64,
    seq: u64,
    part: &'a RawValue,
}

#[derive(Serialize)]
struct Resync {
    missed: u64,
}

/// Makes a frame without its end, so that it can be shared by those with and without an id.
pub(in crate::api) fn begun(name: &str, data: &impl Serialize) -> Bytes {
    let frame = format!("event: {name}\ndata: {}\n", json(data)).into_bytes();
    // Boxing gives back what the vector reserved.
    Bytes::from(frame.into_boxed_slice())
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("an event has no keys that JSON lacks")
}

/// Hashes what was told, for those who only have to know whether it is the same.
pub(in crate::api) fn hash(told: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    told.hash(&mut hasher);
    hasher.finish()
}

/// Ends frames that were begun; only the last carries the id of what they tell together.
///
/// A client that is cut off in between then asks again from the id before.
pub(in crate::api) fn ended(begun: Vec<Bytes>, id: impl Display) -> impl Iterator<Item = Bytes> {
    let last = begun.len().saturating_sub(1);
    let end = Bytes::from(format!("id: {id}\n\n"));
    let ends = move |index| if index == last { end.clone() } else { END };
    begun.into_iter().enumerate().flat_map(move |(index, frame)| [frame, ends(index)])
}

/// Makes a whole frame without an id.
pub(in crate::api) fn whole(name: &str, data: &impl Serialize) -> Bytes {
    let frame = format!("event: {name}\ndata: {}\n\n", json(data)).into_bytes();
    Bytes::from(frame.into_boxed_slice())
}

/// Tells that pieces were missed.
pub(super) fn resync(missed: u64) -> Bytes {
    whole("resync", &Resync { missed })
}

/// Makes the whole frame of a piece; `None` when it is not JSON, and so not for this stream.
pub(crate) fn part(id: PartId, part: &[u8]) -> Option<Vec<u8>> {
    let part: &RawValue = serde_json::from_slice(part).ok()?;
    let wire = PartWire { fence: id.fence.0, step: id.step.0, seq: id.seq, part };
    let mut frame = b"event: part\ndata: ".to_vec();
    let data = frame.len();
    serde_json::to_writer(&mut frame, &wire).ok()?;
    // Between the tokens of a piece there may be line ends, and only there; a frame is cut at them.
    for byte in &mut frame[data..] {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
    frame.extend_from_slice(b"\n\n");
    Some(frame)
}

#[cfg(test)]
mod tests {
    use musterbeat_core::id::{Fence, Step};

    use super::*;

    const ID: PartId = PartId { fence: Fence(3), step: Step(1), seq: 7 };

    fn framed(text: &str) -> Option<String> {
        part(ID, text.as_bytes()).map(|frame| String::from_utf8(frame).unwrap())
    }

    #[test]
    fn piece_is_one_frame() {
        let frame =
            "event: part\ndata: {\"fence\":3,\"step\":1,\"seq\":7,\"part\":{\"a\": [1]}}\n\n";
        assert_eq!(framed("{\"a\": [1]}").unwrap(), frame);
    }

    #[test]
    fn piece_on_several_lines_does_not_break_its_frame() {
        let frame = framed("{\r\n  \"a\":\n\"b\\nc\"\r}").unwrap();
        assert_eq!(frame.lines().count(), 3, "{frame:?}");
        assert!(frame.contains("\"part\":{    \"a\": \"b\\nc\" }"), "{frame:?}");
    }

    #[test]
    fn piece_that_is_not_json_has_no_frame() {
        assert_eq!(framed("hello"), None);
        assert_eq!(framed(""), None);
    }

    #[test]
    fn only_the_last_of_several_frames_carries_their_id() {
        let frames = vec![begun("message", &[1, 2]), begun("queue", &[3])];
        let frames: Vec<_> = ended(frames, 5).collect();
        let text = "event: message\ndata: [1,2]\n\nevent: queue\ndata: [3]\nid: 5\n\n";
        assert_eq!(frames.concat(), text.as_bytes());
        assert_eq!(ended(vec![], 5).count(), 0);
        assert_eq!(resync(4), "event: resync\ndata: {\"missed\":4}\n\n");
    }
}
