//! What agents report: which value stays, and that writers never stop each other.

use std::collections::BTreeSet;

use musterbeat_core::id::{AgentId, DefinitionsVersion, TokenId};
use musterbeat_core::metadata::{Definition, Definitions, Key, Reading, Sample};
use musterbeat_core::page::Limit;
use musterbeat_core::port::{AgentStore, KeyedSample, MetadataStore, NewAgent, Reach};
use musterbeat_core::timestamp::Timestamp;
use musterbeat_db::tokens::TokenKind;
use uuid::Uuid;

use crate::setup::{Fixture, owner};

const EVERYTHING: Reach = Reach::Everything;

fn agent(number: u128) -> AgentId {
    AgentId::new(Uuid::from_u128(number))
}

fn definition(key: &str, display_order: i32) -> Definition {
    Definition {
        key: Key::new(key).unwrap(),
        display_name: key.to_uppercase(),
        script: String::new(),
        interval_seconds: 10,
        timeout_seconds: 1,
        display_order,
    }
}

fn sample(number: u128, key: &str, value: &str, micros: i64) -> KeyedSample {
    let collected_at = Timestamp::from_micros(micros).unwrap();
    let sample = Sample { value: value.to_owned(), error: String::new(), collected_at };
    ((agent(number), Key::new(key).unwrap()), sample)
}

impl Fixture {
    /// Adds an agent that is to report `keys`.
    async fn agent(&self, number: u128, keys: &[&str]) {
        AgentStore::create(&self.store, &new_agent(number)).await.unwrap();
        assert!(self.define(number, keys).await.is_some());
    }

    async fn define(&self, number: u128, keys: &[&str]) -> Option<i64> {
        let definitions = keys.iter().zip(0..).map(|(key, order)| definition(key, order));
        let definitions = Definitions::new(definitions.collect()).unwrap();
        let defined = self.store.define(agent(number), EVERYTHING, &definitions).await.unwrap();
        defined.map(|version| version.0)
    }

    async fn report(&self, samples: &[KeyedSample]) -> Vec<AgentId> {
        let mut changed = MetadataStore::write(&self.store, samples).await.unwrap();
        changed.sort();
        changed
    }

    /// Returns an agent's keys and values, in the order of display.
    async fn values(&self, number: u128) -> Vec<(String, Option<String>)> {
        let mut found =
            MetadataStore::read(&self.store, &[agent(number)], EVERYTHING).await.unwrap();
        let reports = found.remove(&agent(number)).unwrap().readings.into_iter();
        let of = |Reading { definition, last }: Reading| {
            (definition.key.as_str().to_owned(), last.map(|sample| sample.value))
        };
        reports.map(of).collect()
    }
}

fn new_agent(number: u128) -> NewAgent {
    NewAgent {
        id: agent(number),
        owner: owner(1),
        workspace: None,
        name: format!("agent {number}"),
        token: TokenId::new(Uuid::from_u128(number)),
        token_hash: hash(number),
    }
}

fn hash(number: u128) -> [u8; 32] {
    [u8::try_from(number).unwrap(); 32]
}

fn shown(values: &[(&str, Option<&str>)]) -> Vec<(String, Option<String>)> {
    let of = |(key, value): &(&str, Option<&str>)| ((*key).to_owned(), value.map(str::to_owned));
    values.iter().map(of).collect()
}

#[tokio::test]
async fn newest_value_stays_also_when_the_older_one_is_written_last() {
    let fixture = Fixture::new().await;
    fixture.agent(1, &["a", "b"]).await;
    assert_eq!(fixture.report(&[sample(1, "a", "new", 5)]).await, [agent(1)]);
    assert_eq!(fixture.report(&[sample(1, "a", "old", 4)]).await, []);
    assert_eq!(fixture.values(1).await, shown(&[("a", Some("new")), ("b", None)]));
    let both = [sample(1, "b", "older", 7), sample(1, "b", "newer", 8)];
    fixture.report(&both).await;
    assert_eq!(fixture.values(1).await[1].1.as_deref(), Some("newer"), "of one statement, too");
    let again = fixture.report(&both[1..]).await;
    assert_eq!(again, [agent(1)], "a write whose answer was lost is told again");
}

#[tokio::test]
async fn what_is_not_defined_is_not_stored_and_costs_nothing_else() {
    let fixture = Fixture::new().await;
    fixture.agent(1, &["a"]).await;
    let samples =
        [sample(1, "a", "1", 1), sample(1, "unknown", "1", 1), sample(2, "a", "nobody", 1)];
    assert_eq!(fixture.report(&samples).await, [agent(1)]);
    let stored = "select count(*) from agent_metadata";
    assert_eq!(sqlx::query_scalar::<_, i64>(stored).fetch_one(&fixture.pool).await.unwrap(), 1);
}

