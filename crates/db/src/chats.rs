//! The table `chats`.

use musterbeat_core::chat::{Chat, NewChat};
use musterbeat_core::id::{ChatId, OwnerId, Version, WorkspaceId};
use musterbeat_core::message::Model;
use musterbeat_core::port::{ChatFilter, Reach};
use musterbeat_core::run::RunStatus;
use musterbeat_core::timestamp::Timestamp;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::row::StatusColumn;
use crate::runs::owner_of;

/// A chat's row with its run's, as the statements of this module return it.
struct ChatRow {
    id: Uuid,
    owner_id: Uuid,
    workspace_id: Option<Uuid>,
    title: String,
    model: Option<String>,
    archived: bool,
    status: StatusColumn,
    error: Option<String>,
    version: i64,
    created_at: OffsetDateTime,
    updated_at: OffsetDateTime,
}

impl From<ChatRow> for Chat {
    fn from(row: ChatRow) -> Self {
        Self {
            id: ChatId::new(row.id),
            owner: OwnerId::new(row.owner_id),
            workspace: row.workspace_id.map(WorkspaceId::new),
            title: row.title,
            model: row.model.and_then(stored_model),
            archived: row.archived,
            status: RunStatus::from(row.status),
            error: row.error,
            version: Version(row.version),
            created_at: Timestamp::new(row.created_at),
            updated_at: Timestamp::new(row.updated_at),
        }
    }
}

/// What a decision needs of a chat and its queue.
#[derive(Clone, Copy, Debug)]
pub struct QueueFacts {
    /// Whether it was put away.
    pub archived: bool,
    /// How many turns wait.
    pub queued: u32,
}

/// Adds a chat whose run was added before, in the same transaction.
pub async fn insert(
    conn: &mut PgConnection,
    chat: &NewChat,
    now: Option<Timestamp>,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
            insert into chats (id, owner_id, workspace_id, model, title, created_at, updated_at)
            values ($1, $2, $3, $4, $5, coalesce($6::timestamptz, now()), coalesce($6, now()))
        "#,
        chat.id.uuid(),
        chat.owner.uuid(),
        chat.workspace.map(WorkspaceId::uuid),
        chat.turn.model.as_ref().map(Model::as_str),
        chat.title.as_str(),
        now.map(Timestamp::time),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Returns what a decision needs; the run's row must be locked by an earlier statement.
pub async fn queue_facts(conn: &mut PgConnection, chat: ChatId) -> sqlx::Result<QueueFacts> {
    let row = sqlx::query!(
        r#"
            select archived,
                   (select count(*) from chat_queued_messages where chat_id = chats.id) as "queued!"
            from chats
            where id = $1
        "#,
        chat.uuid(),
    )
    .fetch_one(conn)
    .await?;
    let queued = u32::try_from(row.queued).unwrap_or(u32::MAX);
    Ok(QueueFacts { archived: row.archived, queued })
}

/// Moves a chat to the front of its owner's list, and its model when one is given.
pub async fn touch(
    conn: &mut PgConnection,
    chat: ChatId,
    model: Option<&Model>,
    now: Option<Timestamp>,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
            update chats
            set updated_at = coalesce($3::timestamptz, now()),
                model = coalesce($2, model)
            where id = $1
        "#,
        chat.uuid(),
        model.map(Model::as_str),
        now.map(Timestamp::time),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Returns a chat, `None` when it is not there or out of reach.
pub async fn get(
    conn: &mut PgConnection,
    chat: ChatId,
    reach: Reach,
) -> sqlx::Result<Option<Chat>> {
    let row = sqlx::query_as!(
        ChatRow,
        r#"
            select chats.id, chats.owner_id, workspace_id, title, model, archived,
                   status as "status: StatusColumn", error, version, created_at, updated_at
            from chats
            join runs on runs.run_id = chats.id
            where chats.id = $1
              and ($2::uuid is null or chats.owner_id = $2)
        "#,
        chat.uuid(),
        owner_of(reach),
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(Chat::from))
}

/// Returns a page of one owner's chats, the last updated first.
pub async fn list(conn: &mut PgConnection, filter: &ChatFilter) -> sqlx::Result<Vec<Chat>> {
    let rows = sqlx::query_as!(
        ChatRow,
        r#"
            select chats.id, chats.owner_id, workspace_id, title, model, archived,
                   status as "status: StatusColumn", error, version, created_at, updated_at
            from chats
            join runs on runs.run_id = chats.id
            where chats.owner_id = $1
              and ($2::boolean is null or archived = $2)
              and ($3::timestamptz is null or (updated_at, chats.id) < ($3, $4::uuid))
            order by updated_at desc, chats.id desc
            limit $5
        "#,
        filter.owner.uuid(),
        filter.archived,
        filter.after.map(|after| after.updated_at.time()),
        filter.after.map(|after| after.chat.uuid()),
        i64::from(filter.limit.rows()),
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(Chat::from).collect())
}

/// Takes a model's name from a column; one that was written by other means may be refused.
pub(crate) fn stored_model(name: String) -> Option<Model> {
    Model::new(name).ok()
}
