use async_trait::async_trait;
use musterbeat_core::chat::{
    Applied, Changes, Chat, Effects, Event, Facts, NewChat, Write, decide,
};
use musterbeat_core::id::{ChatId, RunId, Step, Version};
use musterbeat_core::message::{Message, Model, NewMessage};
use musterbeat_core::port::{ApplyError, By, ChatFilter, ChatStore, Reach, StoreError};
use musterbeat_core::run::{Admission, RunKind, RunStatus};
use sqlx::{Connection, PgConnection};
use tokio::time::timeout;

use super::PgStore;
use crate::error::failed;
use crate::runs::{Locked, Transition};
use crate::{chat_messages, chat_queued_messages, chats, runs};

#[async_trait]
impl ChatStore for PgStore {
    async fn create(&self, chat: NewChat) -> Result<Applied, ApplyError> {
        let mut call = self.call(CREATE).await?;
        let created = timeout(self.answer_time, create(&mut call.conn, &chat)).await;
        call.answered(created)?
    }

    async fn apply(&self, chat: ChatId, by: By, event: Event) -> Result<Applied, ApplyError> {
        let mut call = self.call(APPLY).await?;
        let apply = apply(&mut call.conn, chat, by, event, self.queue_max);
        let applied = timeout(self.answer_time, apply).await;
        call.answered(applied)?
    }

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

    async fn prompt(&self, chat: ChatId) -> Result<Vec<Message>, StoreError> {
        let mut call = self.call("read a chat's prompt").await?;
        let prompt = chat_messages::prompt(&mut call.conn, chat);
        let prompt = timeout(self.answer_time, prompt).await;
        call.ended(prompt)
    }
}

const CREATE: &str = "create a chat";

const APPLY: &str = "change a chat";

async fn create(conn: &mut PgConnection, chat: &NewChat) -> Result<Applied, ApplyError> {
    let mut tx = conn.begin().await.map_err(failed(CREATE))?;
    if insert(&mut tx, chat).await.map_err(failed(CREATE))? {
        tx.commit().await.map_err(failed(CREATE))?;
        return Ok(first_applied(chat));
    }
    let reach = Reach::Of(chat.owner);
    let locked =
        runs::lock(&mut tx, chat.id.into(), &RunKind::CHAT, reach).await.map_err(failed(CREATE))?;
    locked.map(|locked| applied(chat.id, &locked)).ok_or(ApplyError::NotFound)
}

async fn apply(
    conn: &mut PgConnection,
    chat: ChatId,
    by: By,
    event: Event,
    queue_max: u32,
) -> Result<Applied, ApplyError> {
    let mut tx = conn.begin().await.map_err(failed(APPLY))?;
    let reach = match by {
        By::User(reach) => reach,
        By::Owner(_) => Reach::Everything,
    };
    let locked = runs::lock(&mut tx, chat.into(), &RunKind::CHAT, reach)
        .await
        .map_err(failed(APPLY))?
        .ok_or(ApplyError::NotFound)?;
    if let By::Owner(token) = by {
        match locked.ownership.admit(&token) {
            Admission::Write => {}
            Admission::Repeated => return Ok(applied(chat, &locked)),
            Admission::Fenced => return Err(ApplyError::Fenced),
        }
    }
    let queue = chats::queue_facts(&mut tx, chat).await.map_err(failed(APPLY))?;
    let facts = Facts {
        status: locked.status,
        stop: locked.stop,
        archived: queue.archived,
        queued: queue.queued,
    };
    let by_owner = matches!(by, By::Owner(_));
    let effects = decide(&facts, event, queue_max)?;
    let applied =
        carry_out(&mut tx, chat, &locked, effects, by_owner).await.map_err(failed(APPLY))?;
    tx.commit().await.map_err(failed(APPLY))?;
    Ok(applied)
}

async fn insert(conn: &mut PgConnection, chat: &NewChat) -> sqlx::Result<bool> {
    let run = RunId::from(chat.id);
    if !runs::insert(conn, run, &RunKind::CHAT, chat.owner, None).await? {
        return Ok(false);
    }
    chats::insert(conn, chat, None).await?;
    let message = chat.turn.clone().into_message();
    chat_messages::append(conn, chat.id, FIRST_VERSION, &[message], None).await?;
    Ok(true)
}

/// The version of a chat that was created and nothing else.
const FIRST_VERSION: Version = Version(1);

fn first_applied(chat: &NewChat) -> Applied {
    Applied {
        chat: chat.id,
        owner: chat.owner,
        version: FIRST_VERSION,
        status: RunStatus::Pending,
        step: Step(0),
        queued: false,
    }
}

/// Writes what was decided; the run's row is locked and `effects` were decided on what it said.
async fn carry_out(
    conn: &mut PgConnection,
    chat: ChatId,
    locked: &Locked,
    effects: Effects,
    by_owner: bool,
) -> sqlx::Result<Applied> {
    let Effects { status, stop, error, writes } = effects;
    let transition = Transition { status, stop, error, by_owner };
    let version = runs::write(conn, chat.into(), &transition, None).await?;
    let mut queued = false;
    for write in &writes {
        match write {
            Write::Append(messages) => append(conn, chat, version, messages).await?,
            Write::Enqueue(turn) => {
                chat_queued_messages::append(conn, chat, turn, None).await?;
                // The list moves when its user has said something; the model when it is answered.
                chats::touch(conn, chat, None, None).await?;
                queued = true;
            }
            Write::PromoteHead => {
                let head = chat_queued_messages::pop_head(conn, chat).await?;
                let head = head.ok_or(sqlx::Error::RowNotFound)?;
                append(conn, chat, version, &[head.into_message()]).await?;
            }
        }
    }
    let step = if by_owner { locked.ownership.step.next() } else { locked.ownership.step };
    Ok(Applied { chat, owner: locked.owner, version, status, step, queued })
}

/// Appends to the history, which moves the chat in its owner's list and may move its model.
async fn append(
    conn: &mut PgConnection,
    chat: ChatId,
    version: Version,
    messages: &[NewMessage],
) -> sqlx::Result<()> {
    if messages.is_empty() {
        return Ok(());
    }
    chat_messages::append(conn, chat, version, messages, None).await?;
    let model: Option<&Model> = messages.iter().rev().find_map(|message| message.model.as_ref());
    chats::touch(conn, chat, model, None).await
}

/// Returns what an event that changed nothing found.
fn applied(chat: ChatId, locked: &Locked) -> Applied {
    Applied {
        chat,
        owner: locked.owner,
        version: locked.version,
        status: locked.status,
        step: locked.ownership.step,
        queued: false,
    }
}

/// Reads everything from one snapshot, so that version, messages and queue belong together.
async fn read_changes(
    conn: &mut PgConnection,
    id: ChatId,
    reach: Reach,
    since: Option<Version>,
) -> sqlx::Result<Option<Changes>> {
    const BEGIN: &str = "begin isolation level repeatable read, read only";
    let mut tx = conn.begin_with(BEGIN).await?;
    let Some(chat) = chats::get(&mut tx, id, reach).await? else {
        return Ok(None);
    };
    let reset = since.is_some_and(|since| since > chat.version);
    let since = if reset { None } else { since };
    let page = chat_messages::changed(&mut tx, id, since).await?;
    let queue = chat_queued_messages::list(&mut tx, id).await?;
    let reached = page.reached(chat.version);
    Ok(Some(Changes { chat, messages: page.messages, queue, reset, reached }))
}