#[tokio::test]
async fn definitions_are_replaced_with_their_values_and_read_within_reach() {
    let fixture = Fixture::new().await;
    fixture.agent(1, &["a", "b"]).await;
    fixture.report(&[sample(1, "a", "1", 1), sample(1, "b", "2", 1)]).await;
    assert_eq!(fixture.define(1, &["c", "b"]).await, Some(2));
    assert_eq!(fixture.values(1).await, shown(&[("c", None), ("b", Some("2"))]));
    assert_eq!(fixture.define(9, &["a"]).await, None, "there is no such agent");

    let stranger = Reach::Of(owner(2));
    let nothing = Definitions::default();
    assert_eq!(fixture.store.define(agent(1), stranger, &nothing).await.unwrap(), None);
    let found = MetadataStore::read(&fixture.store, &[agent(1)], stranger).await.unwrap();
    assert!(found.is_empty());
    let both = [agent(1), agent(9)];
    let defined = MetadataStore::read(&fixture.store, &both, EVERYTHING).await.unwrap();
    assert_eq!(defined.len(), 1);
    assert_eq!(defined[&agent(1)].readings.len(), 2);
    assert_eq!(defined[&agent(1)].version, DefinitionsVersion(2));
    assert_eq!(fixture.define(1, &[]).await, Some(3));
    assert_eq!(fixture.values(1).await, []);
}

#[tokio::test]
async fn agent_comes_and_goes_with_its_token_and_all_it_reported() {
    let fixture = Fixture::new().await;
    for number in 1..=3 {
        fixture.agent(number, &["a", "b"]).await;
        fixture.report(&[sample(number, "a", "1", 1)]).await;
    }
    let again = AgentStore::create(&fixture.store, &new_agent(2)).await;
    again.expect("who asks again gets the same answer");
    let bearers = fixture.store.find_tokens(&[hash(1), hash(2), hash(9)]).await.unwrap();
    let bearers: BTreeSet<_> = bearers.iter().map(|(_, bearer)| bearer.owner.uuid()).collect();
    assert_eq!(bearers, [agent(1), agent(2)].map(AgentId::uuid).into());
    let (_, bearer) = fixture.store.find_tokens(&[hash(2)]).await.unwrap()[0];
    assert_eq!((bearer.kind, bearer.token), (TokenKind::Agent, TokenId::new(Uuid::from_u128(2))));

    let delete = async |number, reach| {
        AgentStore::delete(&fixture.store, agent(number), reach).await.unwrap()
    };
    assert_eq!(delete(2, Reach::Of(owner(2))).await, None, "it is somebody else's");
    assert_eq!(delete(2, Reach::Of(owner(1))).await, Some(vec![bearer.token]));
    assert_eq!(delete(2, EVERYTHING).await, None, "once");
    assert_eq!(fixture.store.find_tokens(&[hash(2)]).await.unwrap(), []);
    for table in ["agents", "agent_metadata_definitions", "agent_metadata"] {
        let id = if table == "agents" { "id" } else { "agent_id" };
        let left = format!("select count(distinct {id}) from {table}");
        let left: i64 =
            sqlx::query_scalar(sqlx::AssertSqlSafe(left)).fetch_one(&fixture.pool).await.unwrap();
        assert_eq!(left, 2, "{table}");
    }
    assert_eq!(fixture.report(&[sample(2, "a", "late", 2)]).await, []);
}

#[tokio::test]
async fn agents_are_listed_youngest_first_and_looked_up_together() {
    let fixture = Fixture::new().await;
    for number in 1..=5 {
        fixture.agent(number, &["a", "b"]).await;
    }
    fixture.define(2, &["b"]).await;
    let two = Limit::new(Some(2)).unwrap();
    let mut listed = Vec::new();
    let mut after = None;
    loop {
        let page = AgentStore::list(&fixture.store, owner(1), after, two).await.unwrap();
        let Some(last) = page.last() else { break };
        after = Some(last.id);
        listed.extend(page.into_iter().map(|agent| agent.name));
    }
    assert_eq!(listed, ["agent 5", "agent 4", "agent 3", "agent 2", "agent 1"]);
    assert_eq!(AgentStore::list(&fixture.store, owner(2), None, two).await.unwrap(), []);

    let of = [agent(1), agent(2), agent(9)];
    let facts = AgentStore::facts(&fixture.store, &of).await.unwrap();
    let keys =
        |number| -> Vec<&str> { facts[&agent(number)].keys.iter().map(Key::as_str).collect() };
    assert_eq!((facts.len(), keys(1), keys(2)), (2, vec!["a", "b"], vec!["b"]));
    let versions = [1, 2].map(|number| facts[&agent(number)].version.0);
    assert_eq!((versions, facts[&agent(1)].owner), ([1, 2], owner(1)));
}

