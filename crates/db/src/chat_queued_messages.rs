//! The table `chat_queued_messages`: turns that wait.
//!
//! Its rows change only under the lock of their chat's run.

use musterbeat_core::id::{ChatId, OwnerId, QueuedId};
use musterbeat_core::message::{Content, Model, Queued, Turn};
use musterbeat_core::timestamp::Timestamp;
use sqlx::PgConnection;
use sqlx::types::Json;

use crate::chats::stored_model;

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
    let row = sqlx::query!(
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
    Ok(row.map(|row| Turn {
        content: row.content.0,
        model: row.model.and_then(stored_model),
        created_by: row.created_by.map(OwnerId::new),
    }))
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
