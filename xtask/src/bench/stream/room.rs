//! Chats whose parts are told to subscribers of this process, in each way.

use std::collections::HashMap;
use std::hint::black_box;
use std::sync::{Arc, Mutex, PoisonError};

use musterbeat_core::id::{Fence, RunId, Step};
use musterbeat_engine::parts::{
    PartEvent, PartId, PartLimits, PartReader, PartStreams, PartWriter,
};
use serde_json::json;
use tokio::sync::Notify;
use uuid::Uuid;

const FENCE: Fence = Fence(1);
const STEP: Step = Step(1);

/// How parts are kept and told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    /// One lock across all chats, or one a chat: the product's [`PartStreams`].
    pub(super) one_lock: bool,
    /// Encoded by each subscriber, or once.
    pub(super) encodes_each: bool,
}

/// The product's way.
pub(super) const OURS: Way = Way { one_lock: false, encodes_each: false };

/// Chats, each with its writer.
pub(super) enum Room {
    Naive(Arc<Naive>),
    Ours(PartStreams, Vec<PartWriter>),
}

/// The naive form: one lock over all chats, as the original's first version has it.
#[derive(Default)]
pub(super) struct Naive {
    encodes_each: bool,
    chats: Mutex<HashMap<RunId, NaiveChat>>,
}

#[derive(Default)]
struct NaiveChat {
    parts: Vec<Arc<[u8]>>,
    published: Arc<Notify>,
}

/// One who follows a chat.
pub(super) enum Reader {
    Naive { room: Arc<Naive>, run: RunId, published: Arc<Notify>, place: usize },
    Ours { reader: PartReader, encodes: bool },
}

/// What a subscriber learns.
pub(super) enum Told {
    /// A part, which takes so many bytes as it is sent.
    Part(usize),
    Missed(u64),
}

fn run(chat: usize) -> RunId {
    RunId::new(Uuid::from_u128(chat as u128 + 1))
}

impl Room {
    pub(super) fn open(way: Way, chats: usize) -> Self {
        if way.one_lock {
            let room = Naive { encodes_each: way.encodes_each, ..Naive::default() };
            let all = (0..chats).map(|chat| (run(chat), NaiveChat::default()));
            room.chats.lock().unwrap_or_else(PoisonError::into_inner).extend(all);
            return Self::Naive(Arc::new(room));
        }
        let encode = if way.encodes_each {
            |_: PartId, part: &[u8]| Some(part.to_vec())
        } else {
            |id: PartId, part: &[u8]| Some(frame(id, part))
        };
        let streams = PartStreams::new(PartLimits::default(), encode);
        let open = |chat| {
            let writer = streams.open(run(chat), FENCE);
            writer.begin(FENCE, STEP);
            writer
        };
        let writers = (0..chats).map(open).collect();
        Self::Ours(streams, writers)
    }

    pub(super) fn subscribe(&self, chat: usize, way: Way) -> Reader {
        let run = run(chat);
        match self {
            Self::Naive(room) => {
                let published = room.with(run, |chat| Arc::clone(&chat.published));
                Reader::Naive { room: Arc::clone(room), run, published, place: 0 }
            }
            Self::Ours(streams, _) => {
                Reader::Ours { reader: streams.subscribe(run), encodes: way.encodes_each }
            }
        }
    }

    pub(super) fn publish(&self, chat: usize, part: &[u8]) {
        match self {
            Self::Naive(room) => room.publish(run(chat), part),
            Self::Ours(_, writers) => writers[chat].publish(part),
        }
    }
}

impl Naive {
    fn publish(&self, run: RunId, part: &[u8]) {
        // Encoded without the lock: a chat has one writer.
        let seq = self.with(run, |chat| chat.parts.len() as u64 + 1);
        let id = PartId { fence: FENCE, step: STEP, seq };
        let kept = if self.encodes_each { part.into() } else { frame(id, part).into() };
        let published = self.with(run, |chat| {
            chat.parts.push(kept);
            Arc::clone(&chat.published)
        });
        published.notify_waiters();
    }

    fn with<T>(&self, run: RunId, work: impl FnOnce(&mut NaiveChat) -> T) -> T {
        let mut chats = self.chats.lock().unwrap_or_else(PoisonError::into_inner);
        work(chats.entry(run).or_default())
    }
}

impl Reader {
    /// Waits for what is told next.
    pub(super) async fn next(&mut self) -> Told {
        match self {
            Self::Naive { room, run, published, place } => loop {
                let told = published.notified();
                let part = room.with(*run, |chat| chat.parts.get(*place).cloned());
                if let Some(part) = part {
                    *place += 1;
                    let id = PartId { fence: FENCE, step: STEP, seq: *place as u64 };
                    return Told::Part(sent(id, &part, room.encodes_each));
                }
                told.await;
            },
            Self::Ours { reader, encodes } => match reader.next().await {
                PartEvent::Part { id, bytes } => Told::Part(sent(id, &bytes, *encodes)),
                PartEvent::Resync { missed } => Told::Missed(missed),
            },
        }
    }
}

/// Returns how many bytes are sent of a part.
fn sent(id: PartId, part: &[u8], encodes: bool) -> usize {
    if encodes { black_box(frame(id, part)).len() } else { black_box(part).len() }
}

/// Makes the frame of a part, as the server does.
fn frame(PartId { fence, step, seq }: PartId, part: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(part);
    let data = json!({
        "fence": fence.0, "step": step.0, "seq": seq, "part": { "type": "text", "text": text },
    });
    format!("event: part\ndata: {data}\n\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_way_tells_the_same() {
        for (one_lock, encodes_each) in [(true, true), (true, false), (false, true), (false, false)]
        {
            let way = Way { one_lock, encodes_each };
            let room = Room::open(way, 2);
            let mut reader = room.subscribe(1, way);
            room.publish(0, b"unheard");
            room.publish(1, b"heard");
            let Told::Part(bytes) = reader.next().await else { panic!("{way:?} misses a part") };
            let id = PartId { fence: FENCE, step: STEP, seq: 1 };
            assert_eq!(bytes, frame(id, b"heard").len());
        }
    }
}
