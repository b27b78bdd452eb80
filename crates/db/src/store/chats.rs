//! Chats: what a user or an owner does to one, and what readers are shown.

mod apply;
mod family;

use std::time::Instant;

use async_trait::async_trait;
use musterbeat_core::chat::{Applied, Changes, Chat, ChatPatch, Event, NewChat, Refused, Report};
use musterbeat_core::id::{ChatId, OwnerId, Version};
use musterbeat_core::lineage::Lineage;
use musterbeat_core::message::Queued;
use musterbeat_core::port::{
    ApplyError, By, ChatFilter, ChatReader, ChatStore, FamilyFilter, FeedMark, FeedPage, Prompt,
    Reach, StoreError, Waiter,
};
use musterbeat_core::run::RunKind;
use sqlx::{Connection, PgConnection};
use tokio::time::timeout;

use super::PgStore;
use crate::metrics::TRANSITION_SECONDS;
use crate::{chat_messages, chat_queued_messages, chats, runs};

#[async_trait]
impl ChatStore for PgStore {
    async fn create(&self, chat: NewChat, reach: Reach) -> Result<Applied, ApplyError> {
        let mut call = self.call(family::CREATE).await?;
        let create = family::create(&mut call.conn, &chat, reach, &self.subagents);
        let created = timeout(self.answer_time, create).await;
        call.answered(created)?
    }

    async fn apply(&self, chat: ChatId, by: By, event: Event) -> Result<Applied, ApplyError> {
        event.encode();
        let (name, began) = (event.as_str(), Instant::now());
        let mut call = self.call(apply::APPLY).await?;
        let apply = async {
            match event {
                Event::Archive | Event::Unarchive => {
                    family::archive(&mut call.conn, chat, by, event).await
                }
                event => apply::apply(&mut call.conn, chat, by, event, self.queue_max).await,
            }
        };
        let applied = timeout(self.answer_time, apply).await;
        let applied = call.answered(applied).map_err(ApplyError::from).flatten();
        let labels = [("event", name), ("outcome", outcome(&applied))];
        metrics::histogram!(TRANSITION_SECONDS.name, &labels).record(began.elapsed());
        applied
    }

    async fn update(
        &self,
        chat: ChatId,
        reach: Reach,
        patch: ChatPatch,
    ) -> Result<Option<Chat>, ApplyError> {
        let mut call = self.call(UPDATE).await?;
        let updated = timeout(self.answer_time, update(&mut call.conn, chat, reach, &patch)).await;
        let updated = call.answered(updated)?.map_err(family::unplaced(UPDATE))?;
        match updated {
            Updated::Chat(chat) => Ok(Some(*chat)),
            Updated::Nowhere => Ok(None),
            Updated::Child => Err(Refused::LimitsOfChild.into()),
        }
    }

    async fn prompt(&self, chat: ChatId) -> Result<Prompt, StoreError> {
        let mut call = self.call("read a chat's prompt").await?;
        let prompt = chat_messages::prompt(&mut call.conn, chat);
        let prompt = timeout(self.answer_time, prompt).await;
        let (messages, standing) = call.ended(prompt)?;
        let may_spawn = self.subagents.of(standing.limits).may_spawn(standing.depth);
        Ok(Prompt { messages, depth: standing.depth, may_spawn })
    }

    async fn report(
        &self,
        chat: ChatId,
        reach: Reach,
        waiter: Option<Waiter>,
    ) -> Result<Option<Report>, StoreError> {
        let mut call = self.call("read how a chat stands").await?;
        // Without caps nobody counts.
        let waiter = waiter.filter(|_| self.caps_of(&RunKind::CHAT).is_some());
        let report = report(&mut call.conn, chat, reach, waiter);
        let report = timeout(self.answer_time, report).await;
        call.ended(report)
    }

    async fn ancestors(&self, chat: ChatId) -> Result<Lineage, StoreError> {
        let mut call = self.call("read a chat's ancestors").await?;
        let ancestors = timeout(self.answer_time, chats::ancestors(&mut call.conn, chat)).await;
        call.ended(ancestors)
    }
}

#[async_trait]
impl ChatReader for PgStore {
    async fn get(&self, chat: ChatId, reach: Reach) -> Result<Option<Chat>, StoreError> {
        let mut call = self.call("read a chat").await?;
        let got = timeout(self.answer_time, chats::get(&mut call.conn, chat, reach)).await;
        call.ended(got)
    }

    async fn list(&self, filter: ChatFilter) -> Result<Vec<Chat>, StoreError> {
        let mut call = self.call("list chats").await?;
        let listed = timeout(self.answer_time, chats::list(&mut call.conn, &filter)).await;
        call.ended(listed)
    }

    async fn family(&self, filter: FamilyFilter) -> Result<Option<Vec<Chat>>, StoreError> {
        let mut call = self.call("list a chat's family").await?;
        let listed = timeout(self.answer_time, read_family(&mut call.conn, &filter)).await;
        call.ended(listed)
    }

