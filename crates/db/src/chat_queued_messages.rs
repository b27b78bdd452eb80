//! The table `chat_queued_messages`: turns that wait.
//!
//! Its rows change only under the lock of their chat's run.

use musterbeat_core::id::{ChatId, OwnerId, QueuedId};
use musterbeat_core::message::{Content, Model, Queued, Turn};
use musterbeat_core::timestamp::Timestamp;
use sqlx::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;

use crate::chats::stored_model;

struct TurnRow {
    content: Json<Content>,
    model: Option<String>,
    created_by: Option<Uuid>,
}

impl From<TurnRow> for Turn {
    fn from(row: TurnRow) -> Self {
        Self {
            content: row.content.0,
            model: row.model.and_then(stored_model),
            created_by: row.created_by.map(OwnerId::new),
        }
    }
}

/// Appends a turn.
pub async fn append(
    conn: &mut PgConnection,
    chat: ChatId,
    turn: &Turn,
    now: Option<Timestamp>,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
            insert into chat_queued_messages
                (chat_id, position, content, model, created_by, created_at)
            select $1, coalesce(max(position), 0) + 1, $2, $3, $4, coalesce($5::timestamptz, now())
            from chat_queued_messages
            where chat_id = $1
        "#,
        chat.uuid(),
        Json(&turn.content) as Json<&Content>,
        turn.model.as_ref().map(Model::as_str),
        turn.created_by.map(OwnerId::uuid),
        now.map(Timestamp::time),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Removes and returns the turn at the head, `None` when the queue is empty.
pub async fn pop_head(conn: &mut PgConnection, chat: ChatId) -> sqlx::Result<Option<Turn>> {
    let row = sqlx::query_as!(
        TurnRow,
        r#"
            delete from chat_queued_messages
            where id = (
                select id from chat_queued_messages where chat_id = $1 order by position limit 1
            )
            returning content as "content: Json<Content>", model, created_by
        "#,
        chat.uuid(),
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(Turn::from))
}

/// Removes and returns a turn of a chat, `None` when it does not wait there.
pub async fn remove(
    conn: &mut PgConnection,
    chat: ChatId,
    queued: QueuedId,
) -> sqlx::Result<Option<Turn>> {
    let row = sqlx::query_as!(
        TurnRow,
        r#"
            delete from chat_queued_messages
            where id = $2 and chat_id = $1
            returning content as "content: Json<Content>", model, created_by
        "#,
        chat.uuid(),
        queued.0,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(Turn::from))
}

/// Moves a turn of a chat to the head.
pub async fn move_to_head(
    conn: &mut PgConnection,
    chat: ChatId,
    queued: QueuedId,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
            update chat_queued_messages
            set position = (
                select min(head.position) - 1 from chat_queued_messages as head where head.chat_id = $1
            )
            where id = $2 and chat_id = $1
        "#,
        chat.uuid(),
        queued.0,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Removes all turns of a chat; returns how many.
pub async fn clear(conn: &mut PgConnection, chat: ChatId) -> sqlx::Result<u64> {
    let done = sqlx::query!("delete from chat_queued_messages where chat_id = $1", chat.uuid())
        .execute(conn)
        .await?;
    Ok(done.rows_affected())
}

/// Returns the queue, its head first.
pub async fn list(conn: &mut PgConnection, chat: ChatId) -> sqlx::Result<Vec<Queued>> {
    let rows = sqlx::query!(
        r#"
            select id, content as "content: Json<Content>", model, created_by, created_at
            from chat_queued_messages
            where chat_id = $1
            order by position
        "#,
        chat.uuid(),
    )
    .fetch_all(conn)
    .await?;
    let queued = rows.into_iter().map(|row| Queued {
        id: QueuedId(row.id),
        content: row.content.0,
        model: row.model.and_then(stored_model),
        created_by: row.created_by.map(OwnerId::new),
        created_at: Timestamp::new(row.created_at),
    });
    Ok(queued.collect())
}
