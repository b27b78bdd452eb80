//! A database that goes away and comes back, while agents report.

use std::time::Duration;

use musterbeat_server::settings::Settings;
use musterbeat_testkit::{OwnPostgres, eventually};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::agents::Agent;
use crate::client::{PATIENCE, Running};

/// Entries that may wait.
const PENDING_MAX: u32 = 40;

/// Keys of each agent.
const KEYS: [&str; 8] = ["a", "b", "c", "d", "e", "f", "g", "h"];

fn little_room(settings: &mut Settings) {
    settings.metadata_flush_interval = Duration::from_millis(100);
    settings.metadata_pending_max = PENDING_MAX.try_into().unwrap();
    settings.metadata_batch_max = PENDING_MAX.try_into().unwrap();
}

async fn agents(running: &Running, count: usize) -> Vec<Agent> {
    let mut agents = Vec::new();
    for _ in 0..count {
        let agent = Agent::create(&running.client, &KEYS).await;
        agents.push(agent);
    }
    // Once this is stored, the notices of the definitions are long past.
    for agent in &agents {
        all_accept(agent, "known").await;
        all_store(std::slice::from_ref(agent), "known", |_| KEYS.to_vec()).await;
    }
    agents
}

/// Reports `value` for all keys; returns for which it was accepted.
async fn report(agent: &Agent, value: &str) -> Vec<&'static str> {
    let answer = agent.try_report(&KEYS.map(|key| (key, value))).await;
    // It is not known who this is, and there is nobody to ask; or it has reported too often.
    let no_answer = [StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS];
    if no_answer.contains(&answer.status()) {
        return vec![];
    }
    assert_eq!(answer.status(), StatusCode::ACCEPTED);
    let answer: Value = answer.json().await.unwrap();
    let refused = answer["refused"].as_array().unwrap();
    for refusal in refused {
        assert_eq!(refusal["retryable"], true, "{refusal}");
    }
    let is_refused = |key: &str| refused.iter().any(|refusal| refusal["key"] == key);
    let accepted: Vec<_> = KEYS.into_iter().filter(|key| !is_refused(key)).collect();
    assert_eq!(answer["accepted"], accepted.len());
    accepted
}

/// Reports `value` until it was accepted for all keys.
async fn all_accept(agent: &Agent, value: &str) {
    eventually(PATIENCE, "there is room for all", async || {
        report(agent, value).await.len() == KEYS.len()
    })
    .await;
}

async fn all_store(agents: &[Agent], value: &str, keys: impl Fn(usize) -> Vec<&'static str>) {
    for (number, agent) in agents.iter().enumerate() {
        let keys = keys(number);
        eventually(PATIENCE, &format!("agent {number} has {value:?} of {keys:?}"), async || {
            let Ok(response) = agent.owner.get(&agent.path()).await.error_for_status() else {
                return false;
            };
            let stored: Value = response.json().await.unwrap();
            let readings = stored["metadata"].as_array().unwrap().iter();
            let newest = readings.filter(|reading| reading["value"] == value);
            let newest: Vec<_> = newest.map(|reading| reading["key"].as_str().unwrap()).collect();
            newest == keys
        })
        .await;
    }
}

/// More is reported than there is room for: each sender learns of each key that was refused,
/// and the newest of every other is stored when the database is back.
#[tokio::test]
async fn database_that_is_stopped_costs_only_what_was_refused() {
    let mut postgres = OwnPostgres::start().await.unwrap();
    let running = Running::start_beside(postgres.url(), little_room).await;
    let agents = agents(&running, 10).await;
    postgres.stop().await.unwrap();

    let mut accepted = Vec::new();
    for agent in &agents {
        report(agent, "first").await;
        // The keys that wait already need no room.
        accepted.push(report(agent, "newest").await);
    }
    let waiting: usize = accepted.iter().map(Vec::len).sum();
    assert!(waiting <= PENDING_MAX as usize, "{waiting} wait");
    assert!(waiting >= PENDING_MAX as usize - agents.len(), "{waiting} wait, but there is room");
    postgres.start_again().await.unwrap();
    all_store(&agents, "newest", |number| accepted[number].clone()).await;
    for agent in &agents {
        all_accept(agent, "after").await;
    }
    all_store(&agents, "after", |_| KEYS.to_vec()).await;
    running.stop().await;
}

/// Values live in an unlogged table: a crash empties it, and the next report fills it.
#[tokio::test]
async fn database_that_is_killed_keeps_definitions_and_gets_values_back() {
    let mut postgres = OwnPostgres::start().await.unwrap();
    let running = Running::start_beside(postgres.url(), little_room).await;
    let agents = agents(&running, 3).await;
    for agent in &agents {
        all_accept(agent, "before").await;
    }
    all_store(&agents, "before", |_| KEYS.to_vec()).await;
    postgres.kill().await.unwrap();
    postgres.start_again().await.unwrap();
    for agent in &agents {
        eventually(PATIENCE, "the database is back", async || {
            agent.owner.get(&agent.path()).await.status().is_success()
        })
        .await;
        let stored = agent.values().await;
        assert_eq!(stored.len(), KEYS.len(), "definitions are all there");
        assert!(stored.iter().all(|(_, value)| value.is_none()), "{stored:?}");
        all_accept(agent, "after").await;
    }
    all_store(&agents, "after", |_| KEYS.to_vec()).await;
    let nothing = running.client.post("/api/v1/agents", &json!({ "name": "one more" })).await;
    assert!(nothing.status().is_success());
    running.stop().await;
}
