//! The table `chats`.

mod family;
mod feed;

use musterbeat_core::call::{OpenCall, open_calls};
use musterbeat_core::chat::{Chat, ChatPatch, NewChat, Place, Report, SubagentLimits, Title};
use musterbeat_core::id::{
    ChatId, Fence, MessageId, OwnerId, QueuedId, Version, WorkerId, WorkspaceId,
};
use musterbeat_core::message::{Content, Model, Role};
use musterbeat_core::port::{ChatFilter, Reach};
use musterbeat_core::run::RunStatus;
use musterbeat_core::timestamp::Timestamp;
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::row::{RoleColumn, StatusColumn};
use crate::runs::owner_of;

pub use family::{Parent, ancestors, family, members, parent, set_archived};
pub use feed::feed;

/// A chat's row with its run's, as the statements of this module return it.
struct ChatRow {
    id: Uuid,
    owner_id: Uuid,
    parent_id: Option<Uuid>,
    root_id: Option<Uuid>,
    workspace_id: Option<Uuid>,
    title: String,
    model: Option<String>,
    archived: bool,
    last_read_message_id: Option<i64>,
    subagent_depth_max: Option<i16>,
    subagents_max: Option<i32>,
    status: StatusColumn,
    error: Option<String>,
    version: i64,
    created_at: OffsetDateTime,
    updated_at: OffsetDateTime,
}

/// Selects chats with their runs; the rest of the statement follows.
macro_rules! select_chats {
    ($from:literal $(+ $rest:literal)* $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            $crate::chats::ChatRow,
            r#"
                select chats.id, chats.owner_id, parent_id, root_id, workspace_id, title, model,
                       archived, last_read_message_id, subagent_depth_max, subagents_max, status as "status: StatusColumn", error,
                       version, created_at, updated_at
                from chats
                join runs on runs.run_id = chats.id
            "# + $from $(+ $rest)*
            $(, $argument)*
        )
    };
}
use select_chats;

impl From<ChatRow> for Chat {
    fn from(row: ChatRow) -> Self {
        Self {
            id: ChatId::new(row.id),
            owner: OwnerId::new(row.owner_id),
            parent: row.parent_id.map(ChatId::new),
            root: row.root_id.map(ChatId::new),
            workspace: row.workspace_id.map(WorkspaceId::new),
            title: row.title,
            model: row.model.and_then(stored_model),
            archived: row.archived,
            last_read: row.last_read_message_id.map(MessageId),
            limits: stored_limits(row.subagent_depth_max, row.subagents_max),
            status: RunStatus::from(row.status),
            error: row.error,
            version: Version(row.version),
            created_at: Timestamp::new(row.created_at),
            updated_at: Timestamp::new(row.updated_at),
        }
    }
}

/// What a decision needs of a chat beside its run.
#[derive(Clone, Debug)]
pub struct ChatFacts {
    /// Which chat.
    pub chat: ChatId,
    /// Whether it was put away.
    pub archived: bool,
    /// Whether it has a parent.
    pub is_child: bool,
    /// How many turns wait.
    pub queued: u32,
    /// Calls of tools that nobody has answered.
    pub open: Vec<OpenCall>,
    /// The role of the message that was named, when it is in the history.
    pub named_message: Option<Role>,
    /// Whether the named turn waits.
    pub named_queued: bool,
}

