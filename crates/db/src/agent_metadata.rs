//! The tables `agent_metadata_definitions` and `agent_metadata`.

use std::collections::BTreeMap;

use musterbeat_core::id::{AgentId, DefinitionsVersion};
use musterbeat_core::metadata::{Definition, Definitions, Key, Reading, Readings, Sample};
use musterbeat_core::port::{KeyedSample, Reach};
use musterbeat_core::timestamp::Timestamp;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::error::is_dangling;
use crate::runs::owner_of;

/// How often a write is made again because keys were taken away while it was made.
const REDEFINED_MAX: usize = 5;

/// Replaces what a locked agent is to report; values go with their definitions.
pub async fn define(
    conn: &mut PgConnection,
    agent: AgentId,
    definitions: &Definitions,
) -> sqlx::Result<()> {
    let definitions = definitions.as_slice();
    let texts = |text: fn(&Definition) -> &str| -> Vec<String> {
        definitions.iter().map(|definition| text(definition).to_owned()).collect()
    };
    let numbers =
        |number: fn(&Definition) -> i32| -> Vec<i32> { definitions.iter().map(number).collect() };
    sqlx::query!(
        r#"
            with given as (
                select *
                from unnest($2::text[], $3::text[], $4::text[], $5::int[], $6::int[], $7::int[])
                    as given (key, display_name, script, interval_s, timeout_s, display_order)
            ), gone as (
                delete from agent_metadata_definitions
                where agent_id = $1 and key not in (select key from given)
            )
            insert into agent_metadata_definitions
                (agent_id, key, display_name, script, interval_s, timeout_s, display_order)
            select $1, given.* from given
            on conflict (agent_id, key) do update
            set (display_name, script, interval_s, timeout_s, display_order) =
                (excluded.display_name, excluded.script, excluded.interval_s, excluded.timeout_s,
                 excluded.display_order)
        "#,
        agent.uuid(),
        &texts(|definition| definition.key.as_str()),
        &texts(|definition| &definition.display_name),
        &texts(|definition| &definition.script),
        &numbers(|definition| definition.interval_seconds.cast_signed()),
        &numbers(|definition| definition.timeout_seconds.cast_signed()),
        &numbers(|definition| definition.display_order),
    )
    .execute(conn)
    .await?;
    Ok(())
}

struct ReportRow {
    agent_id: Uuid,
    definitions_version: i64,
    key: String,
    display_name: String,
    script: String,
    interval_s: i32,
    timeout_s: i32,
    display_order: i32,
    value: Option<String>,
    error: Option<String>,
    collected_at: Option<OffsetDateTime>,
}

impl ReportRow {
    /// A key that does not fit its type was not written by this release, and is left out.
    fn reading(self) -> Option<Reading> {
        let definition = Definition {
            key: Key::new(self.key).ok()?,
            display_name: self.display_name,
            script: self.script,
            interval_seconds: self.interval_s.cast_unsigned(),
            timeout_seconds: self.timeout_s.cast_unsigned(),
            display_order: self.display_order,
        };
        let last = match (self.value, self.error, self.collected_at) {
            (Some(value), Some(error), Some(time)) => {
                Some(Sample { value, error, collected_at: Timestamp::new(time) })
            }
            _ => None,
        };
        Some(Reading { definition, last })
    }
}

/// Returns what agents are to report and what they reported last, in the order of display.
///
/// An agent without definitions is there with nothing, one out of reach is absent.
pub async fn read(
    conn: &mut PgConnection,
    agents: &[AgentId],
    reach: Reach,
) -> sqlx::Result<BTreeMap<AgentId, Readings>> {
    let agents: Vec<Uuid> = agents.iter().map(|agent| agent.uuid()).collect();
    let rows = sqlx::query_as!(
        ReportRow,
        r#"
            select agents.id as agent_id, agents.definitions_version,
                   coalesce(d.key, '') as "key!",
                   coalesce(d.display_name, '') as "display_name!",
                   coalesce(d.script, '') as "script!",
                   coalesce(d.interval_s, 0) as "interval_s!",
                   coalesce(d.timeout_s, 0) as "timeout_s!",
                   coalesce(d.display_order, 0) as "display_order!",
                   m.value as "value?", m.error as "error?", m.collected_at as "collected_at?"
            from agents
            left join agent_metadata_definitions d on d.agent_id = agents.id
            left join agent_metadata m on m.agent_id = agents.id and m.key = d.key
            where agents.id = any ($1) and ($2::uuid is null or agents.owner_id = $2)
            order by agents.id, d.display_order, d.key
        "#,
        &agents,
        owner_of(reach),
    )
    .fetch_all(conn)
    .await?;
    let mut found: BTreeMap<_, Readings> = BTreeMap::new();
    for row in rows {
        let of_agent = found.entry(AgentId::new(row.agent_id)).or_default();
        of_agent.version = DefinitionsVersion(row.definitions_version);
        of_agent.readings.extend(row.reading());
    }
    Ok(found)
}

