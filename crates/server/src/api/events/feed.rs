//! What one follower of a chat is sent, and when.

use std::collections::{BTreeSet, VecDeque};

use axum::response::sse::Event;
use musterbeat_core::chat::Changes;
use musterbeat_core::id::{ChatId, Version};
use musterbeat_core::port::{Interest, Reach, StoreError, Topic, Watcher};
use musterbeat_engine::parts::{PartEvent, PartReader};
use serde::Serialize;
use serde_json::value::RawValue;

use super::Until;
use crate::api::wire::{Chat, Message, Queued, Status};
use crate::app::App;
use crate::http::problem::{Kind, Problem};

/// One follower.
///
/// It subscribes, then reads, then compares versions: what changes in between leads to a notice,
/// and what it already has is passed over.
pub(super) struct Feed {
    app: App,
    reach: Reach,
    chat: ChatId,
    until: Until,
    changes: Box<dyn Watcher>,
    parts: PartReader,
    /// INVARIANT: everything up to it was sent or is in `ready`.
    seen: Option<Seen>,
    ready: VecDeque<Event>,
    ended: bool,
}

/// What the follower was told last.
struct Seen {
    version: Version,
    status: Status,
    queue: Vec<Queued>,
}

#[derive(Serialize)]
struct Snapshot<'a> {
    chat: &'a Chat,
    messages: Vec<Message>,
    queue: &'a [Queued],
}

#[derive(Serialize)]
struct StatusEvent {
    status: Status,
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

enum Wake {
    Changed,
    Part(PartEvent),
    End,
}

impl Feed {
    pub(super) async fn open(
        app: App,
        reach: Reach,
        chat: ChatId,
        since: Option<Version>,
        until: Until,
    ) -> Result<Self, Problem> {
        let interest = Interest::Ids(BTreeSet::from([chat.uuid()]));
        let changes = app.watch.watch(Topic::Chat, interest).await.map_err(|error| {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "a chat could not be watched"
            );
            Problem::new(Kind::Unavailable, "changes cannot be watched for now")
        })?;
        let parts = app.parts.subscribe(chat.into());
        let ready = VecDeque::new();
        let mut feed =
            Self { app, reach, chat, until, changes, parts, seen: None, ready, ended: false };
        if !feed.read(since).await? {
            return Err(Problem::not_found());
        }
        Ok(feed)
    }

    /// Returns the next event, `None` at the end of the stream.
    pub(super) async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            if self.ended {
                return None;
            }
            let wake = tokio::select! {
                biased;
                () = self.app.streams_end.cancelled() => Wake::End,
                // Before changes: the pieces of an answer come before the answer.
                part = self.parts.next() => Wake::Part(part),
                _ = self.changes.recv() => Wake::Changed,
            };
            match wake {
                Wake::Part(part) => self.ready.extend(described(part)),
                Wake::Changed => self.follow().await,
                Wake::End => {
                    // The last turn may have ended with the server: it is told before the stream is.
                    self.follow().await;
                    self.ended = true;
                }
            }
        }
    }

    /// Reads what changed; a follower that cannot be served is let go, to come back later.
    async fn follow(&mut self) {
        let since = self.seen.as_ref().map(|seen| seen.version);
        match self.read(since).await {
            Ok(there) => self.ended |= !there,
            Err(error) => {
                tracing::warn!(
                    chat.id = %self.chat,
                    error = &error as &dyn std::error::Error,
                    "a follower is let go, since its chat cannot be read"
                );
                self.ended = true;
            }
        }
    }

    /// Queues what changed since a version; false when the chat is not there.
    async fn read(&mut self, mut since: Option<Version>) -> Result<bool, StoreError> {
        loop {
            let read = self.app.chat_store.changes(self.chat, self.reach, since).await?;
            let Some(changes) = read else { return Ok(false) };
            let (reached, current) = (changes.reached, changes.chat.version);
            self.tell(since, changes);
            if reached >= current {
                return Ok(true);
            }
            since = Some(reached);
        }
    }

    fn tell(&mut self, since: Option<Version>, changes: Changes) {
        let Changes { chat, messages, queue, reset, reached } = changes;
        let chat = Chat::from(chat);
        let whole = reached >= Version(chat.version());
        let mut messages: Vec<Message> = messages.into_iter().map(Message::from).collect();
        let queue: Vec<Queued> = queue.into_iter().map(Queued::from).collect();
        let mut told = Vec::new();
        if reset {
            told.push(("history_reset", "{}".to_owned()));
        }
        if since.is_none() || reset {
            let messages = std::mem::take(&mut messages);
            told.push(("snapshot", json(&Snapshot { chat: &chat, messages, queue: &queue })));
            self.seen = Some(Seen { version: reached, status: chat.status(), queue });
        } else {
            told.extend(messages.iter().map(|message| ("message", json(message))));
            if whole {
                told.extend(self.tell_state(&chat, queue));
            }
        }
        if whole {
            self.ended |= self.until == Until::Rest && chat.is_at_rest();
        }
        if let Some(seen) = &mut self.seen {
            seen.version = reached;
        }
        self.ready.extend(numbered(told, reached));
    }

    /// Tells queue, status and error where they differ from what was told last.
    fn tell_state(&mut self, chat: &Chat, queue: Vec<Queued>) -> Vec<(&'static str, String)> {
        let mut told = Vec::new();
        let seen = self.seen.as_ref();
        if seen.is_none_or(|seen| seen.queue != queue) {
            told.push(("queue", json(&QueueEvent { queue: &queue })));
        }
        if seen.is_none_or(|seen| seen.status != chat.status()) {
            if let Some(error) = chat.error() {
                told.push(("error", json(&ErrorEvent { error })));
            }
            let status = StatusEvent { status: chat.status(), version: chat.version() };
            told.push(("status", json(&status)));
        }
        self.seen = Some(Seen { version: Version(chat.version()), status: chat.status(), queue });
        told
    }
}

/// Makes events of what is told; only the last carries the version.
///
/// A client that is cut off in between then asks again from the version before.
fn numbered(told: Vec<(&'static str, String)>, version: Version) -> Vec<Event> {
    let last = told.len().saturating_sub(1);
    let events = told.into_iter().enumerate().map(|(index, (name, data))| {
        let event = Event::default().event(name).data(data);
        if index == last { event.id(version.to_string()) } else { event }
    });
    events.collect()
}

fn described(part: PartEvent) -> Option<Event> {
    let (name, data) = match part {
        PartEvent::Part { id, bytes } => {
            // A runner of one's own may publish what is not JSON: it is not for this stream.
            let part: &RawValue = serde_json::from_slice(&bytes).ok()?;
            let (fence, step) = (id.fence.0, id.step.0);
            ("part", json(&PartWire { fence, step, seq: id.seq, part }))
        }
        PartEvent::Resync { missed } => ("resync", json(&Resync { missed })),
    };
    Some(Event::default().event(name).data(data))
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("an event has no keys that JSON lacks")
}
