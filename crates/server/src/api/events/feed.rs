//! What one follower of a chat is sent, and when.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use axum::response::sse::Event;
use futures_util::FutureExt;
use musterbeat_core::chat::Changes;
use musterbeat_core::id::{ChatId, Version};
use musterbeat_core::port::{Interest, StoreError, Topic, Watch, Watcher};
use musterbeat_engine::parts::{PartEvent, PartReader};
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use super::Until;
use crate::api::wire::{Chat, Message, Queued, Status};
use crate::app::App;
use crate::http::problem::{Kind, Problem};
use crate::identity::Caller;

/// Longest wait before a follower looks for changes, whatever notices say; a half at least.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);

/// Pieces sent in a row before changes are looked at: a runner may be faster than a follower.
const PARTS_IN_ROW_MAX: u32 = 64;

/// One follower.
///
/// It subscribes, then reads, then compares versions: what changes in between leads to a notice,
/// and what it already has is passed over.
pub(super) struct Feed {
    app: App,
    caller: Caller,
    chat: ChatId,
    until: Until,
    changes: Box<dyn Watcher>,
    look_at: Instant,
    revoked: Option<Box<dyn Watcher>>,
    parts: PartReader,
    parts_in_row: u32,
    /// INVARIANT: everything up to it was sent or is in `ready`.
    version: Option<Version>,
    seen: Option<Seen>,
    /// One page at most, and the pieces before it: the next is read when this is empty.
    ready: VecDeque<Event>,
    /// Whether there is a next page already.
    behind: bool,
    ended: bool,
}

/// What the follower was told last.
struct Seen {
    status: Status,
    error: Option<String>,
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
    Revoked,
    End,
}

impl Feed {
    pub(super) async fn open(
        app: App,
        caller: Caller,
        chat: ChatId,
        since: Option<Version>,
        until: Until,
    ) -> Result<Self, Problem> {
        let changes = watch(&*app.watch, Topic::Chat, chat.uuid()).await?;
        let revoked = match caller.token {
            Some(token) => Some(watch(&*app.watch, Topic::Token, token.uuid()).await?),
            None => None,
        };
        let parts = app.parts.subscribe(chat.into());
        let mut feed = Self {
            app,
            caller,
            chat,
            until,
            changes,
            look_at: next_look(),
            revoked,
            parts,
            parts_in_row: 0,
            version: since,
            seen: None,
            ready: VecDeque::new(),
            behind: false,
            ended: false,
        };
        // Again, since it may have been revoked before its watch began.
        if !is_still_welcome(&feed.app, feed.caller).await? {
            return Err(Problem::token_unknown());
        }
        if !feed.read().await? {
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
            if self.behind || self.owes_a_look() {
                self.follow().await;
                continue;
            }
            match self.wake().await {
                Wake::Part(part) => self.ready.extend(described(part)),
                Wake::Changed => self.follow().await,
                // When storage does not answer, the client comes back and is asked again.
                Wake::Revoked => {
                    self.ended |= !is_still_welcome(&self.app, self.caller).await.unwrap_or(false)
                }
                Wake::End => {
                    // The last turn may have ended with the server: it is told before the stream is.
                    self.follow().await;
                    self.ended = true;
                }
            }
        }
    }

    async fn wake(&mut self) -> Wake {
        let wake = tokio::select! {
            biased;
            () = self.app.streams_end.cancelled() => Wake::End,
            () = notified(&mut self.revoked) => Wake::Revoked,
            // Before changes: the pieces of an answer come before the answer.
            part = self.parts.next() => Wake::Part(part),
            _ = self.changes.recv() => Wake::Changed,
            () = sleep_until(self.look_at) => Wake::Changed,
        };
        self.parts_in_row = if matches!(wake, Wake::Part(_)) { self.parts_in_row + 1 } else { 0 };
        wake
    }

    /// Queues the pieces that are there: what was just read may hold the answer that they led to.
    fn take_parts(&mut self) {
        for _ in 0..PARTS_IN_ROW_MAX {
            let Some(part) = self.parts.next().now_or_never() else { return };
            self.ready.extend(described(part));
        }
    }