/// Locks the values of an agent's keys but for `kept`, in the order in which all who write lock
/// them: what is deleted next waits for nobody who waits for it.
pub async fn lock_others(
    conn: &mut PgConnection,
    agent: AgentId,
    kept: &[String],
) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
            select key from agent_metadata
            where agent_id = $1 and key <> all ($2)
            order by key
            for update
        "#,
        agent.uuid(),
        kept,
    )
    .fetch_all(conn)
    .await?;
    Ok(())
}

/// Writes samples of defined keys, unless what is stored is newer; returns whose values changed.
///
/// No time of the future is stored: it would keep out what comes later. A value that is as old as
/// the stored one is written again: the answer to a former attempt may have been lost, and with it
/// the word of what it changed.
///
/// Not for within a transaction: the first attempt may fail, when a key is not defined any more.
pub async fn write(conn: &mut PgConnection, samples: &[KeyedSample]) -> sqlx::Result<Vec<AgentId>> {
    let rows = Rows::of(samples);
    let mut written = write_all(conn, &rows).await;
    for _ in 0..REDEFINED_MAX {
        if !written.as_ref().is_err_and(is_dangling) {
            break;
        }
        written = write_defined(conn, &rows).await;
    }
    Ok(written?.into_iter().map(AgentId::new).collect())
}

/// Values to write, each key once, in the order of agents and of the keys' bytes: the order in
/// which the rows are locked, by all who write.
struct Rows<'a> {
    agents: Vec<Uuid>,
    keys: Vec<&'a str>,
    values: Vec<&'a str>,
    errors: Vec<&'a str>,
    times: Vec<OffsetDateTime>,
}

impl<'a> Rows<'a> {
    fn of(samples: &'a [KeyedSample]) -> Self {
        let mut sorted: Vec<&KeyedSample> = samples.iter().collect();
        // Of two of one time the later one stays the later one.
        sorted.sort_by(|(one, former), (other, latter)| {
            one.cmp(other).then(former.collected_at.cmp(&latter.collected_at))
        });
        let of_keys = sorted.chunk_by(|(one, _), (other, _)| one == other);
        let newest: Vec<&KeyedSample> = of_keys.filter_map(|same| same.last().copied()).collect();
        Self {
            agents: newest.iter().map(|((agent, _), _)| agent.uuid()).collect(),
            keys: newest.iter().map(|((_, key), _)| key.as_str()).collect(),
            values: newest.iter().map(|(_, sample)| sample.value.as_str()).collect(),
            errors: newest.iter().map(|(_, sample)| sample.error.as_str()).collect(),
            times: newest.iter().map(|(_, sample)| sample.collected_at.time()).collect(),
        }
    }
}

/// Writes rows of which all are thought to be defined: new ones are checked by the foreign key,
/// those that are there need no check, since they go with their definitions.
async fn write_all(conn: &mut PgConnection, rows: &Rows<'_>) -> sqlx::Result<Vec<Uuid>> {
    sqlx::query_scalar!(
        r#"
            with written as (
                insert into agent_metadata as stored (agent_id, key, value, error, collected_at)
                select agent_id, key, value, error, least(collected_at, now())
                from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::timestamptz[])
                    as sent (agent_id, key, value, error, collected_at)
                on conflict (agent_id, key) do update
                set (value, error, collected_at) =
                    (excluded.value, excluded.error, excluded.collected_at)
                where stored.collected_at <= excluded.collected_at
                returning agent_id
            )
            select distinct agent_id from written
        "#,
        &rows.agents,
        &rows.keys as &[&str],
        &rows.values as &[&str],
        &rows.errors as &[&str],
        &rows.times,
    )
    .fetch_all(conn)
    .await
}

/// Writes those rows that are defined.
///
/// Definitions are not locked: whoever takes them away locks values first, too, and then them.
/// One that is taken away meanwhile fails the write.
async fn write_defined(conn: &mut PgConnection, rows: &Rows<'_>) -> sqlx::Result<Vec<Uuid>> {
    sqlx::query_scalar!(
        r#"
            with written as (
                insert into agent_metadata as stored (agent_id, key, value, error, collected_at)
                select agent_id, key, value, error, least(collected_at, now())
                from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::timestamptz[])
                    as sent (agent_id, key, value, error, collected_at)
                join agent_metadata_definitions using (agent_id, key)
                order by agent_id, key collate "C"
                on conflict (agent_id, key) do update
                set (value, error, collected_at) =
                    (excluded.value, excluded.error, excluded.collected_at)
                where stored.collected_at <= excluded.collected_at
                returning agent_id
            )
            select distinct agent_id from written
        "#,
        &rows.agents,
        &rows.keys as &[&str],
        &rows.values as &[&str],
        &rows.errors as &[&str],
        &rows.times,
    )
    .fetch_all(conn)
    .await
}
