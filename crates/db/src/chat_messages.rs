//! The table `chat_messages`: what was said.

use musterbeat_core::id::{ChatId, MessageId, OwnerId, Version};
use musterbeat_core::message::{Content, Message, Model, NewMessage};
use musterbeat_core::page::{MESSAGES_MAX, MessagePage, PAGE_BYTES_MAX};
use musterbeat_core::timestamp::Timestamp;
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::chats::stored_model;
use crate::row::{RoleColumn, VisibilityColumn};

struct MessageRow {
    id: i64,
    chat_id: Uuid,
    version: i64,
    role: RoleColumn,
    content: Json<Content>,
    visibility: VisibilityColumn,
    deleted: bool,
    model: Option<String>,
    created_by: Option<Uuid>,
    created_at: OffsetDateTime,
}

impl From<MessageRow> for Message {
    fn from(row: MessageRow) -> Self {
        Self {
            id: MessageId(row.id),
            chat_id: ChatId::new(row.chat_id),
            version: Version(row.version),
            role: row.role.into(),
            content: row.content.0,
            visibility: row.visibility.into(),
            deleted: row.deleted,
            model: row.model.and_then(stored_model),
            created_by: row.created_by.map(OwnerId::new),
            created_at: Timestamp::new(row.created_at),
        }
    }
}

/// Appends messages in their order, in one statement; the run's row must be locked.
///
/// Ids ascend in the order of `messages`, because the sort by ordinality is explicit.
pub async fn append(
    conn: &mut PgConnection,
    chat: ChatId,
    version: Version,
    messages: &[NewMessage],
    now: Option<Timestamp>,
) -> sqlx::Result<()> {
    let roles: Vec<RoleColumn> = messages.iter().map(|message| message.role.into()).collect();
    let contents: Vec<Json<&Content>> =
        messages.iter().map(|message| Json(&message.content)).collect();
    let visibilities: Vec<VisibilityColumn> =
        messages.iter().map(|message| message.visibility.into()).collect();
    let models: Vec<Option<&str>> =
        messages.iter().map(|message| message.model.as_ref().map(Model::as_str)).collect();
    let creators: Vec<Option<Uuid>> =
        messages.iter().map(|message| message.created_by.map(OwnerId::uuid)).collect();
    sqlx::query!(
        r#"
            insert into chat_messages
                (chat_id, version, role, content, visibility, model, created_by, created_at)
            select $1, $2, new.role, new.content, new.visibility, new.model, new.created_by,
                   coalesce($8::timestamptz, now())
            from unnest($3::message_role[], $4::jsonb[], $5::message_visibility[], $6::text[], $7::uuid[])
                with ordinality as new (role, content, visibility, model, created_by, position)
            order by new.position
        "#,
        chat.uuid(),
        version.0,
        &roles as &[RoleColumn],
        &contents as &[Json<&Content>],
        &visibilities as &[VisibilityColumn],
        &models as &[Option<&str>],
        &creators as &[Option<Uuid>],
        now.map(Timestamp::time),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Returns messages for the user that changed after `since`, oldest change first.
///
/// A page ends after [`MESSAGES_MAX`] of them or [`PAGE_BYTES_MAX`] of content, and holds more only
/// to keep one version whole. Without `since` those that were deleted are left out.
pub async fn changed(
    conn: &mut PgConnection,
    chat: ChatId,
    since: Option<Version>,
) -> sqlx::Result<MessagePage> {
    let rows = sqlx::query!(
        r#"
            select id, version, role as "role: RoleColumn",
                   content as "content: Json<Content>",
                   visibility as "visibility: VisibilityColumn",
                   deleted, model, created_by, created_at, bytes as "bytes!"
            from (
                select *,
                       sum(content_bytes) over (order by version)::bigint as bytes,
                       sum(content_bytes) over (
                           order by version
                           range between unbounded preceding and current row exclude group
                       ) as bytes_before
                from (
                    select *
                    from chat_messages
                    where chat_id = $1
                      and version > coalesce($2::bigint, 0)
                      and visibility in ('user', 'both')
                      and ($2 is not null or not deleted)
                    order by version
                    fetch first $3 rows with ties
                ) as first
            ) as page
            where coalesce(bytes_before, 0) < $4::bigint
            order by version, id
        "#,
        chat.uuid(),
        since.map(|since| since.0),
        i64::from(MESSAGES_MAX),
        i64::from(PAGE_BYTES_MAX),
    )
    .fetch_all(conn)
    .await?;
    let bytes = rows.last().map_or(0, |last| last.bytes);
    let full = rows.len() >= MESSAGES_MAX as usize || bytes >= i64::from(PAGE_BYTES_MAX);
    let messages = rows.into_iter().map(|row| Message {
        id: MessageId(row.id),
        chat_id: chat,
        version: Version(row.version),
        role: row.role.into(),
        content: row.content.0,
        visibility: row.visibility.into(),
        deleted: row.deleted,
        model: row.model.and_then(stored_model),
        created_by: row.created_by.map(OwnerId::new),
        created_at: Timestamp::new(row.created_at),
    });
    Ok(MessagePage { messages: messages.collect(), full })
}

/// Returns the history as a model should see it, oldest first.
///
/// The newest summary is the boundary: system messages that no summary stands for, the boundary
/// itself, and what came after it.
pub async fn prompt(conn: &mut PgConnection, chat: ChatId) -> sqlx::Result<Vec<Message>> {
    let rows = sqlx::query_as!(
        MessageRow,
        r#"
            with boundary as (
                select id
                from chat_messages
                where chat_id = $1 and compressed and not deleted and visibility = 'model'
                order by id desc
                limit 1
            )
            select id, chat_id, version, role as "role: RoleColumn",
                   content as "content: Json<Content>",
                   visibility as "visibility: VisibilityColumn",
                   deleted, model, created_by, created_at
            from chat_messages
            where chat_id = $1
              and not deleted
              and visibility in ('model', 'both')
              and (
                  (not compressed and (
                      role = 'system' or id > coalesce((select id from boundary), 0)
                  ))
                  or id = (select id from boundary)
              )
            order by id
        "#,
        chat.uuid(),
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(Message::from).collect())
}
