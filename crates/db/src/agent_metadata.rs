//! The tables `agent_metadata_definitions` and `agent_metadata`.

use std::collections::BTreeMap;

use musterbeat_core::id::{AgentId, DefinitionsVersion};
use musterbeat_core::metadata::{Definition, Definitions, Key, Reading, Readings, Sample};
use musterbeat_core::port::{KeyedSample, Reach};
use musterbeat_core::timestamp::Timestamp;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::runs::owner_of;

/// Replaces what a locked agent is to report, in one statement.
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
            ), gone_values as (
                delete from agent_metadata
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

/// Writes samples of defined keys, unless what is stored is newer; returns whose values changed.
///
/// No time of the future is stored: it would keep out what comes later.
///
/// The order of the rows is that in which they are locked, by all who write: one sort serves it
/// and the removal of doubles. One that is as old
/// as the stored one is written again: the answer to a former attempt may have been lost, and
/// with it the word of what it changed.
pub async fn write(conn: &mut PgConnection, samples: &[KeyedSample]) -> sqlx::Result<Vec<AgentId>> {
    let agents: Vec<Uuid> = samples.iter().map(|((agent, _), _)| agent.uuid()).collect();
    let texts = |text: fn(&KeyedSample) -> &str| -> Vec<String> {
        samples.iter().map(|sample| text(sample).to_owned()).collect()
    };
    let times: Vec<OffsetDateTime> =
        samples.iter().map(|(_, sample)| sample.collected_at.time()).collect();
    let changed = sqlx::query_scalar!(
        r#"
            with given as (
                select distinct on (agent_id, key) agent_id, key, value, error, collected_at
                from (
                    select agent_id, key collate "C" as key, value, error, collected_at
                    from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::timestamptz[])
                        as sent (agent_id, key, value, error, collected_at)
                ) sent
                order by agent_id, key, collected_at desc
            ), written as (
                insert into agent_metadata as stored (agent_id, key, value, error, collected_at)
                select given.agent_id, given.key, value, error, least(collected_at, now())
                from given
                join agent_metadata_definitions using (agent_id, key)
                order by given.agent_id, given.key
                on conflict (agent_id, key) do update
                set (value, error, collected_at) =
                    (excluded.value, excluded.error, excluded.collected_at)
                where stored.collected_at <= excluded.collected_at
                returning agent_id
            )
            select distinct agent_id from written
        "#,
        &agents,
        &texts(|((_, key), _)| key.as_str()),
        &texts(|(_, sample)| &sample.value),
        &texts(|(_, sample)| &sample.error),
        &times,
    )
    .fetch_all(conn)
    .await?;
    Ok(changed.into_iter().map(AgentId::new).collect())
}
