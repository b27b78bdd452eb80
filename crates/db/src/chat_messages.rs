//! The table `chat_messages`: what was said.

use musterbeat_core::chat::SubagentLimits;
use musterbeat_core::id::{ChatId, MessageId, OwnerId, Version};
use musterbeat_core::lineage::DEPTH_MAX;
use musterbeat_core::message::{Content, Message, Model, NewMessage, Role, Usage};
use musterbeat_core::page::{MESSAGES_MAX, MessagePage, PAGE_BYTES_MAX};
use musterbeat_core::timestamp::Timestamp;
use serde_json::value::RawValue;
use sqlx::PgConnection;
use sqlx::types::Json;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::chats::{stored_limits, stored_model};
use crate::row::{RoleColumn, VisibilityColumn};

/// Makes the row of a statement that selects messages; further columns follow theirs.
macro_rules! message_row {
    ($row:ident { $($column:ident: $type:ty),* $(,)? }) => {
        struct $row {
            id: i64,
            chat_id: Uuid,
            version: i64,
            role: RoleColumn,
            content: Json<Content>,
            visibility: VisibilityColumn,
            compressed: bool,
            deleted: bool,
            model: Option<String>,
            created_by: Option<Uuid>,
            input_tokens: Option<i64>,
            output_tokens: Option<i64>,
            total_tokens: Option<i64>,
            reasoning_tokens: Option<i64>,
            cache_creation_tokens: Option<i64>,
            cache_read_tokens: Option<i64>,
            context_limit: Option<i64>,
            created_at: OffsetDateTime,
            $($column: $type,)*
        }

        impl From<$row> for Message {
            fn from(row: $row) -> Self {
                Self {
                    id: MessageId(row.id),
                    chat_id: ChatId::new(row.chat_id),
                    version: Version(row.version),
                    role: row.role.into(),
                    content: row.content.0,
                    visibility: row.visibility.into(),
                    compressed: row.compressed,
                    deleted: row.deleted,
                    model: row.model.and_then(stored_model),
                    created_by: row.created_by.map(OwnerId::new),
                    usage: Usage {
                        input_tokens: row.input_tokens,
                        output_tokens: row.output_tokens,
                        total_tokens: row.total_tokens,
                        reasoning_tokens: row.reasoning_tokens,
                        cache_creation_tokens: row.cache_creation_tokens,
                        cache_read_tokens: row.cache_read_tokens,
                        context_limit: row.context_limit,
                    },
                    created_at: Timestamp::new(row.created_at),
                }
            }
        }
    };
}

message_row!(MessageRow {});
message_row!(PageRow { content_bytes: i64 });
message_row!(PromptRow { depth: i32, depth_max: Option<i16>, at_work_max: Option<i32> });

/// Selects messages; what precedes the `select` may come first, and what follows the columns comes
/// last.
macro_rules! select_messages {
    ($from:literal $(, $argument:expr)* $(,)?) => {
        select_messages!(MessageRow, "", $from $(, $argument)*)
    };
    ($row:ident, $with:literal, $from:literal $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            $row,
            $with + r#"
                select id, chat_id, version, role as "role: RoleColumn",
                       content as "content: Json<Content>",
                       visibility as "visibility: VisibilityColumn",
                       compressed, deleted, model, created_by, input_tokens, output_tokens,
                       total_tokens, reasoning_tokens, cache_creation_tokens, cache_read_tokens,
                       context_limit, created_at
            "# + $from
            $(, $argument)*
        )
    };
}

/// A message on its way into the history of a chat whose run is locked.
#[derive(Clone, Copy, Debug)]
pub struct Addition<'a> {
    /// The chat.
    pub chat: ChatId,
    /// The chat's version that brings the message.
    pub version: Version,
    /// The message.
    pub message: &'a NewMessage,
}

