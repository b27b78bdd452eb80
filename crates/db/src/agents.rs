//! The table `agents`: who reports.

use std::collections::BTreeMap;
use std::sync::Arc;

use musterbeat_core::id::{AgentId, DefinitionsVersion, OwnerId, TokenId, WorkspaceId};
use musterbeat_core::metadata::Key;
use musterbeat_core::page::Limit;
use musterbeat_core::port::{Agent, AgentFacts, NewAgent, Reach};
use musterbeat_core::timestamp::Timestamp;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::runs::owner_of;

/// Adds an agent and its token, unless it is there.
pub async fn insert(conn: &mut PgConnection, agent: &NewAgent) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
            with added as (
                insert into agents (id, owner_id, workspace_id, name) values ($1, $2, $3, $4)
                on conflict (id) do nothing
                returning id, name
            )
            insert into tokens (id, kind, owner_id, name, hash)
            select $5, 'agent', id, name, $6 from added
        "#,
        agent.id.uuid(),
        agent.owner.uuid(),
        agent.workspace.map(WorkspaceId::uuid),
        agent.name,
        agent.token.uuid(),
        &agent.token_hash,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Takes an agent away with its definitions and values, which [`lock_others`] has locked, and
/// revokes its tokens; returns those.
///
/// [`lock_others`]: crate::agent_metadata::lock_others
pub async fn delete(
    conn: &mut PgConnection,
    agent: AgentId,
    reach: Reach,
) -> sqlx::Result<Option<Vec<TokenId>>> {
    let row = sqlx::query!(
        r#"
            with gone as (
                delete from agents where id = $1 and ($2::uuid is null or owner_id = $2)
                returning id
            ), revoked as (
                update tokens set revoked_at = now()
                where kind = 'agent' and revoked_at is null and owner_id in (select id from gone)
                returning id
            )
            select exists (select from gone) as "gone!",
                   array(select id from revoked) as "revoked!"
        "#,
        agent.uuid(),
        owner_of(reach),
    )
    .fetch_one(conn)
    .await?;
    Ok(row.gone.then(|| row.revoked.into_iter().map(TokenId::new).collect()))
}

/// Returns an owner's agents that are older than `after`, the youngest first.
pub async fn list(
    conn: &mut PgConnection,
    owner: OwnerId,
    after: Option<AgentId>,
    limit: Limit,
) -> sqlx::Result<Vec<Agent>> {
    let rows = sqlx::query!(
        r#"
            select id, owner_id, workspace_id, name, created_at
            from agents
            where owner_id = $1 and ($2::uuid is null or id < $2)
            order by id desc
            limit $3
        "#,
        owner.uuid(),
        after.map(AgentId::uuid),
        i64::from(limit.rows()),
    )
    .fetch_all(conn)
    .await?;
    let agents = rows.into_iter().map(|row| Agent {
        id: AgentId::new(row.id),
        owner: OwnerId::new(row.owner_id),
        workspace: row.workspace_id.map(WorkspaceId::new),
        name: row.name,
        created_at: Timestamp::new(row.created_at),
    });
    Ok(agents.collect())
}

/// Returns what must be known of agents to take their reports.
///
/// A key that does not fit its type was not written by this release, and is left out.
pub async fn facts(
    conn: &mut PgConnection,
    agents: &[AgentId],
) -> sqlx::Result<BTreeMap<AgentId, AgentFacts>> {
    let agents: Vec<Uuid> = agents.iter().map(|agent| agent.uuid()).collect();
    let rows = sqlx::query!(
        r#"
            select id, owner_id, workspace_id, definitions_version,
                   array(select key from agent_metadata_definitions where agent_id = agents.id)
                       as "keys!"
            from agents
            where id = any ($1)
        "#,
        &agents,
    )
    .fetch_all(conn)
    .await?;
    let facts = rows.into_iter().map(|row| {
        let keys = row.keys.into_iter().filter_map(|key| Key::new(key).ok()).collect();
        let facts = AgentFacts {
            owner: OwnerId::new(row.owner_id),
            workspace: row.workspace_id.map(WorkspaceId::new),
            version: DefinitionsVersion(row.definitions_version),
            keys: Arc::new(keys),
        };
        (AgentId::new(row.id), facts)
    });
    Ok(facts.collect())
}

/// Counts a change of an agent's definitions, and keeps others from changing them meanwhile;
/// `None` when it is not there or out of reach.
pub async fn count_definition(
    conn: &mut PgConnection,
    agent: AgentId,
    reach: Reach,
) -> sqlx::Result<Option<DefinitionsVersion>> {
    let version = sqlx::query_scalar!(
        r#"
            update agents set definitions_version = definitions_version + 1
            where id = $1 and ($2::uuid is null or owner_id = $2)
            returning definitions_version
        "#,
        agent.uuid(),
        owner_of(reach),
    )
    .fetch_optional(conn)
    .await?;
    Ok(version.map(DefinitionsVersion))
}
