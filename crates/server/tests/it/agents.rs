//! Agents over HTTP: what becomes of reports, who learns of them, and what is not lost.

use std::time::{Duration, Instant};

use musterbeat_core::id::AgentId;
use musterbeat_core::metadata::{Key, Sample};
use musterbeat_core::timestamp::Timestamp;
use musterbeat_testkit::{TestDatabase, eventually};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::client::{Client, Events, PATIENCE, Running};

/// An agent, and those who talk for it.
#[derive(Clone)]
pub(crate) struct Agent {
    pub(crate) id: String,
    token_id: String,
    /// With the agent's own token, which may ask a few times a second.
    pub(crate) client: Client,
    /// With its owner's, for tests that look again and again.
    pub(crate) owner: Client,
}

impl Agent {
    /// Creates an agent of whom `owner` stands for, which is to report `keys`.
    pub(crate) async fn create(owner: &Client, keys: &[&str]) -> Self {
        let made = owner.post("/api/v1/agents", &json!({ "name": "test" })).await;
        assert_eq!(made.status(), StatusCode::CREATED);
        let made: Value = made.json().await.unwrap();
        let text = |field: &str| made[field].as_str().unwrap().to_owned();
        let client = owner.with_token(&text("token"));
        let (id, token_id, owner) = (text("id"), text("token_id"), owner.clone());
        let agent = Self { id, token_id, client, owner };
        agent.define(keys).await;
        agent
    }

    /// The same agent, as it talks to another replica.
    fn at(&self, replica: &Running, token: &str) -> Self {
        let client = replica.client.with_token(token);
        let owner = replica.client.with_token(self.owner.token());
        Self { client, owner, ..self.clone() }
    }

    pub(crate) fn path(&self) -> String {
        format!("/api/v1/agents/{}/metadata", self.id)
    }

    async fn define(&self, keys: &[&str]) -> Value {
        let definitions: Vec<Value> =
            keys.iter().map(|key| json!({ "key": key, "interval_seconds": 10 })).collect();
        let path = format!("{}/definitions", self.path());
        let body = json!({ "definitions": definitions });
        let defined = self.owner.request(Method::PUT, &path).json(&body).send().await.unwrap();
        assert_eq!(defined.status(), StatusCode::OK);
        defined.json().await.unwrap()
    }

    /// Reports values; returns the answer, which must be 202.
    pub(crate) async fn report(&self, values: &[(&str, &str)]) -> Value {
        let answer = self.try_report(values).await;
        assert_eq!(answer.status(), StatusCode::ACCEPTED);
        answer.json().await.unwrap()
    }

    pub(crate) async fn try_report(&self, values: &[(&str, &str)]) -> reqwest::Response {
        let entries: Vec<Value> =
            values.iter().map(|(key, value)| json!({ "key": key, "value": value })).collect();
        self.client.post(&self.path(), &json!(entries)).await
    }

    /// Returns keys and values as they are stored.
    pub(crate) async fn values(&self) -> Vec<(String, Option<String>)> {
        values(&self.owner.get_json(&self.path()).await)
    }

    async fn stores(&self, expected: &[(&str, Option<&str>)]) {
        eventually(PATIENCE, &format!("{expected:?} is stored"), async || {
            let stored = self.values().await;
            stored
                .iter()
                .map(|(key, value)| (&**key, value.as_deref()))
                .eq(expected.iter().copied())
        })
        .await;
    }

    async fn follow(&self) -> Events {
        let path = format!("{}/events", self.path());
        Events::of(self.client.get(&path).await)
    }
}