    async fn changes(
        &self,
        chat: ChatId,
        reach: Reach,
        since: Option<Version>,
    ) -> Result<Option<Changes>, StoreError> {
        let mut call = self.call("read a chat's changes").await?;
        let changes = read_changes(&mut call.conn, chat, reach, since);
        let changes = timeout(self.answer_time, changes).await;
        call.ended(changes)
    }

    async fn queue(&self, chat: ChatId, reach: Reach) -> Result<Option<Vec<Queued>>, StoreError> {
        let mut call = self.call("read a chat's queue").await?;
        let queue = timeout(self.answer_time, read_queue(&mut call.conn, chat, reach)).await;
        call.ended(queue)
    }

    async fn feed(
        &self,
        owner: OwnerId,
        mark: Option<FeedMark>,
        seen: &[ChatId],
    ) -> Result<FeedPage, StoreError> {
        let mut call = self.call("read an owner's feed").await?;
        let feed = timeout(self.answer_time, read_feed(&mut call.conn, owner, mark, seen)).await;
        call.ended(feed)
    }
}

/// Returns the word that metrics use for how an event ended.
const fn outcome(applied: &Result<Applied, ApplyError>) -> &'static str {
    match applied {
        Ok(_) => "applied",
        Err(ApplyError::NotFound | ApplyError::NoWorkspace) => "not_found",
        Err(ApplyError::Fenced) => "fenced",
        Err(ApplyError::Refused(_)) => "refused",
        Err(ApplyError::Store(_)) => "failed",
    }
}

const UPDATE: &str = "change what a chat is called";

/// What belongs together is read from one snapshot.
const SNAPSHOT: &str = "begin isolation level repeatable read, read only";

/// What a change of a chat came to.
enum Updated {
    /// This is how the chat stands then.
    Chat(Box<Chat>),
    /// It is not there or out of reach.
    Nowhere,
    /// It has a parent, and would get limits of its own.
    Child,
}

async fn update(
    conn: &mut PgConnection,
    chat: ChatId,
    reach: Reach,
    patch: &ChatPatch,
) -> sqlx::Result<Updated> {
    let updated = chats::update(conn, chat, reach, patch, None).await?;
    let found = chats::get(conn, chat, reach).await?;
    Ok(match found {
        Some(chat) if updated => Updated::Chat(Box::new(chat)),
        Some(_) if patch.moves_limits() => Updated::Child,
        _ => Updated::Nowhere,
    })
}

async fn report(
    conn: &mut PgConnection,
    chat: ChatId,
    reach: Reach,
    waiter: Option<Waiter>,
) -> sqlx::Result<Option<Report>> {
    let report = chats::report(conn, chat, reach).await?;
    if let Some(waiter) = waiter
        && report.as_ref().is_some_and(|report| !report.is_at_rest())
    {
        runs::await_another(conn, &waiter).await?;
    }
    Ok(report)
}

async fn read_family(
    conn: &mut PgConnection,
    filter: &FamilyFilter,
) -> sqlx::Result<Option<Vec<Chat>>> {
    let relatives = chats::family(conn, filter).await?;
    // A page may be empty because the chat is not there.
    if relatives.is_empty() && chats::get(conn, filter.of, filter.reach).await?.is_none() {
        return Ok(None);
    }
    Ok(Some(relatives))
}

async fn read_queue(
    conn: &mut PgConnection,
    chat: ChatId,
    reach: Reach,
) -> sqlx::Result<Option<Vec<Queued>>> {
    if chats::get(conn, chat, reach).await?.is_none() {
        return Ok(None);
    }
    chat_queued_messages::list(conn, chat).await.map(Some)
}

async fn read_changes(
    conn: &mut PgConnection,
    id: ChatId,
    reach: Reach,
    since: Option<Version>,
) -> sqlx::Result<Option<Changes>> {
    let mut tx = conn.begin_with(SNAPSHOT).await?;
    let Some(chat) = chats::get(&mut tx, id, reach).await? else {
        return Ok(None);
    };
    let reset = since.is_some_and(|since| since > chat.version);
    let since = if reset { None } else { since };
    let page = chat_messages::changed(&mut tx, id, since).await?;
    let queue = chat_queued_messages::list(&mut tx, id).await?;
    let place = if chat.status.is_owned() { chats::place(&mut tx, id).await? } else { None };
    let reached = page.reached(chat.version);
    Ok(Some(Changes { chat, messages: page.messages, queue, reset, reached, place }))
}

async fn read_feed(
    conn: &mut PgConnection,
    owner: OwnerId,
    mark: Option<FeedMark>,
    seen: &[ChatId],
) -> sqlx::Result<FeedPage> {
    let mut tx = conn.begin_with(SNAPSHOT).await?;
    chats::feed(&mut tx, owner, mark, seen).await
}
