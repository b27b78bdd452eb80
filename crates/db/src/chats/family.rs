//! Parents, children, and what is done to a whole family.

use musterbeat_core::chat::{Chat, SubagentLimits};
use musterbeat_core::id::{ChatId, OwnerId, WorkspaceId};
use musterbeat_core::lineage::{DEPTH_MAX, Lineage};
use musterbeat_core::message::Model;
use musterbeat_core::port::{FamilyFilter, Kin, Reach};
use musterbeat_core::timestamp::Timestamp;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{select_chats, stored_limits, stored_model};
use crate::row::StatusColumn;
use crate::runs::owner_of;

/// What a child takes from its parent.
#[derive(Clone, Debug)]
pub struct Parent {
    /// The parent.
    pub chat: ChatId,
    /// The root of the family: the parent, when that has none.
    pub root: ChatId,
    /// Whose both are.
    pub owner: OwnerId,
    /// Which workspace the parent works in.
    pub workspace: Option<WorkspaceId>,
    /// The parent's model.
    pub model: Option<Model>,
    /// Whether parent or root were put away.
    pub archived: bool,
    /// What the root allows its family.
    pub limits: SubagentLimits,
}

/// Returns what a child would take from a chat, `None` when that is not there or out of reach.
///
/// Whether it is archived counts only under the lock of its root's run.
pub async fn parent(
    conn: &mut PgConnection,
    chat: ChatId,
    reach: Reach,
) -> sqlx::Result<Option<Parent>> {
    let row = sqlx::query!(
        r#"
            select parent.owner_id, coalesce(parent.root_id, parent.id) as "root_id!",
                   parent.workspace_id, parent.model,
                   parent.archived or coalesce(root.archived, false) as "archived!",
                   coalesce(root.subagent_depth_max, parent.subagent_depth_max) as depth_max,
                   coalesce(root.subagents_max, parent.subagents_max) as at_work_max
            from chats as parent
            left join chats as root on root.id = parent.root_id
            where parent.id = $1
              and ($2::uuid is null or parent.owner_id = $2)
        "#,
        chat.uuid(),
        owner_of(reach),
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| Parent {
        chat,
        root: ChatId::new(row.root_id),
        owner: OwnerId::new(row.owner_id),
        workspace: row.workspace_id.map(WorkspaceId::new),
        model: row.model.and_then(stored_model),
        archived: row.archived,
        limits: stored_limits(row.depth_max, row.at_work_max),
    }))
}

/// Returns a chat's ancestors, the nearest first.
///
/// It stops at a chat that it has met, so a cycle does not hold it up, and after more than
/// [`DEPTH_MAX`] of them.
pub async fn ancestors(conn: &mut PgConnection, chat: ChatId) -> sqlx::Result<Lineage> {
    let ids = sqlx::query_scalar!(
        r#"
            with recursive chain as (
                select parent_id as id, 1 as depth, array[id] as met
                from chats
                where id = $1
                union all
                select chats.parent_id, chain.depth + 1, chain.met || chats.id
                from chain
                join chats on chats.id = chain.id
                where chain.depth <= $2
                  and not chats.id = any (chain.met)
            )
            select chain.id as "id!"
            from chain
            join chats using (id)
            where not chain.id = any (chain.met)
            order by depth
        "#,
        chat.uuid(),
        i32::try_from(DEPTH_MAX).unwrap_or(i32::MAX),
    )
    .fetch_all(conn)
    .await?;
    Ok(Lineage { chat, ancestors: ids.into_iter().map(ChatId::new).collect() })
}

/// Returns a page of the children or descendants of a chat, the oldest first.
pub async fn family(conn: &mut PgConnection, filter: &FamilyFilter) -> sqlx::Result<Vec<Chat>> {
    let (after, after_id) = filter.after.map(|after| (after.at.time(), after.chat.uuid())).unzip();
    let (of, owner, limit) =
        (filter.of.uuid(), owner_of(filter.reach), i64::from(filter.limit.rows()));
    macro_rules! related_by {
        ($column:literal) => {
            select_chats!(
                "where " + $column + r#" = $1
                      and ($2::uuid is null or chats.owner_id = $2)
                      and ($3::timestamptz is null or (created_at, chats.id) > ($3, $4::uuid))
                    order by created_at, chats.id
                    limit $5
                "#,
                of,
                owner,
                after,
                after_id,
                limit,
            )
            .fetch_all(conn)
            .await?
        };
    }
    let rows = match filter.kin {
        Kin::Children => related_by!("parent_id"),
        Kin::Descendants => related_by!("root_id"),
    };
    Ok(rows.into_iter().map(Chat::from).collect())
}

/// Returns a root and all that descend from it; the root's run must be locked before.
pub async fn members(conn: &mut PgConnection, root: ChatId) -> sqlx::Result<Vec<ChatId>> {
    let ids = sqlx::query_scalar!(
        "select id from chats where id = $1 or root_id = $1 order by id",
        root.uuid(),
    )
    .fetch_all(conn)
    .await?;
    Ok(ids.into_iter().map(ChatId::new).collect())
}

/// Puts chats away or takes them out again, in one statement.
pub async fn set_archived(
    conn: &mut PgConnection,
    chats: &[ChatId],
    archived: bool,
    now: Option<Timestamp>,
) -> sqlx::Result<()> {
    let ids: Vec<Uuid> = chats.iter().map(|chat| chat.uuid()).collect();
    sqlx::query!(
        r#"
            update chats
            set archived = $2,
                updated_at = greatest(updated_at, coalesce($3::timestamptz, now())),
                changed_in = default
            where id = any ($1) and archived <> $2
        "#,
        &ids,
        archived,
        now.map(Timestamp::time),
    )
    .execute(conn)
    .await?;
    Ok(())
}
