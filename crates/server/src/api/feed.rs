//! An owner's chats as they change, by server-sent events.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream::unfold;
use musterbeat_core::chat::Chat;
use musterbeat_core::diff::ChatDiff;
use musterbeat_core::id::{ChatId, MessageId, Version};
use musterbeat_core::page::Limit;
use musterbeat_core::port::{ChatFilter, FeedMark, FeedPage, StoreError, Topic, Watcher};
use musterbeat_core::timestamp::Timestamp;
use serde::Serialize;
use tokio::time::{Instant, sleep_until};

use super::events::{EventStream, PING_INTERVAL, frame, last_event_id, next_look, respond, watch};
use super::wire::{self, ChatPage};
use crate::app::App;
use crate::database::RETRY_BACKOFF;
use crate::http::extract::ChatUser;
use crate::http::problem::{AnyProblem, Problem};
use crate::identity::Caller;
use crate::revocation::Hold;

/// Shortest time between two looks: an owner of a thousand busy chats is told of many at once.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// Follows the caller's chats.
///
/// Events: `snapshot` (the first page of the list, as `GET /chats` has it), `chat` (a chat that is
/// new or changed in any way that the list shows), `diff_status` (what is known of a chat's branch,
/// as `GET /chats/{id}/diff-status` has it, when it changed), `resync` (more changed than can be told: list
/// them again), `ping`. The last event of a look carries an id; sent back as `Last-Event-ID`, the
/// stream goes on from there and leaves the snapshot out.
#[utoipa::path(
    get,
    path = "/chats/events",
    operation_id = "follow_chats",
    tag = "chats",
    params(
        ("last-event-id" = Option<String>, Header, nullable = false, description = "The last id seen"),
    ),
    responses(
        (status = 200, description = "Events", body = EventStream, content_type = "text/event-stream"),
        AnyProblem,
    ),
)]
pub(super) async fn follow(
    State(app): State<App>,
    ChatUser(caller): ChatUser,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let feed = Feed::open(app, caller, last_event_id(&headers).map(FeedMark)).await?;
    Ok(respond(unfold(Box::new(feed), |mut feed| async move {
        let bytes = feed.next().await?;
        Some((bytes, feed))
    })))
}

/// One who follows their chats.
///
/// What rests needs no room: a look finds what has changed since the last one, and what has
/// something to do.
struct Feed {
    app: App,
    caller: Caller,
    changes: Box<dyn Watcher>,
    token: Hold,
    looked_at: Instant,
    look_at: Instant,
    mark: FeedMark,
    /// What was told of the chats of the last look.
    told: BTreeMap<ChatId, Told>,
    /// What was told of the branches of the last look, hashed.
    told_diffs: BTreeMap<ChatId, u64>,
    /// Looks that failed in a row.
    failures: u32,
    ready: VecDeque<Bytes>,
    ended: bool,
}

/// A chat as it was told last.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Told {
    version: Version,
    updated_at: Timestamp,
    last_read: Option<MessageId>,
    is_at_rest: bool,
}

impl Told {
    fn of(chat: &Chat) -> Self {
        let Chat { version, updated_at, last_read, status, .. } = *chat;
        Self { version, updated_at, last_read, is_at_rest: status.is_at_rest() }
    }
}

#[derive(Serialize)]
struct ChatEvent {
    chat: wire::Chat,
}

#[derive(Serialize)]
struct DiffEvent {
    diff_status: wire::DiffStatus,
}

#[derive(Serialize)]
struct ManyChanged {}

impl Feed {
    async fn open(app: App, caller: Caller, since: Option<FeedMark>) -> Result<Self, Problem> {
        let changes = watch(&*app.watch, Topic::Owner, caller.owner.uuid()).await?;
        let token = app.revocations.hold(caller).await?;
        let now = Instant::now();
        let mut feed = Self {
            app,
            caller,
            changes,
            token,
            looked_at: now,
            look_at: next_look(),
            mark: FeedMark(0),
            told: BTreeMap::new(),
            told_diffs: BTreeMap::new(),
            failures: 0,
            ready: VecDeque::new(),
            ended: false,
        };
        match since {
            Some(mark) => {
                feed.mark = mark;
                feed.look().await?;
            }
            None => feed.begin().await?,
        }
        Ok(feed)
    }

