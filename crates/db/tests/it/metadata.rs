//! What agents report: which value stays, and that writers never stop each other.

use std::collections::BTreeSet;

use musterbeat_core::id::AgentId;
use musterbeat_core::metadata::{Definition, Definitions, Key, Reading, Sample};
use musterbeat_core::port::{KeyedSample, MetadataStore, NewAgent, Reach};
use musterbeat_core::timestamp::Timestamp;
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
        let name = format!("agent {number}");
        let new = NewAgent { id: agent(number), owner: owner(1), workspace: None, name };
        self.store.create_agent(&new).await.unwrap();
        assert!(self.define(number, keys).await);
    }

    async fn define(&self, number: u128, keys: &[&str]) -> bool {
        let definitions = keys.iter().zip(0..).map(|(key, order)| definition(key, order));
        let definitions = Definitions::new(definitions.collect()).unwrap();
        self.store.define(agent(number), EVERYTHING, &definitions).await.unwrap()
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
        let reports = found.remove(&agent(number)).unwrap().into_iter();
        let of = |Reading { definition, last }: Reading| {
            (definition.key.as_str().to_owned(), last.map(|sample| sample.value))
        };
        reports.map(of).collect()
    }
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
    assert!(fixture.define(1, &["c", "b"]).await);
    assert_eq!(fixture.values(1).await, shown(&[("c", None), ("b", Some("2"))]));
    assert!(!fixture.define(9, &["a"]).await, "there is no such agent");

    let stranger = Reach::Of(owner(2));
    let nothing = Definitions::default();
    assert!(!fixture.store.define(agent(1), stranger, &nothing).await.unwrap());
    let found = MetadataStore::read(&fixture.store, &[agent(1)], stranger).await.unwrap();
    assert!(found.is_empty());
    let both = [agent(1), agent(9)];
    let defined = MetadataStore::read(&fixture.store, &both, EVERYTHING).await.unwrap();
    assert_eq!(defined.len(), 1);
    assert_eq!(defined[&agent(1)].len(), 2);
    assert!(fixture.define(1, &[]).await);
    assert_eq!(fixture.values(1).await, []);
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