/// Writers and one who defines, all about the same keys: nobody waits for ever, nothing that is
/// not defined is left, and what is defined all the time is never refused.
#[tokio::test]
async fn keys_that_come_and_go_while_others_write_leave_no_value_behind() {
    const ROUNDS: i64 = 60;
    let fixture = Fixture::new().await;
    for number in 1..=3 {
        fixture.agent(number, &["a", "b", "c", "d"]).await;
    }
    let write = |reversed: bool| {
        let store = fixture.store.clone();
        tokio::spawn(async move {
            for round in 0..ROUNDS {
                let of = |number| ["a", "b", "c", "d"].map(|key| sample(number, key, "x", round));
                let mut samples: Vec<_> = (1..=3).flat_map(of).collect();
                if reversed {
                    samples.reverse();
                }
                MetadataStore::write(&store, &samples).await.unwrap();
            }
        })
    };
    let writers = [write(false), write(true)];
    let mut round = 0;
    while !writers.iter().all(tokio::task::JoinHandle::is_finished) || round % 2 > 0 {
        let keys: &[&str] = if round % 2 == 0 { &["d"] } else { &["a", "b", "c", "d"] };
        for number in 1..=2 {
            fixture.define(number, keys).await;
        }
        round += 1;
    }
    for writer in writers {
        writer.await.unwrap();
    }
    fixture.define(1, &["d"]).await;
    AgentStore::delete(&fixture.store, agent(2), EVERYTHING).await.unwrap();
    let left = "select count(*) from agent_metadata where agent_id = $1";
    for (number, expected) in [(1, 1), (2, 0), (3, 4)] {
        let left: i64 = sqlx::query_scalar(left)
            .bind(agent(number).uuid())
            .fetch_one(&fixture.pool)
            .await
            .unwrap();
        assert_eq!(left, expected, "agent {number}");
    }
}

/// A replica whose clock is ahead must not shut out the values of the others.
#[tokio::test]
async fn time_that_has_not_come_is_taken_down_to_the_databases() {
    let fixture = Fixture::new().await;
    fixture.agent(1, &["a"]).await;
    let now = "select (extract(epoch from clock_timestamp()) * 1e6)::bigint";
    let now: i64 = sqlx::query_scalar(now).fetch_one(&fixture.pool).await.unwrap();
    let hour = 3_600_000_000;
    fixture.report(&[sample(1, "a", "of a clock ahead", now + hour)]).await;
    fixture.report(&[sample(1, "a", "of the next hour", now + 2 * hour)]).await;
    assert_eq!(fixture.values(1).await, shown(&[("a", Some("of the next hour"))]));
    let ahead = "select collected_at > now() from agent_metadata";
    assert!(!sqlx::query_scalar::<_, bool>(ahead).fetch_one(&fixture.pool).await.unwrap());
}

/// After a crash of the database the table of values is empty, and that of definitions is not.
#[tokio::test]
async fn emptied_table_fills_again_with_the_next_reports() {
    let fixture = Fixture::new().await;
    fixture.agent(1, &["a"]).await;
    fixture.report(&[sample(1, "a", "1", 5)]).await;
    sqlx::query("truncate agent_metadata").execute(&fixture.pool).await.unwrap();
    assert_eq!(fixture.report(&[sample(1, "a", "2", 6)]).await, [agent(1)]);
    assert_eq!(fixture.values(1).await, shown(&[("a", Some("2"))]));
    let kind = "select relpersistence::text from pg_class where relname = $1";
    for (table, expected) in [("agent_metadata", "u"), ("agent_metadata_definitions", "p")] {
        let kind: String =
            sqlx::query_scalar(kind).bind(table).fetch_one(&fixture.pool).await.unwrap();
        assert_eq!(kind, expected, "{table}");
    }
}

/// Two writers have the same keys in opposite orders, each newer in every other one.
#[tokio::test]
async fn writers_of_the_same_keys_neither_deadlock_nor_go_back_in_time() {
    const AGENTS: u128 = 50;
    const ROUNDS: i64 = 100;
    let keys: Vec<String> = (0..100).map(|number| format!("Key {number}")).collect();
    let names: Vec<&str> = keys.iter().map(String::as_str).collect();
    let fixture = Fixture::new().await;
    for number in 1..=AGENTS {
        fixture.agent(number, &names).await;
    }
    let writer = |who: usize| {
        let (store, keys) = (fixture.store.clone(), keys.clone());
        tokio::spawn(async move {
            for round in 0..ROUNDS {
                let time = |key: usize| 2 * round + i64::from(key % 2 == who);
                let of = |number: u128| {
                    let keys = keys.iter().enumerate();
                    keys.map(move |(place, key)| {
                        let time = time(place);
                        sample(number, key, &format!("{time}"), time)
                    })
                };
                let mut samples: Vec<_> = (1..=AGENTS).flat_map(of).collect();
                if who == 1 {
                    samples.reverse();
                }
                MetadataStore::write(&store, &samples).await.unwrap();
            }
        })
    };
    for writer in [writer(0), writer(1)] {
        writer.await.unwrap();
    }
    let newest = (2 * (ROUNDS - 1) + 1).to_string();
    for number in 1..=AGENTS {
        let values: BTreeSet<_> =
            fixture.values(number).await.into_iter().map(|(_, value)| value.unwrap()).collect();
        assert!(values.iter().eq([&newest]), "agent {number}: {values:?}");
    }
}