/// Adds a chat whose run was added before, in the same transaction.
///
/// A child takes from `parent` what it does not bring itself.
pub async fn insert(
    conn: &mut PgConnection,
    chat: &NewChat,
    parent: Option<&Parent>,
    now: Option<Timestamp>,
) -> sqlx::Result<()> {
    let workspace = chat.workspace.or(parent.and_then(|parent| parent.workspace));
    let inherited = parent.and_then(|parent| parent.model.as_ref());
    sqlx::query!(
        r#"
            insert into chats
                (id, owner_id, parent_id, root_id, workspace_id, model, title,
                 subagent_depth_max, subagents_max, created_at, updated_at)
            values ($1, $2, $3, $4, $5, $6, $7, $9, $10,
                    coalesce($8::timestamptz, now()), coalesce($8, now()))
        "#,
        chat.id.uuid(),
        parent.map_or(chat.owner, |parent| parent.owner).uuid(),
        parent.map(|parent| parent.chat.uuid()),
        parent.map(|parent| parent.root.uuid()),
        workspace.map(WorkspaceId::uuid),
        chat.turn.model.as_ref().or(inherited).map(Model::as_str),
        chat.title.as_str(),
        now.map(Timestamp::time),
        chat.limits.depth_max.map(stored_depth),
        chat.limits.at_work_max.map(stored_count),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Returns what decisions need of `chats`; their runs must be locked by an earlier statement.
///
/// Open calls are looked for from the last message of the assistant on: an earlier one has none.
pub async fn facts(
    conn: &mut PgConnection,
    chats: &[ChatId],
    message: Option<MessageId>,
    queued: Option<QueuedId>,
) -> sqlx::Result<Vec<ChatFacts>> {
    let ids: Vec<Uuid> = chats.iter().map(|chat| chat.uuid()).collect();
    let rows = sqlx::query!(
        r#"
            select chats.id, archived, parent_id is not null as "is_child!",
                   (select count(*) from chat_queued_messages where chat_id = chats.id) as "queued!",
                   (
                       select jsonb_agg(
                           jsonb_path_query_array(
                               said.content,
                               '$[*] ? (@.type == "tool_call" || @.type == "tool_result")'
                           )
                           order by said.id
                       )
                       from chat_messages as said
                       where said.chat_id = chats.id
                         and not said.deleted
                         and said.role in ('assistant', 'tool')
                         and said.id >= (
                             select last.id
                             from chat_messages as last
                             where last.chat_id = chats.id
                               and last.role = 'assistant'
                               and not last.deleted
                             order by last.id desc
                             limit 1
                         )
                   ) as "calls: Json<Vec<Content>>",
                   (
                       select role
                       from chat_messages
                       where id = $2
                         and chat_id = chats.id
                         and not deleted
                         and visibility in ('user', 'both')
                   ) as "named_message: RoleColumn",
                   exists (
                       select from chat_queued_messages where id = $3 and chat_id = chats.id
                   ) as "named_queued!"
            from chats
            where chats.id = any ($1)
            order by chats.id
        "#,
        &ids,
        message.map(|message| message.0),
        queued.map(|queued| queued.0),
    )
    .fetch_all(conn)
    .await?;
    let facts = rows.into_iter().map(|row| ChatFacts {
        chat: ChatId::new(row.id),
        archived: row.archived,
        is_child: row.is_child,
        queued: u32::try_from(row.queued).unwrap_or(u32::MAX),
        open: row.calls.map_or_else(Vec::new, |Json(calls)| open_calls(&calls)),
        named_message: row.named_message.map(Role::from),
        named_queued: row.named_queued,
    });
    Ok(facts.collect())
}

/// Moves a chat to the front of its owner's list.
pub async fn touch(
    conn: &mut PgConnection,
    chat: ChatId,
    now: Option<Timestamp>,
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
            update chats
            set updated_at = greatest(updated_at, coalesce($2::timestamptz, now())),
                changed_in = default
            where id = $1
        "#,
        chat.uuid(),
        now.map(Timestamp::time),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Changes what is no history; false when the chat is not there or out of reach, or has a parent
/// and would get limits of its own.
///
/// Neither read marker nor limits move the chat in its owner's list, and the former never goes
/// back.
pub async fn update(
    conn: &mut PgConnection,
    chat: ChatId,
    reach: Reach,
    patch: &ChatPatch,
    now: Option<Timestamp>,
) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        r#"
            update chats
            set title = coalesce($3, title),
                workspace_id = case when $4 then $5 else workspace_id end,
                last_read_message_id = greatest(last_read_message_id, $6),
                updated_at = case
                    when $4 or $3::text is not null
                    then greatest(updated_at, coalesce($7::timestamptz, now()))
                    else updated_at
                end,
                subagent_depth_max = case when $8 then $9 else subagent_depth_max end,
                subagents_max = case when $10 then $11 else subagents_max end,
                changed_in = default
            where id = $1
              and ($2::uuid is null or owner_id = $2)
              and (parent_id is null or not ($8 or $10))
        "#,
        chat.uuid(),
        owner_of(reach),
        patch.title.as_ref().map(Title::as_str),
        patch.workspace.is_some(),
        patch.workspace.flatten().map(WorkspaceId::uuid),
        patch.last_read.map(|message| message.0),
        now.map(Timestamp::time),
        patch.subagent_depth_max.is_some(),
        patch.subagent_depth_max.flatten().map(stored_depth),
        patch.subagents_max.is_some(),
        patch.subagents_max.flatten().map(stored_count),
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Returns a chat, `None` when it is not there or out of reach.
pub async fn get(
    conn: &mut PgConnection,
    chat: ChatId,
    reach: Reach,
) -> sqlx::Result<Option<Chat>> {
    let query = select_chats!(
        "where chats.id = $1 and ($2::uuid is null or chats.owner_id = $2)",
        chat.uuid(),
        owner_of(reach),
    );
    Ok(query.fetch_optional(conn).await?.map(Chat::from))
}

/// Returns a page of one owner's chats, the last updated first.
pub async fn list(conn: &mut PgConnection, filter: &ChatFilter) -> sqlx::Result<Vec<Chat>> {
    let query = select_chats!(
        r#"
            where chats.owner_id = $1
              and ($2::boolean is null or archived = $2)
              and ($3::timestamptz is null or (updated_at, chats.id) < ($3, $4::uuid))
            order by updated_at desc, chats.id desc
            limit $5
        "#,
        filter.owner.uuid(),
        filter.archived,
        filter.after.map(|after| after.at.time()),
        filter.after.map(|after| after.chat.uuid()),
        i64::from(filter.limit.rows()),
    );
    Ok(query.fetch_all(conn).await?.into_iter().map(Chat::from).collect())
}

/// Returns who works on a chat, `None` when nobody does.
pub async fn place(conn: &mut PgConnection, chat: ChatId) -> sqlx::Result<Option<Place>> {
    let row = sqlx::query!(
        r#"
            select runs.worker_id as "worker_id!", fence, advertise_url as "advertise_url?"
            from runs
            left join worker_leases as lease on lease.worker_id = runs.worker_id
            where run_id = $1 and status in ('running', 'interrupting')
        "#,
        chat.uuid(),
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| Place {
        worker: WorkerId::new(row.worker_id),
        fence: Fence(row.fence),
        advertise_url: row.advertise_url,
    }))
}

/// Returns how a chat stands, with the last that its assistant said to its user in words.
pub async fn report(
    conn: &mut PgConnection,
    chat: ChatId,
    reach: Reach,
) -> sqlx::Result<Option<Report>> {
    let row = sqlx::query!(
        r#"
            select status as "status: StatusColumn", error, version,
                   (
                       select content
                       from chat_messages
                       where chat_id = runs.run_id
                         and role = 'assistant'
                         and visibility in ('user', 'both')
                         and not deleted
                         and jsonb_path_exists(
                             content, '$[*] ? (@.type == "text" && @.text like_regex "\\S")'
                         )
                       order by id desc
                       limit 1
                   ) as "content: Json<Content>"
            from runs
            where run_id = $1
              and kind = 'chat'
              and ($2::uuid is null or owner_id = $2)
        "#,
        chat.uuid(),
        owner_of(reach),
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| Report {
        chat,
        status: row.status.into(),
        error: row.error,
        version: Version(row.version),
        text: row.content.map(|Json(content)| content.to_text()),
    }))
}

/// Takes limits from their columns; none is negative.
pub(crate) fn stored_limits(depth_max: Option<i16>, at_work_max: Option<i32>) -> SubagentLimits {
    SubagentLimits {
        depth_max: depth_max.and_then(|depth| u32::try_from(depth).ok()),
        at_work_max: at_work_max.and_then(|count| u32::try_from(count).ok()),
    }
}

/// Returns a limit as its column has it; limits are checked to fit.
fn stored_depth(depth: u32) -> i16 {
    i16::try_from(depth).unwrap_or(i16::MAX)
}

fn stored_count(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

/// Takes a model's name from a column; one that was written by other means may be refused.
pub(crate) fn stored_model(name: String) -> Option<Model> {
    Model::new(name).ok()
}