fn values(metadata: &Value) -> Vec<(String, Option<String>)> {
    let readings = metadata["metadata"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    readings.map(|reading| (text(&reading["key"]).unwrap(), text(&reading["value"]))).collect()
}

/// Starts a server that writes soon.
async fn quick() -> Running {
    Running::start_with(soon).await
}

fn soon(settings: &mut musterbeat_server::settings::Settings) {
    settings.metadata_flush_interval = Duration::from_millis(100);
}

#[tokio::test]
async fn what_is_wrong_with_one_key_is_told_and_costs_no_other() {
    let running = quick().await;
    let (bad, good) = tokio::join!(
        Agent::create(&running.client, &["a", "b", "long"]),
        Agent::create(&running.client, &["a"]),
    );
    let answer = bad
        .report(&[("a", "1\0"), ("unknown", "x"), ("long", &"é".repeat(2_000)), ("b", " 2\n")])
        .await;
    good.report(&[("a", "fine")]).await;
    let expected = json!({
        "accepted": 3,
        "changed": [
            { "key": "a", "reason": "NUL characters were removed from the value" },
            { "key": "long", "reason": "value of 4000 bytes exceeded 2048 bytes" },
        ],
        "refused": [
            { "key": "unknown", "reason": "is not defined for this agent", "retryable": false },
        ],
        "definitions_version": 1,
    });
    assert_eq!(answer, expected);
    let long = "é".repeat(1_024);
    bad.stores(&[("a", Some("1")), ("b", Some("2")), ("long", Some(&long))]).await;
    good.stores(&[("a", Some("fine"))]).await;
    let shown = bad.client.get_json(&bad.path()).await;
    assert_eq!(shown["metadata"][2]["error"], "value of 4000 bytes exceeded 2048 bytes");
    running.stop().await;
}

#[tokio::test]
async fn body_that_cannot_be_read_is_refused_whole() {
    let running = quick().await;
    let agent = Agent::create(&running.client, &["a"]).await;
    let refused = async |body: Vec<u8>| {
        let request = agent.client.request(Method::POST, &agent.path());
        let request = request.header("content-type", "application/json").body(body);
        let answer = request.send().await.unwrap();
        let status = answer.status().as_u16();
        let problem: Value = answer.json().await.unwrap();
        (status, problem["detail"].as_str().unwrap().to_owned())
    };
    let (status, detail) = refused(b"[{\"key\":\"a\",\"value\":\"\xff\xfe\"}]".to_vec()).await;
    assert_eq!((status, detail.contains("invalid unicode")), (400, true), "{detail}");
    let (status, detail) = refused(br#"[{"key":"a","value":"\ud800"}]"#.to_vec()).await;
    assert_eq!(status, 400, "{detail}");
    let (status, detail) = refused(br#"[{"key":"a","value":1}]"#.to_vec()).await;
    assert_eq!((status, detail.contains("[0].value")), (422, true), "{detail}");
    let many = vec![json!({ "key": "" }); 129];
    let (status, detail) = refused(serde_json::to_vec(&many).unwrap()).await;
    assert_eq!((status, &*detail), (422, "body: has 129 entries, at most 128 are allowed"));
    agent.report(&[("a", "still there")]).await;
    agent.stores(&[("a", Some("still there"))]).await;
    running.stop().await;
}

#[tokio::test]
async fn definitions_are_refused_by_place_and_learnt_of_with_the_next_report() {
    let running = quick().await;
    let agent = Agent::create(&running.client, &["a"]).await;
    let path = format!("{}/definitions", agent.path());
    let bad = json!({ "definitions": [
        { "key": "a", "interval_seconds": 1 },
        { "key": "b", "interval_seconds": 0 },
    ] });
    let refused = running.client.request(Method::PUT, &path).json(&bad).send().await.unwrap();
    assert_eq!(refused.status(), StatusCode::UNPROCESSABLE_ENTITY);
    let problem: Value = refused.json().await.unwrap();
    assert_eq!(problem["field"], "definitions[1].interval_seconds");
    assert_eq!(agent.report(&[("a", "1")]).await["definitions_version"], 1);
    let defined = agent.define(&["b", "a"]).await;
    assert_eq!(defined, json!({ "definitions_version": 2 }));
    let answer = agent.report(&[("a", "1"), ("b", "2")]).await;
    assert_eq!((&answer["accepted"], &answer["definitions_version"]), (&json!(2), &json!(2)));
    agent.stores(&[("b", Some("2")), ("a", Some("1"))]).await;
    let by_itself = agent.client.request(Method::PUT, &path).json(&bad).send().await.unwrap();
    assert_eq!(by_itself.status(), StatusCode::FORBIDDEN, "an agent does not define itself");
    running.stop().await;
}

#[tokio::test]
async fn agents_are_listed_page_by_page() {
    let running = Running::start().await;
    let user = running.client.with_token(&running.client.user_token().await);
    let mut made = Vec::new();
    for _ in 0..3 {
        made.insert(0, Agent::create(&user, &[]).await.id);
    }
    let first = user.get_json("/api/v1/agents?limit=2").await;
    let next = first["next"].as_str().unwrap();
    let second = user.get_json(&format!("/api/v1/agents?limit=2&after={next}")).await;
    assert_eq!(second.get("next"), None);
    let pages = [&first, &second].map(|page| page["agents"].as_array().unwrap());
    let listed: Vec<_> =
        pages.into_iter().flatten().map(|agent| agent["id"].as_str().unwrap()).collect();
    assert_eq!(listed, made);
    assert_eq!(running.client.get_json("/api/v1/agents").await["agents"], json!([]));
    running.stop().await;
}

/// Two replicas, both of which know an agent.
async fn two() -> (Running, Running, Agent, Agent) {
    let one = quick().await;
    let other = Running::start_beside(one.database().url(), soon).await;
    let agent = one.client.post("/api/v1/agents", &json!({ "name": "test" })).await;
    let made: Value = agent.json().await.unwrap();
    let token = made["token"].as_str().unwrap();
    let (id, token_id) = (made["id"].as_str().unwrap(), made["token_id"].as_str().unwrap());
    let here = Agent {
        id: id.to_owned(),
        token_id: token_id.to_owned(),
        client: one.client.with_token(token),
        owner: one.client.clone(),
    };
    here.define(&["a"]).await;
    let there = here.at(&other, token);
    here.report(&[("a", "1")]).await;
    there.report(&[("a", "2")]).await;
    (one, other, here, there)
}

#[tokio::test]
async fn agent_that_is_deleted_or_revoked_is_refused_by_every_replica() {
    for is_deleted in [true, false] {
        let (one, other, here, there) = two().await;
        let path = if is_deleted {
            format!("/api/v1/agents/{}", here.id)
        } else {
            format!("/api/v1/tokens/{}", here.token_id)
        };
        let gone = one.client.request(Method::DELETE, &path).send().await.unwrap();
        assert_eq!(gone.status(), StatusCode::NO_CONTENT);
        let status = async |agent: &Agent| agent.try_report(&[("a", "3")]).await.status();
        assert_eq!(status(&here).await, StatusCode::UNAUTHORIZED, "at once where it was done");
        eventually(PATIENCE, "the other refuses it, too", async || {
            status(&there).await == StatusCode::UNAUTHORIZED
        })
        .await;
        other.stop().await;
        one.stop().await;
    }
}

#[tokio::test]
async fn definitions_of_another_replica_are_heard_of() {
    let (one, other, here, there) = two().await;
    here.define(&["b"]).await;
    eventually(PATIENCE, "the other replica knows them", async || {
        let answer = there.try_report(&[("b", "1")]).await;
        // Who asks this often is told to slow down.
        let is_taken = answer.status() == StatusCode::ACCEPTED;
        is_taken && answer.json::<Value>().await.unwrap()["accepted"] == 1
    })
    .await;
    other.stop().await;
    one.stop().await;
}

#[tokio::test]
async fn watcher_on_another_replica_sees_the_newest_once_a_second() {
    let (one, other, here, there) = two().await;
    let began = Instant::now();
    let mut events = there.follow().await;
    let mut seen = 0;
    for number in 10..30 {
        here.report(&[("a", &number.to_string())]).await;
    }
    loop {
        let (_, metadata) = events.next_named("metadata").await;
        // Each is sent a second after the one before; how late they come makes no difference.
        let elapsed = began.elapsed() + Duration::from_millis(50);
        assert!(elapsed >= Duration::from_secs(seen), "{seen} before it within {elapsed:?}");
        seen += 1;
        if values(&metadata)[0].1.as_deref() == Some("29") {
            break;
        }
    }
    let deleted = one.client.request(Method::DELETE, &format!("/api/v1/agents/{}", here.id));
    deleted.send().await.unwrap().error_for_status().unwrap();
    events.rest().await;
    other.stop().await;
    one.stop().await;
}

#[tokio::test]
async fn agent_that_floods_is_limited_alone() {
    let running = Running::start_with(|settings| {
        soon(settings);
        settings.rate_per_second = 20.try_into().unwrap();
        settings.rate_burst = 20.try_into().unwrap();
    })
    .await;
    let (flood, calm) = tokio::join!(
        Agent::create(&running.client, &["a"]),
        Agent::create(&running.client, &["a"]),
    );
    // Known from here on: each has a share of its own.
    flood.report(&[("a", "0")]).await;
    calm.report(&[("a", "0")]).await;
    let began = Instant::now();
    let flooding = async {
        let mut refused = 0;
        for number in 0..300 {
            let answer = flood.try_report(&[("a", &number.to_string())]).await;
            refused += u64::from(answer.status() == StatusCode::TOO_MANY_REQUESTS);
        }
        refused
    };
    let reporting = async {
        for number in 1..=10 {
            calm.report(&[("a", &number.to_string())]).await;
        }
    };
    let (refused, ()) = tokio::join!(flooding, reporting);
    // Fifty are let through at once and ten a second, more of them the slower the machine is.
    let let_through = 50 + 10 * (began.elapsed().as_secs() + 1);
    assert!(300 <= refused + let_through, "{refused} of 300 refused");
    let of_calm = format!(
        "select count(*) from agent_metadata where agent_id = '{}' and value = '10'",
        calm.id
    );
    eventually(PATIENCE, "the last is stored", async || {
        running.database().number(&of_calm).await.unwrap() == 1
    })
    .await;
    running.stop().await;
}

/// The write that is under way is held up, more is reported, and then the server is to end.
#[tokio::test]
async fn end_in_the_middle_of_a_write_saves_all_that_was_answered() {
    let database = TestDatabase::create().await.unwrap();
    let running = Running::start_beside(database.url(), soon).await;
    let mut agents = Vec::new();
    for _ in 0..5 {
        agents.push(Agent::create(&running.client, &["a", "b"]).await);
    }
    let pool = database.pool().await.unwrap();
    let mut holder = pool.begin().await.unwrap();
    let id = AgentId::new(agents[0].id.parse().unwrap());
    let sample = Sample {
        value: "never committed".to_owned(),
        error: String::new(),
        collected_at: Timestamp::from_micros(0).unwrap(),
    };
    let samples = [((id, Key::new("a").unwrap()), sample)];
    musterbeat_db::agent_metadata::write(&mut holder, &samples).await.unwrap();
    for agent in &agents {
        agent.report(&[("a", "held up"), ("b", "held up")]).await;
    }
    let waiting = "select count(*) from pg_stat_activity \
                   where wait_event_type = 'Lock' and datname = current_database()";
    eventually(PATIENCE, "a write is held up", async || {
        database.number(waiting).await.unwrap() > 0
    })
    .await;
    for agent in &agents {
        agent.report(&[("a", "answered")]).await;
    }
    running.shutdown.request();
    let release = async {
        eventually(PATIENCE, "nobody is served any more", async || {
            agents[0].client.request(Method::GET, "/healthz").send().await.is_err()
        })
        .await;
        holder.rollback().await.unwrap();
    };
    tokio::join!(running.stop(), release);
    let stored = "select count(*) from agent_metadata where value = 'answered' or key = 'b'";
    assert_eq!(database.number(stored).await.unwrap(), 10);
}