/// Appends messages in their order and returns their ids; the runs' rows must be locked.
///
/// One statement: ids ascend in the order of `messages`, because the sort by ordinality is
/// explicit, and the chats' models move with it where messages name one. Chats of `moved` go to
/// the front of their owners' lists.
pub async fn append(
    conn: &mut PgConnection,
    messages: &[Addition<'_>],
    moved: &[ChatId],
    now: Option<Timestamp>,
) -> sqlx::Result<Vec<MessageId>> {
    let moved: Vec<Uuid> = moved.iter().map(|chat| chat.uuid()).collect();
    let new = Columns::of(messages);
    let ids = sqlx::query_scalar!(
        r#"
            with new as materialized (
                select *
                from unnest(
                    $1::uuid[], $2::bigint[], $3::message_role[], $4::jsonb[],
                    $5::message_visibility[], $6::boolean[], $7::text[], $8::uuid[], $9::bigint[],
                    $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[],
                    $15::bigint[]
                ) with ordinality as new (
                    chat_id, version, role, content, visibility, compressed, model, created_by, input,
                    output, total, reasoning, cache_creation, cache_read, context_limit, position
                )
            ), moving as (
                update chats
                set model = coalesce((
                        select new.model from new where new.chat_id = chats.id and new.model is not null
                        order by new.position desc limit 1
                    ), model),
                    updated_at = case
                        when id = any ($16) then greatest(updated_at, coalesce($17::timestamptz, now()))
                        else updated_at
                    end,
                    changed_in = default
                where id = any ($16)
                   or id = any (array(select chat_id from new where new.model is not null))
            )
            insert into chat_messages (
                chat_id, version, role, content, visibility, compressed, model, created_by,
                input_tokens, output_tokens, total_tokens, reasoning_tokens, cache_creation_tokens,
                cache_read_tokens, context_limit, created_at
            )
            select chat_id, version, role, content, visibility, compressed, model, created_by,
                   input, output, total, reasoning, cache_creation, cache_read, context_limit,
                   coalesce($17::timestamptz, now())
            from new
            order by position
            returning id
        "#,
        &new.chats,
        &new.versions,
        &new.roles as &[RoleColumn],
        &new.contents as &[Json<&RawValue>],
        &new.visibilities as &[VisibilityColumn],
        &new.compressed,
        &new.models as &[Option<&str>],
        &new.creators as &[Option<Uuid>],
        &new.usage(|usage| usage.input_tokens) as &[Option<i64>],
        &new.usage(|usage| usage.output_tokens) as &[Option<i64>],
        &new.usage(|usage| usage.total_tokens) as &[Option<i64>],
        &new.usage(|usage| usage.reasoning_tokens) as &[Option<i64>],
        &new.usage(|usage| usage.cache_creation_tokens) as &[Option<i64>],
        &new.usage(|usage| usage.cache_read_tokens) as &[Option<i64>],
        &new.usage(|usage| usage.context_limit) as &[Option<i64>],
        &moved,
        now.map(Timestamp::time),
    )
    .fetch_all(conn)
    .await?;
    Ok(ids.into_iter().map(MessageId).collect())
}

/// Messages on their way, one array a column.
struct Columns<'a> {
    chats: Vec<Uuid>,
    versions: Vec<i64>,
    roles: Vec<RoleColumn>,
    contents: Vec<Json<&'a RawValue>>,
    visibilities: Vec<VisibilityColumn>,
    compressed: Vec<bool>,
    models: Vec<Option<&'a str>>,
    creators: Vec<Option<Uuid>>,
    usages: Vec<Usage>,
}