    /// Says whether changes wait behind pieces that do not end.
    fn owes_a_look(&mut self) -> bool {
        if self.parts_in_row < PARTS_IN_ROW_MAX {
            return false;
        }
        self.parts_in_row = 0;
        self.changes.recv().now_or_never().is_some()
    }

    /// Reads what changed; a follower that cannot be served is let go, to come back later.
    async fn follow(&mut self) {
        match self.read().await {
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

    /// Queues a page of what changed; false when the chat is not there.
    async fn read(&mut self) -> Result<bool, StoreError> {
        self.look_at = next_look();
        let reach = self.caller.reach();
        let read = self.app.chat_reader.changes(self.chat, reach, self.version).await?;
        let Some(changes) = read else { return Ok(false) };
        self.behind = changes.reached < changes.chat.version;
        // A follower begins with the snapshot.
        if self.seen.is_some() {
            self.take_parts();
        }
        self.tell(changes);
        Ok(true)
    }

    fn tell(&mut self, changes: Changes) {
        let Changes { chat, messages, queue, reset, reached, .. } = changes;
        let chat = Chat::from(chat);
        let messages: Vec<Message> = messages.into_iter().map(Message::from).collect();
        let queue: Vec<Queued> = queue.into_iter().map(Queued::from).collect();
        let mut told = Vec::new();
        if reset {
            told.push(("history_reset", "{}".to_owned()));
        }
        if self.version.is_none() || reset {
            told.push(("snapshot", json(&Snapshot { chat: &chat, messages, queue: &queue })));
            self.seen = Some(Seen::of(&chat, queue));
        } else {
            told.extend(messages.iter().map(|message| ("message", json(message))));
            if !self.behind {
                told.extend(self.tell_state(&chat, queue));
            }
        }
        self.ended |= !self.behind && self.until == Until::Rest && chat.is_at_rest();
        self.version = Some(reached);
        self.ready.extend(numbered(told, reached));
    }

    /// Tells queue, status and error where they differ from what was told last.
    fn tell_state(&mut self, chat: &Chat, queue: Vec<Queued>) -> Vec<(&'static str, String)> {
        let now = Seen::of(chat, queue);
        let mut told = Vec::new();
        let seen = self.seen.as_ref();
        if seen.is_none_or(|seen| seen.queue != now.queue) {
            told.push(("queue", json(&QueueEvent { queue: &now.queue })));
        }
        if let Some(error) = &now.error
            && seen.is_none_or(|seen| seen.error.as_ref() != Some(error))
        {
            told.push(("error", json(&ErrorEvent { error })));
        }
        if seen.is_none_or(|seen| seen.status != now.status) {
            let status = StatusEvent { status: now.status, version: chat.version() };
            told.push(("status", json(&status)));
        }
        self.seen = Some(now);
        told
    }
}

impl Seen {
    fn of(chat: &Chat, queue: Vec<Queued>) -> Self {
        let error = chat.error().map(str::to_owned);
        Self { status: chat.status(), error, queue }
    }
}

/// Spread evenly, so that followers who came together do not look together.
pub(in crate::api) fn next_look() -> Instant {
    Instant::now() + LOOK_INTERVAL.mul_f64(0.5 + rand::random::<f64>() / 2.0)
}

pub(in crate::api) async fn watch(
    watch: &dyn Watch,
    topic: Topic,
    id: Uuid,
) -> Result<Box<dyn Watcher>, Problem> {
    watch.watch(topic, Interest::Ids(BTreeSet::from([id]))).await.map_err(|error| {
        tracing::error!(error = &error as &dyn std::error::Error, "changes cannot be watched");
        Problem::new(Kind::Unavailable, "changes cannot be watched for now")
    })
}

/// Says whether a caller's token is in force; none is asked for in `dev`.
pub(in crate::api) async fn is_still_welcome(
    app: &App,
    caller: Caller,
) -> Result<bool, StoreError> {
    match caller.token {
        Some(token) => app.store.token_in_force(token).await,
        None => Ok(true),
    }
}

/// Waits for a notice of a token, for ever when there is none.
pub(in crate::api) async fn notified(token: &mut Option<Box<dyn Watcher>>) {
    match token {
        Some(watcher) => {
            watcher.recv().await;
        }
        None => std::future::pending().await,
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

pub(in crate::api) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("an event has no keys that JSON lacks")
}
