//! What changed in a followed chat lately, encoded once for all who follow it here.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use musterbeat_core::chat::{self, Changes};
use musterbeat_core::id::Version;
use musterbeat_core::run::RunStatus;
use serde::Serialize;

use super::frame;
use crate::api::wire::{Chat, Message, Queued, Status};

/// Most that changes before the last one may cost.
///
/// Followers take a change within moments; who does not, because its client is slow, reads by
/// itself.
const EARLIER_BYTES_MAX: usize = 256 * 1024;

#[derive(Serialize)]
struct Snapshot<'a> {
    chat: &'a Chat,
    messages: &'a [Message],
    queue: &'a [Queued],
}

#[derive(Serialize)]
struct StatusEvent {
    status: Status,
    archived: bool,
    version: i64,
}

#[derive(Serialize)]
struct ErrorEvent<'a> {
    error: &'a str,
}

#[derive(Serialize)]
struct QueueEvent<'a> {
    queue: &'a [Queued],
}

/// How a chat stands, as events tell it.
#[derive(Debug)]
pub(super) struct Stand {
    told: Told,
    status: Bytes,
    error: Option<Bytes>,
    queue: Bytes,
}

/// What tells one stand from another; small, since each follower keeps what it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told {
    status: (RunStatus, bool),
    /// Hashes of what events said: that two of one chat are equal by chance, nobody lives to see.
    error: u64,
    queue: u64,
}

impl Stand {
    fn of(chat: &chat::Chat, queue: &[Queued]) -> Self {
        let (status, archived) = (chat.status, chat.archived);
        let told_status = StatusEvent { status: status.into(), archived, version: chat.version.0 };
        let error = chat.error.as_deref();
        let error = error.map(|error| frame::begun("error", &ErrorEvent { error }));
        let queue = frame::begun("queue", &QueueEvent { queue });
        let told = Told {
            status: (status, archived),
            error: frame::hash(&error),
            queue: frame::hash(&queue),
        };
        Self { told, status: frame::begun("status", &told_status), error, queue }
    }

    /// Returns what is to be told to one who was told `before`.
    pub(super) fn differing(&self, before: Option<Told>) -> impl Iterator<Item = Bytes> {
        let queue = before.is_none_or(|before| before.queue != self.told.queue);
        let error = before.is_none_or(|before| before.error != self.told.error);
        let status = before.is_none_or(|before| before.status != self.told.status);
        let error = if error { self.error.as_ref() } else { None };
        let queue = queue.then_some(&self.queue);
        let status = status.then_some(&self.status);
        [queue, error, status].into_iter().flatten().cloned()
    }

    /// Returns what one who was told all of it keeps.
    pub(super) fn told(&self) -> Told {
        self.told
    }

    /// Says whether the chat has nothing to do until somebody asks.
    pub(super) fn is_at_rest(&self) -> bool {
        self.told.status.0.is_at_rest()
    }

    fn bytes(&self) -> usize {
        let error = self.error.as_ref().map_or(0, Bytes::len);
        size_of::<Self>() + self.status.len() + self.queue.len() + error
    }
}

/// One read of a chat's changes, or a page of one.
#[derive(Debug)]
pub(super) struct Delta {
    messages: Vec<(Version, Bytes)>,
    /// Up to which version it tells everything.
    pub(super) reached: Version,
    /// Whether there is more already: how the chat stands is told with the last page.
    pub(super) is_page: bool,
    pub(super) stand: Stand,
}

impl Delta {
    /// Encodes what changed.
    pub(super) fn of(changes: Changes) -> Self {
        let is_page = changes.reached < changes.chat.version;
        let queue: Vec<Queued> = changes.queue.into_iter().map(Queued::from).collect();
        let messages = changes.messages.into_iter().map(|message| {
            let version = message.version;
            (version, frame::begun("message", &Message::from(message)))
        });
        Self {
            messages: messages.collect(),
            reached: changes.reached,
            is_page,
            stand: Stand::of(&changes.chat, &queue),
        }
    }

    /// Encodes everything as one event, and returns it with the rest of the read.
    pub(super) fn with_snapshot(changes: Changes) -> (Bytes, Self) {
        let is_page = changes.reached < changes.chat.version;
        let queue: Vec<Queued> = changes.queue.into_iter().map(Queued::from).collect();
        let stand = Stand::of(&changes.chat, &queue);
        let chat = Chat::from(changes.chat);
        let messages: Vec<_> = changes.messages.into_iter().map(Message::from).collect();
        let snapshot = Snapshot { chat: &chat, messages: &messages, queue: &queue };
        let snapshot = frame::begun("snapshot", &snapshot);
        (snapshot, Self { messages: vec![], reached: changes.reached, is_page, stand })
    }

    /// Returns the messages that changed after `version`.
    pub(super) fn messages_after(&self, version: Option<Version>) -> impl Iterator<Item = Bytes> {
        let newer = self.messages.iter().filter(move |(changed, _)| version < Some(*changed));
        newer.map(|(_, frame)| frame.clone())
    }

    fn bytes(&self) -> usize {
        let messages =
            self.messages.iter().map(|(_, frame)| size_of::<(Version, Bytes)>() + frame.len());
        size_of::<Self>() + messages.sum::<usize>() + self.stand.bytes()
    }
}

/// The last changes of a chat, the oldest first.
#[derive(Debug)]
pub(super) struct Log {
    /// INVARIANT: each begins where the one before it ended, the first with `covered_from`.
    deltas: VecDeque<Arc<Delta>>,
    /// INVARIANT: what all deltas but the last cost, at most [`EARLIER_BYTES_MAX`].
    earlier_bytes: usize,
    covered_from: Version,
    reached: Version,
}

/// What one at some version finds in a log.
#[derive(Debug)]
pub(super) enum Found {
    /// There is nothing newer.
    Nothing,
    /// What comes next.
    Next(Arc<Delta>),
    /// The log begins later.
    TooLate,
}

impl Log {
    /// Has no changes, and is to hold those after `version`.
    pub(super) fn after(version: Version) -> Self {
        Self { deltas: VecDeque::new(), earlier_bytes: 0, covered_from: version, reached: version }
    }

    /// Returns up to which version changes were read.
    pub(super) fn reached(&self) -> Version {
        self.reached
    }

    /// Adds what was read after [`reached`](Self::reached), and forgets what is too much.
    pub(super) fn push(&mut self, delta: Arc<Delta>) {
        self.earlier_bytes += self.deltas.back().map_or(0, |last| last.bytes());
        self.reached = delta.reached;
        self.deltas.push_back(delta);
        while self.earlier_bytes > EARLIER_BYTES_MAX
            && let Some(oldest) = self.deltas.pop_front()
        {
            self.earlier_bytes -= oldest.bytes();
            self.covered_from = oldest.reached;
        }
    }

    /// Forgets all changes: whoever follows has had the time to take them.
    pub(super) fn clear(&mut self) {
        *self = Self::after(self.reached);
    }

    /// Returns what one who has everything up to `version` is to be told next.
    pub(super) fn find(&self, version: Version) -> Found {
        if version < self.covered_from {
            return Found::TooLate;
        }
        let next = self.deltas.partition_point(|delta| delta.reached <= version);
        self.deltas.get(next).map_or(Found::Nothing, |delta| Found::Next(Arc::clone(delta)))
    }
}

#[cfg(test)]
mod tests;
