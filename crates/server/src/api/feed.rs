//! An owner's chats as they change, by server-sent events.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use futures_util::Stream;
use futures_util::stream::unfold;
use musterbeat_core::chat::Chat;
use musterbeat_core::id::{ChatId, MessageId, Version};
use musterbeat_core::page::{Cursor, Limit};
use musterbeat_core::port::{ChatFilter, FeedMark, FeedPage, StoreError, Topic, Watcher};
use musterbeat_core::timestamp::Timestamp;
use serde::Serialize;
use tokio::time::{Instant, sleep_until};

use super::events::{
    EventStream, PING_INTERVAL, is_still_welcome, json, next_look, notified, watch,
};
use super::wire::{self, ChatPage};
use crate::app::App;
use crate::http::extract::ChatUser;
use crate::http::problem::{AnyProblem, Problem};
use crate::identity::Caller;

/// Shortest time between two looks: an owner of a thousand busy chats is told of many at once.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// Follows the caller's chats.
///
/// Events: `snapshot` (the first page of the list, as `GET /chats` has it), `chat` (a chat that is
/// new or changed in any way that the list shows), `resync` (more changed than can be told: list
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
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    let feed = Feed::open(app, caller, last_mark(&headers)).await?;
    let events = unfold(feed, |mut feed| async move {
        let event = feed.next().await?;
        Some((Ok(event), feed))
    });
    let ping =
        KeepAlive::new().interval(PING_INTERVAL).event(Event::default().event("ping").data("{}"));
    Ok(Sse::new(events).keep_alive(ping))
}

fn last_mark(headers: &HeaderMap) -> Option<FeedMark> {
    let id = headers.get("last-event-id")?.to_str().ok()?;
    id.parse().ok().filter(|mark| *mark >= 0).map(FeedMark)
}

/// One who follows their chats.
///
/// What rests needs no room: a look finds what has changed since the last one, and what has
/// something to do.
struct Feed {
    app: App,
    caller: Caller,
    changes: Box<dyn Watcher>,
    revoked: Option<Box<dyn Watcher>>,
    looked_at: Instant,
    look_at: Instant,
    mark: FeedMark,
    /// What was told of the chats of the last look.
    told: BTreeMap<ChatId, Told>,
    ready: VecDeque<Event>,
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
        let is_at_rest = wire::Chat::from(chat.clone()).is_at_rest();
        let Chat { version, updated_at, last_read, .. } = *chat;
        Self { version, updated_at, last_read, is_at_rest }
    }
}

#[derive(Serialize)]
struct ChatEvent {
    chat: wire::Chat,
}

impl Feed {
    async fn open(app: App, caller: Caller, since: Option<FeedMark>) -> Result<Self, Problem> {
        let changes = watch(&*app.watch, Topic::Owner, caller.owner.uuid()).await?;
        let revoked = match caller.token {
            Some(token) => Some(watch(&*app.watch, Topic::Token, token.uuid()).await?),
            None => None,
        };
        if !is_still_welcome(&app, caller).await? {
            return Err(Problem::token_unknown());
        }
        let now = Instant::now();
        let mut feed = Self {
            app,
            caller,
            changes,
            revoked,
            looked_at: now,
            look_at: next_look(),
            mark: FeedMark(0),
            told: BTreeMap::new(),
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
        let limit = Limit::new(None).unwrap_or_else(|_| unreachable!("the default is allowed"));
        let filter = ChatFilter { owner: self.caller.owner, archived: None, after: None, limit };
        let chats = self.app.chat_reader.list(filter).await?;
        let last = chats.last().filter(|_| chats.len() >= limit.rows() as usize);
        let next = last.map(|last| Cursor { at: last.updated_at, chat: last.id }.to_string());
        self.take(&page, chats.iter().chain(&page.chats));
        let chats = chats.into_iter().map(wire::Chat::from).collect();
        self.tell(vec![("snapshot", json(&ChatPage { chats, next }))]);
        Ok(())
    }

    async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
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
                () = notified(&mut self.revoked) => {
                    self.ended |= !is_still_welcome(&self.app, self.caller).await.unwrap_or(false);
                    continue;
                }
                _ = self.changes.recv() => {}
                () = sleep_until(self.look_at) => {}
            }
            sleep_until(self.looked_at + LOOK_PAUSE).await;
            if let Err(error) = self.look().await {
                tracing::warn!(
                    owner.id = %self.caller.owner,
                    error = &error as &dyn std::error::Error,
                    "an owner's feed is let go, since its chats cannot be read"
                );
                self.ended = true;
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
            events.push(("resync", "{}".to_owned()));
        } else {
            // The list is told from its end, so that the last told is its first.
            let new = page.chats.iter().rev().filter(|chat| !is_told(chat));
            let told = new.map(|chat| ("chat", json(&ChatEvent { chat: chat.clone().into() })));
            events.extend(told);
        }
        self.take(&page, page.chats.iter());
        self.tell(events);
        Ok(())
    }

    fn take<'a>(&mut self, page: &FeedPage, chats: impl Iterator<Item = &'a Chat>) {
        self.mark = page.mark;
        self.told = chats.map(|chat| (chat.id, Told::of(chat))).collect();
    }

    /// Queues events, of which the last carries the mark.
    fn tell(&mut self, told: Vec<(&'static str, String)>) {
        let last = told.len().saturating_sub(1);
        let mark = self.mark.0.to_string();
        self.ready.extend(told.into_iter().enumerate().map(|(index, (name, data))| {
            let event = Event::default().event(name).data(data);
            if index == last { event.id(mark.as_str()) } else { event }
        }));
    }
}
