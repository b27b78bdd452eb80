//! Chats that are followed through a replica that does not work on them.

use std::time::Duration;

use eventsource_stream::Event;
use musterbeat_server::settings::Settings;
use musterbeat_testkit::{BlackHole, FaultProxy, TestDatabase, eventually};
use nix::sys::signal::Signal;
use reqwest::StatusCode;
use serde_json::Value;

use crate::client::{Client, Events, PATIENCE, Running, said};
use crate::ownership::{SHORT_LEASE, shorten_lease};
use crate::recital::Recital;
use crate::replica::{Replica, musterbeat};

const SECRET: &str = "known to all replicas and nobody else";

/// A question whose answer is said in as many parts.
const WORDS: usize = 60;

/// What an owner says before its test lets it go on.
const BEGINNING: usize = 20;

#[tokio::test]
async fn follower_elsewhere_gets_the_parts_so_far_then_live_ones_then_the_message() {
    let (database, recital) = stage().await;
    let owner = Member::start(&database, &recital, |_| {}).await;
    let chat = begun(&owner.client).await;
    // The owner has said some words before anybody follows through the other.
    let mut near = owner.client.follow(&chat, false, None).await;
    Heard::default().until_part(&mut near, BEGINNING).await;
    let other = Member::start(&database, &recital, |_| {}).await;
    let mut far = other.client.follow(&chat, false, None).await;
    assert_eq!(far.next().await.unwrap().event, "snapshot");
    let mut heard = Heard::default();
    heard.until_part(&mut far, BEGINNING).await;
    recital.go_on_to(2 * BEGINNING);
    heard.until_part(&mut far, 2 * BEGINNING).await;
    recital.finish();
    heard.until_message(&mut far).await;
    assert_eq!(heard.seqs, (1..=heard.seqs.len() as u64).collect::<Vec<_>>());
    assert_eq!(heard.fences, [1]);
    assert_eq!(heard.message, format!("assistant: {}", question()));
    owner.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn followers_of_a_chat_elsewhere_share_one_connection_that_ends_with_the_last() {
    let (database, recital) = stage().await;
    let owner = Member::start(&database, &recital, |_| {}).await;
    let chat = begun(&owner.client).await;
    let other = Member::start(&database, &recital, |_| {}).await;
    let mut followers = Vec::new();
    for _ in 0..5 {
        let mut follower = other.client.follow(&chat, false, None).await;
        assert_eq!(follower.next_named("part").await.1["seq"], 1);
        followers.push(follower);
    }
    assert_eq!(owner.way.connections(), 1);
    drop(followers);
    eventually(PATIENCE, "the relay ends", async || owner.way.connections() == 0).await;
    owner.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn relay_that_breaks_is_dialled_again_and_repeats_nothing() {
    let (database, recital) = stage().await;
    let owner = Member::start(&database, &recital, |_| {}).await;
    let chat = begun(&owner.client).await;
    let other = Member::start(&database, &recital, |_| {}).await;
    let mut far = other.client.follow(&chat, false, None).await;
    let mut heard = Heard::default();
    for words in [20, 30, 40] {
        recital.go_on_to(words);
        heard.until_part(&mut far, words).await;
        owner.way.reset();
    }
    recital.go_on_to(50);
    heard.until_part(&mut far, 50).await;
    recital.finish();
    heard.until_message(&mut far).await;
    assert!(heard.is_ascending_without_gap(), "{:?}", heard.seqs);
    assert_eq!(heard.seqs.iter().filter(|seq| **seq == 1).count(), 1, "{:?}", heard.seqs);
    owner.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn dial_that_fails_is_tried_again_while_the_owner_stays() {
    let (database, recital) = stage().await;
    let owner = Member::start(&database, &recital, |_| {}).await;
    owner.way.refuse();
    let chat = begun(&owner.client).await;
    let other = Member::start(&database, &recital, |_| {}).await;
    let mut far = other.client.follow(&chat, false, None).await;
    far.next_named("snapshot").await;
    eventually(PATIENCE, "a dial fails", async || dials(&other.client, "failed").await > 0).await;
    owner.way.heal();
    assert_eq!(far.next_named("part").await.1["seq"], 1, "the parts so far");
    owner.stop().await;
    other.stop().await;
}

/// The owner's replica accepts connections and says nothing.
#[tokio::test]
async fn dial_in_flight_holds_up_neither_snapshot_nor_message() {
    let (database, recital) = stage().await;
    let owner = Member::start(&database, &recital, |_| {}).await;
    owner.way.black_hole(BlackHole::Both);
    let chat = begun(&owner.client).await;
    let other = Member::start(&database, &recital, |_| {}).await;
    let mut far = other.client.follow(&chat, true, None).await;
    assert_eq!(far.next().await.unwrap().event, "snapshot");
    eventually(PATIENCE, "it dials", async || owner.way.connections() == 1).await;
    recital.finish();
    let mut heard = Heard::default();
    heard.until_message(&mut far).await;
    assert_eq!(heard.seqs, [0; 0]);
    assert!(far.rest().await.iter().any(|(name, _)| name == "status"));
    owner.way.heal();
    eventually(PATIENCE, "the dial is given up", async || owner.way.connections() == 0).await;
    owner.stop().await;
    other.stop().await;
}

/// The follower's own replica never works on the chat, as it is busy.
#[tokio::test]
async fn follower_goes_over_to_the_next_owner_when_the_first_drains() {
    let (database, recital) = stage().await;
    let other = busy(&database).await;
    let first = Member::start(&database, &recital, |_| {}).await;
    let chat = begun(&first.client).await;
    let mut far = other.client.follow(&chat, false, None).await;
    let mut heard = Heard::default();
    heard.until_part(&mut far, BEGINNING).await;
    assert_eq!(heard.fences, [1]);

    let second = Member::start(&database, &recital, |_| {}).await;
    first.stop().await;
    heard.until_part(&mut far, BEGINNING).await;
    recital.finish();
    heard.until_message(&mut far).await;
    assert!(heard.fences.len() == 2 && heard.fences[1] > 1, "{:?}", heard.fences);
    assert!(heard.is_ascending_without_gap(), "{:?}", heard.seqs);
    assert_eq!(heard.message, format!("assistant: {}", question()));
    second.stop().await;
    other.stop().await;
}

/// What is relayed and what is said here are the same to the follower.
#[tokio::test]
async fn relay_is_closed_when_the_next_owner_is_here() {
    let (database, recital) = stage().await;
    let owner = Member::start(&database, &recital, |_| {}).await;
    let chat = begun(&owner.client).await;
    let other = Member::start(&database, &recital, |_| {}).await;
    let mut far = other.client.follow(&chat, false, None).await;
    let mut heard = Heard::default();
    heard.until_part(&mut far, BEGINNING).await;
    assert_eq!(heard.fences, [1]);
    let Member { running, way, .. } = owner;
    running.stop().await;
    heard.until_part(&mut far, BEGINNING).await;
    assert!(heard.fences.last() > Some(&1), "{:?}", heard.fences);
    eventually(PATIENCE, "the relay ends", async || way.connections() == 0).await;
    recital.finish();
    heard.until_message(&mut far).await;
    assert!(heard.is_ascending_without_gap(), "{:?}", heard.seqs);
    other.stop().await;
}

#[tokio::test]
async fn follower_leaves_an_owner_that_freezes_and_hears_nothing_of_it_when_it_wakes() {
    let (database, recital) = stage().await;
    let other = busy(&database).await;
    let folder = tempfile::tempdir().unwrap();
    let way = FaultProxy::start(NOWHERE.into()).await.unwrap();
    let mut command = musterbeat(folder.path());
    command.args(["--dev", "--database-url", database.url()]);
    // Far from its end when it is frozen.
    command.envs(SHORT_LEASE).env("MUSTERBEAT_ECHO_PACE", "1s");
    command.env("MUSTERBEAT_CLUSTER_SECRET", SECRET);
    command.env("MUSTERBEAT_ADVERTISE_URL", format!("http://{}", way.addr()));
    let frozen = Replica::start(&mut command);
    way.lead_to(frozen.client.address());
    let chat = begun(&frozen.client).await;
    let mut far = other.client.follow(&chat, false, None).await;
    assert_eq!(far.next_named("part").await.1["fence"], 1);
    let second = Member::start(&database, &recital, shorten_lease).await;
    frozen.signal(Signal::SIGSTOP);
    while far.next_named("part").await.1["fence"] == 1 {}
    frozen.signal(Signal::SIGCONT);
    recital.finish();
    let mut heard = Heard::default();
    heard.until_message(&mut far).await;
    assert!(!heard.fences.contains(&1), "{:?}", heard.fences);
    assert!(heard.is_ascending_without_gap(), "{:?}", heard.seqs);
    frozen.stop();
    second.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn relayed_stream_ends_with_its_server_and_leaves_the_owner_at_work() {
    let (database, recital) = stage().await;
    let owner = Member::start(&database, &recital, |_| {}).await;
    let chat = begun(&owner.client).await;
    let other = Member::start(&database, &recital, |_| {}).await;
    let mut far = other.client.follow(&chat, false, None).await;
    far.next_named("part").await;
    other.stop().await;
    far.rest().await;
    recital.finish();
    owner.client.chat_in(&chat, "waiting").await;
    owner.stop().await;
}

#[tokio::test]
async fn follower_gets_the_messages_where_replicas_share_no_secret() {
    let (database, recital) = stage().await;
    let owner = Member::start(&database, &recital, |_| {}).await;
    let chat = begun(&owner.client).await;
    let other = Member::start(&database, &recital, |settings| settings.cluster_secret = None).await;
    let mut far = other.client.follow(&chat, true, None).await;
    assert_eq!(far.next().await.unwrap().event, "snapshot");
    recital.finish();
    let events = far.rest().await;
    assert!(events.iter().all(|(name, _)| name != "part"));
    let messages: Vec<String> =
        events.iter().filter(|(name, _)| name == "message").map(|event| said(&event.1)).collect();
    assert_eq!(messages, [format!("assistant: {}", question())]);
    owner.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn cluster_route_takes_the_cluster_secret_and_no_token() {
    let (database, recital) = stage().await;
    let running = Running::start_answering(database.url(), recital.runner(), |settings| {
        settings.cluster_secret = Some(SECRET.into());
        settings.drain_timeout = Duration::ZERO;
    })
    .await;
    let chat = begun(&running.client).await;
    let path = format!("/cluster/v1/runs/{chat}/parts?fence=1");
    let status = async |client: &Client| client.get(&path).await.status();
    let user = running.client.user_token().await;
    assert_eq!(status(&running.client).await, StatusCode::UNAUTHORIZED, "an admin's token");
    assert_eq!(status(&running.client.with_token(&user)).await, StatusCode::UNAUTHORIZED);
    assert_eq!(status(&running.client.anonymous()).await, StatusCode::UNAUTHORIZED);
    let almost = &SECRET[..SECRET.len() - 1];
    assert_eq!(status(&running.client.with_token(almost)).await, StatusCode::UNAUTHORIZED);

    let peer = running.client.with_token(SECRET);
    let mut parts = peer.get(&path).await;
    assert_eq!(parts.status(), StatusCode::OK);
    assert!(parts.chunk().await.unwrap().is_some());
    let other_fence = format!("/cluster/v1/runs/{chat}/parts?fence=2");
    assert_eq!(peer.get(&other_fence).await.status(), StatusCode::NOT_FOUND);
    // And the secret is no token.
    assert_eq!(peer.get("/api/v1/chats").await.status(), StatusCode::UNAUTHORIZED);
    let described = running.client.get("/openapi.json").await.text().await.unwrap();
    assert!(!described.contains("cluster"), "it is no part of the API");
    running.stop().await;
}

#[tokio::test]
async fn cluster_route_is_not_there_without_a_secret() {
    let running = Running::start().await;
    let chat = running.client.create_chat("hello").await;
    let path = format!("/cluster/v1/runs/{chat}/parts?fence=1");
    for client in [&running.client, &running.client.with_token(""), &running.client.anonymous()] {
        assert_eq!(client.get(&path).await.status(), StatusCode::NOT_FOUND);
    }
    running.stop().await;
}

/// What a follower heard of one answer.
#[derive(Default)]
struct Heard {
    /// Of each part, in the order in which they came.
    seqs: Vec<u64>,
    /// Each owner's, once.
    fences: Vec<i64>,
    message: String,
}

impl Heard {
    /// Listens up to the next part of this number.
    async fn until_part(&mut self, events: &mut Events, words: usize) {
        loop {
            let (_, part) = events.next_named("part").await;
            self.note(&part);
            if part["seq"] == words {
                return;
            }
        }
    }

    async fn until_message(&mut self, events: &mut Events) {
        loop {
            let Event { event, data, .. } = events.next().await.expect("the stream goes on");
            let data: Value = serde_json::from_str(&data).unwrap();
            match event.as_str() {
                "part" => self.note(&data),
                "message" if data["role"] == "assistant" => {
                    self.message = said(&data);
                    return;
                }
                _ => {}
            }
        }
    }

    fn note(&mut self, part: &Value) {
        self.seqs.push(part["seq"].as_u64().unwrap());
        self.fences.push(part["fence"].as_i64().unwrap());
        self.fences.dedup();
    }

    /// Says whether each part follows the one before it, or begins an answer anew.
    fn is_ascending_without_gap(&self) -> bool {
        self.seqs.windows(2).all(|pair| pair[1] == pair[0] + 1 || pair[1] == 1)
    }
}

fn question() -> String {
    vec!["word"; WORDS].join(" ")
}

/// Starts a chat whose answer is under way.
async fn begun(client: &Client) -> String {
    let chat = client.create_chat(&question()).await;
    client.chat_in(&chat, "running").await;
    chat
}

/// Returns a database for a cluster, and what holds its answers after their beginning.
async fn stage() -> (TestDatabase, Recital) {
    (TestDatabase::create().await.unwrap(), Recital::of(BEGINNING))
}

/// Where no replica is, to begin with.
const NOWHERE: ([u8; 4], u16) = ([127, 0, 0, 1], 1);

/// A replica of the cluster, and the way by which others reach it, which can break.
struct Member {
    running: Running,
    client: Client,
    way: FaultProxy,
}

impl Member {
    async fn start(
        database: &TestDatabase,
        recital: &Recital,
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        // Where a replica listens is known after its start, and its way is advertised before.
        let way = FaultProxy::start(NOWHERE.into()).await.unwrap();
        let url = format!("http://{}", way.addr());
        let running = Running::start_answering(database.url(), recital.runner(), |settings| {
            settings.dev = true;
            settings.drain_timeout = Duration::ZERO;
            settings.advertise_url = Some(url);
            settings.cluster_secret = Some(SECRET.into());
            change(settings);
        })
        .await;
        way.lead_to(running.client.address());
        Self { client: running.client.clone(), running, way }
    }

    async fn stop(self) {
        self.running.stop().await;
    }
}

/// Starts a replica that has its hands full.
async fn busy(database: &TestDatabase) -> Member {
    let one = |settings: &mut Settings| settings.capacity = 1.try_into().unwrap();
    let busy = Member::start(database, &Recital::of(0), one).await;
    begun(&busy.client).await;
    busy
}

/// Returns how many dials ended so, in all servers of this process.
async fn dials(client: &Client, outcome: &str) -> u64 {
    let text = client.get("/metrics").await.text().await.unwrap();
    let name = format!("musterbeat_relay_dials_total{{outcome=\"{outcome}\"}} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&name));
    line.map_or(0, |count| count.parse().unwrap())
}