    /// Tells the first page of the list; what changes after the mark is told later.
    async fn begin(&mut self) -> Result<(), StoreError> {
        let page = self.app.chat_reader.feed(self.caller.owner, None, &[]).await?;
        let limit = Limit::default();
        let filter = ChatFilter { owner: self.caller.owner, archived: None, after: None, limit };
        let chats = self.app.chat_reader.list(filter).await?;
        self.take(&page, chats.iter().chain(&page.chats));
        let first = ChatPage::of(chats, limit, |chat| chat.updated_at);
        self.tell(vec![frame::begun("snapshot", &first)]);
        Ok(())
    }

    async fn next(&mut self) -> Option<Bytes> {
        let quiet_until = Instant::now() + PING_INTERVAL;
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                return Some(bytes);
            }
            if self.ended {
                return None;
            }
            tokio::select! {
                biased;
                () = self.app.streams_end.cancelled() => {
                    self.ended = true;
                    continue;
                }
                () = self.token.revoked() => {
                    self.ended = true;
                    continue;
                }
                _ = self.changes.recv() => {}
                () = sleep_until(self.look_at) => {}
                () = sleep_until(quiet_until) => return Some(frame::PING),
            }
            sleep_until(self.looked_at + LOOK_PAUSE).await;
            match self.look().await {
                Ok(()) => self.failures = 0,
                Err(StoreError::Unavailable { .. }) => {
                    self.failures += 1;
                    let pause = RETRY_BACKOFF.delay(self.failures, rand::random());
                    self.look_at = Instant::now() + pause;
                }
                Err(error) => {
                    tracing::warn!(
                        owner.id = %self.caller.owner,
                        error = &error as &dyn std::error::Error,
                        "an owner's feed is let go, since its chats cannot be read"
                    );
                    self.ended = true;
                }
            }
        }
    }

    /// Tells what changed since the mark.
    async fn look(&mut self) -> Result<(), StoreError> {
        self.looked_at = Instant::now();
        self.look_at = next_look();
        let busy = self.told.iter().filter(|(_, told)| !told.is_at_rest);
        let busy: Vec<ChatId> = busy.map(|(chat, _)| *chat).collect();
        let reader = &self.app.chat_reader;
        let page = reader.feed(self.caller.owner, Some(self.mark), &busy).await?;
        let mut events = Vec::new();
        // The page is in the order of the list: what was told at its end was told all along.
        let is_told = |chat: &Chat| self.told.get(&chat.id) == Some(&Told::of(chat));
        let is_full = page.chats.len() >= FeedPage::CHATS_MAX as usize;
        if is_full && !page.chats.last().is_some_and(is_told) {
            events.push(frame::begun("resync", &ManyChanged {}));
        } else {
            // The list is told from its end, so that the last told is its first.
            let new = page.chats.iter().rev().filter(|chat| !is_told(chat));
            events.extend(
                new.map(|chat| frame::begun("chat", &ChatEvent { chat: chat.clone().into() })),
            );
        }
        self.take(&page, page.chats.iter());
        events.extend(self.changed_diffs(page.diffs));
        self.tell(events);
        Ok(())
    }

    /// Returns events about those branches that were not told as they are; a mark that is held
    /// back by a long transaction leads to the same ones again.
    fn changed_diffs(&mut self, diffs: Vec<ChatDiff>) -> Vec<Bytes> {
        let is_full = diffs.len() >= FeedPage::DIFFS_MAX as usize;
        let former = std::mem::take(&mut self.told_diffs);
        let mut events = Vec::new();
        // The latest is told last.
        for diff in diffs.into_iter().rev() {
            let chat = diff.chat;
            // Not the times: they move without anything that a reader would call a change.
            let hash = frame::hash(&(&diff.reference, &diff.status, &diff.problem));
            self.told_diffs.insert(chat, hash);
            if former.get(&chat) != Some(&hash) {
                events.push(frame::begun("diff_status", &DiffEvent { diff_status: diff.into() }));
            }
        }
        if is_full && !events.is_empty() {
            return vec![frame::begun("resync", &ManyChanged {})];
        }
        events
    }

    fn take<'a>(&mut self, page: &FeedPage, chats: impl Iterator<Item = &'a Chat>) {
        self.mark = page.mark;
        self.told = chats.map(|chat| (chat.id, Told::of(chat))).collect();
    }

    /// Queues events, of which the last carries the mark.
    fn tell(&mut self, told: Vec<Bytes>) {
        self.ready.extend(frame::ended(told, self.mark.0));
    }
}
