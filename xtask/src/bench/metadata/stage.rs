//! Agents that are simply there, without being asked for over HTTP.

use anyhow::{Context, Result};
use sqlx::PgConnection;
use uuid::Uuid;

use super::key;

/// Whom a server in `dev` serves.
const OWNER: Uuid = Uuid::from_u128(0xdeb);

const AGENTS: &str = "
    insert into agents (id, owner_id, name)
    select id, $2, 'bench agent ' || place
    from unnest($1::uuid[]) with ordinality as added (id, place)";

const DEFINITIONS: &str = "
    insert into agent_metadata_definitions
        (agent_id, key, display_name, script, interval_s, timeout_s, display_order)
    select id, key, key, '', 10, 10, place
    from unnest($1::uuid[]) as id, unnest($2::text[]) with ordinality as keys (key, place)";

/// Makes so many agents, each with so many keys; returns their ids.
pub(super) async fn fill(conn: &mut PgConnection, agents: usize, keys: usize) -> Result<Vec<Uuid>> {
    let failed = "failed to make the agents";
    let ids: Vec<_> = (0..agents).map(|_| Uuid::now_v7()).collect();
    let agents = sqlx::query(AGENTS).bind(&ids).bind(OWNER);
    agents.execute(&mut *conn).await.context(failed)?;
    let keys: Vec<_> = (0..keys).map(key).collect();
    let definitions = sqlx::query(DEFINITIONS).bind(&ids).bind(keys);
    definitions.execute(&mut *conn).await.context(failed)?;
    let analyze = sqlx::raw_sql("analyze agents, agent_metadata_definitions");
    analyze.execute(conn).await.context(failed)?;
    Ok(ids)
}