impl<'a> Columns<'a> {
    fn of(additions: &[Addition<'a>]) -> Self {
        let messages = || additions.iter().map(|addition| addition.message);
        Self {
            chats: additions.iter().map(|addition| addition.chat.uuid()).collect(),
            versions: additions.iter().map(|addition| addition.version.0).collect(),
            roles: messages().map(|new| new.role.into()).collect(),
            contents: messages().map(|new| Json(new.content.encoded())).collect(),
            visibilities: messages().map(|new| new.visibility.into()).collect(),
            compressed: messages().map(|new| new.compressed).collect(),
            models: messages().map(|new| new.model.as_ref().map(Model::as_str)).collect(),
            creators: messages().map(|new| new.created_by.map(OwnerId::uuid)).collect(),
            usages: messages().map(|new| new.usage).collect(),
        }
    }

    fn usage(&self, of: impl Fn(&Usage) -> Option<i64>) -> Vec<Option<i64>> {
        self.usages.iter().map(of).collect()
    }
}

/// Takes messages out of a chat's history, those from `first` on or all; returns how many.
///
/// The run's row must be locked. They are kept, so that readers learn of it.
pub async fn delete(
    conn: &mut PgConnection,
    chat: ChatId,
    version: Version,
    first: Option<MessageId>,
) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        r#"
            update chat_messages
            set deleted = true, version = $2
            where chat_id = $1 and id >= coalesce($3::bigint, 0) and not deleted
        "#,
        chat.uuid(),
        version.0,
        first.map(|first| first.0),
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// Replaces what a message says, and its model when one is given; `None` when it is not there.
///
/// The run's row must be locked.
pub async fn rewrite(
    conn: &mut PgConnection,
    message: MessageId,
    version: Version,
    content: &Content,
    model: Option<&Model>,
) -> sqlx::Result<Option<()>> {
    let done = sqlx::query!(
        r#"
            update chat_messages
            set content = $2, model = coalesce($3, model), version = $4
            where id = $1 and not deleted
        "#,
        message.0,
        Json(content) as Json<&Content>,
        model.map(Model::as_str),
        version.0,
    )
    .execute(conn)
    .await?;
    Ok((done.rows_affected() == 1).then_some(()))
}

/// Returns a message, deleted or not; `None` when there is none.
pub async fn get(conn: &mut PgConnection, message: MessageId) -> sqlx::Result<Option<Message>> {
    let query = select_messages!("from chat_messages where id = $1", message.0);
    Ok(query.fetch_optional(conn).await?.map(Message::from))
}

/// Returns the newest message of a role that is in the history.
pub async fn last_of_role(
    conn: &mut PgConnection,
    chat: ChatId,
    role: Role,
) -> sqlx::Result<Option<Message>> {
    let query = select_messages!(
        r#"
            from chat_messages
            where chat_id = $1 and role = $2 and not deleted
            order by id desc
            limit 1
        "#,
        chat.uuid(),
        RoleColumn::from(role) as RoleColumn,
    );
    Ok(query.fetch_optional(conn).await?.map(Message::from))
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
    let query = select_messages!(
        PageRow,
        "",
        r#"
                   , content_bytes as "content_bytes!"
            from (
                select *,
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
    );
    let rows = query.fetch_all(conn).await?;
    let bytes: i64 = rows.iter().map(|row| row.content_bytes).sum();
    let full = rows.len() >= MESSAGES_MAX as usize || bytes >= i64::from(PAGE_BYTES_MAX);
    Ok(MessagePage { messages: rows.into_iter().map(Message::from).collect(), full })
}

/// Where a chat stands in its family.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// How many ancestors it has.
    pub depth: usize,
    /// What the root allows its family.
    pub limits: SubagentLimits,
}

/// Returns the history as a model should see it, oldest first, and where its chat stands.
///
/// The newest summary is the boundary: system messages that no summary stands for, the boundary
/// itself, and what came after it. Ancestors are counted by a walk up, which a cycle ends after
/// more than [`DEPTH_MAX`]. A chat without a history is shown as a root. The root is read by scalar
/// queries: joined, it would be looked up for each message.
pub async fn prompt(
    conn: &mut PgConnection,
    chat: ChatId,
) -> sqlx::Result<(Vec<Message>, Standing)> {
    let query = select_messages!(
        PromptRow,
        r#"
            with recursive line as (
                select parent_id, 0 as depth
                from chats
                where id = $1
                union all
                select chats.parent_id, line.depth + 1
                from line
                join chats on chats.id = line.parent_id
                where line.depth <= $2
            ), root as materialized (
                select subagent_depth_max, subagents_max
                from chats
                where id = (select coalesce(root_id, id) from chats where id = $1)
            )
        "#,
        r#"
                   , (select max(depth) from line) as "depth!",
                   (select subagent_depth_max from root) as depth_max,
                   (select subagents_max from root) as at_work_max
            from chat_messages
            cross join (
                select max(summary.id) as boundary
                from chat_messages as summary
                where summary.chat_id = $1
                  and summary.compressed
                  and not summary.deleted
                  and summary.visibility = 'model'
            ) as newest
            where chat_id = $1
              and not deleted
              and visibility in ('model', 'both')
              and (
                  (not compressed and (role = 'system' or id > coalesce(boundary, 0)))
                  or id = boundary
              )
            order by id
        "#,
        chat.uuid(),
        i32::try_from(DEPTH_MAX).unwrap_or(i32::MAX),
    );
    let rows = query.fetch_all(conn).await?;
    let standing = rows.first().map(|row| Standing {
        depth: usize::try_from(row.depth).unwrap_or(usize::MAX),
        limits: stored_limits(row.depth_max, row.at_work_max),
    });
    Ok((rows.into_iter().map(Message::from).collect(), standing.unwrap_or_default()))
}
