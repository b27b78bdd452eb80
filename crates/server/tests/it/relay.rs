//! Chats that are followed through a replica that does not work on them.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use eventsource_stream::Event;
use musterbeat_server::settings::Settings;
use musterbeat_testkit::{BlackHole, FaultProxy, TestDatabase, eventually};
use nix::sys::signal::Signal;
use reqwest::StatusCode;
use serde_json::Value;

use crate::client::{Client, Events, PATIENCE, Running, said};
use crate::replica::{Replica, musterbeat};

const SECRET: &str = "known to all replicas and nobody else";

/// A question whose answer takes some seconds.
const WORDS: usize = 60;

#[tokio::test]
async fn follower_elsewhere_gets_the_parts_so_far_then_live_ones_then_the_message() {
    let (owner, database, _proxy) = owner().await;
    let chat = begun(&owner.client).await;
    // The owner has said some words before anybody follows through the other.
    let mut near = owner.client.follow(&chat, false, None).await;
    for _ in 0..5 {
        near.next_named("part").await;
    }
    let other = member(&database, |_| {}).await;
    let mut far = other.client.follow(&chat, false, None).await;
    assert_eq!(far.next().await.unwrap().event, "snapshot");
    let heard = Heard::until_message(&mut far).await;
    assert_eq!(heard.seqs, (1..=heard.seqs.len() as u64).collect::<Vec<_>>());
    assert!(heard.seqs.len() > WORDS / 2, "{:?}", heard.seqs);
    assert_eq!(heard.fences, [1]);
    assert_eq!(heard.message, format!("assistant: {}", question()));
    owner.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn followers_of_a_chat_elsewhere_share_one_connection_that_ends_with_the_last() {
    let (owner, database, proxy) = owner().await;
    let chat = begun(&owner.client).await;
    let other = member(&database, |_| {}).await;
    let mut followers = Vec::new();
    for _ in 0..5 {
        let mut follower = other.client.follow(&chat, false, None).await;
        assert_eq!(follower.next_named("part").await.1["seq"], 1);
        followers.push(follower);
    }
    assert_eq!(proxy.connections(), 1);
    drop(followers);
    eventually(PATIENCE, "the relay ends", async || proxy.connections() == 0).await;
    owner.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn relay_that_breaks_is_dialled_again_and_repeats_nothing() {
    let (owner, database, proxy) = owner().await;
    let chat = begun(&owner.client).await;
    let other = member(&database, |_| {}).await;
    let mut far = other.client.follow(&chat, false, None).await;
    for _ in 0..3 {
        far.next_named("part").await;
        proxy.reset();
    }
    let heard = Heard::until_message(&mut far).await;
    assert!(heard.is_ascending_without_gap(), "{:?}", heard.seqs);
    assert!(heard.seqs.len() > 10, "{:?}", heard.seqs);
    owner.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn dial_that_fails_is_tried_again_while_the_owner_stays() {
    let (owner, database, proxy) = owner().await;
    proxy.refuse();
    let chat = begun(&owner.client).await;
    let other = member(&database, |_| {}).await;
    let mut far = other.client.follow(&chat, false, None).await;
    far.next_named("snapshot").await;
    eventually(PATIENCE, "a dial fails", async || dials(&other.client, "failed").await > 0).await;
    proxy.heal();
    assert_eq!(far.next_named("part").await.1["seq"], 1, "the parts so far");
    owner.stop().await;
    other.stop().await;
}

/// The owner's replica accepts connections and says nothing.
#[tokio::test]
async fn dial_in_flight_holds_up_neither_snapshot_nor_message() {
    let (owner, database, proxy) = owner().await;
    proxy.black_hole(BlackHole::Both);
    let chat = begun(&owner.client).await;
    let other = member(&database, |_| {}).await;
    let mut far = other.client.follow(&chat, true, None).await;
    assert_eq!(far.next().await.unwrap().event, "snapshot");
    eventually(PATIENCE, "it dials", async || proxy.connections() == 1).await;
    let heard = Heard::until_message(&mut far).await;
    assert_eq!(heard.seqs, [0; 0]);
    assert!(far.rest().await.iter().any(|(name, _)| name == "status"));
    eventually(PATIENCE, "the dial is given up", async || proxy.connections() == 0).await;
    owner.stop().await;
    other.stop().await;
}

/// The follower's own replica never works on the chat, as it is busy.
#[tokio::test]
async fn follower_goes_over_to_the_next_owner_when_the_first_drains() {
    let database = TestDatabase::create().await.unwrap();
    let other = busy(&database).await;
    let first = member(&database, slow).await;
    let chat = begun(&first.client).await;
    let mut far = other.client.follow(&chat, false, None).await;
    assert_eq!(far.next_named("part").await.1["fence"], 1);

    let second = member(&database, slow).await;
    first.stop().await;
    let heard = Heard::until_message(&mut far).await;
    assert_eq!(heard.fences.first(), Some(&1));
    assert!(heard.fences.len() == 2 && heard.fences[1] > 1, "{:?}", heard.fences);
    assert!(heard.is_ascending_without_gap(), "{:?}", heard.seqs);
    assert_eq!(heard.message, format!("assistant: {}", question()));
    second.stop().await;
    other.stop().await;
}

/// What is relayed and what is said here are the same to the follower.
#[tokio::test]
async fn relay_is_closed_when_the_next_owner_is_here() {
    let (owner, database, proxy) = owner().await;
    let chat = begun(&owner.client).await;
    let other = member(&database, slow).await;
    let mut far = other.client.follow(&chat, false, None).await;
    assert_eq!(far.next_named("part").await.1["fence"], 1);
    owner.stop().await;
    let heard = Heard::until_message(&mut far).await;
    assert!(heard.fences.last() > Some(&1), "{:?}", heard.fences);
    assert!(heard.is_ascending_without_gap(), "{:?}", heard.seqs);
    assert_eq!(proxy.connections(), 0);
    other.stop().await;
}

#[tokio::test]
async fn follower_leaves_an_owner_that_freezes_and_hears_nothing_of_it_when_it_wakes() {
    let database = TestDatabase::create().await.unwrap();
    let other = busy(&database).await;
    let folder = tempfile::tempdir().unwrap();
    let address = free_address();
    let mut command = musterbeat(folder.path());
    command.args(["--dev", "--database-url", database.url(), "--listen", &address.to_string()]);
    command.envs([
        ("MUSTERBEAT_BEAT_INTERVAL", "500ms"),
        ("MUSTERBEAT_LEASE_TTL", "3s"),
        ("MUSTERBEAT_FENCE_MARGIN", "500ms"),
        ("MUSTERBEAT_ECHO_PACE", "50ms"),
        ("MUSTERBEAT_CLUSTER_SECRET", SECRET),
    ]);
    command.env("MUSTERBEAT_ADVERTISE_URL", format!("http://{address}"));
    let frozen = Replica::start(&mut command);
    let chat = begun(&frozen.client).await;
    let mut far = other.client.follow(&chat, false, None).await;
    assert_eq!(far.next_named("part").await.1["fence"], 1);
    let second = member(&database, slow).await;
    frozen.signal(Signal::SIGSTOP);
    while far.next_named("part").await.1["fence"] == 1 {}
    frozen.signal(Signal::SIGCONT);
    let heard = Heard::until_message(&mut far).await;
    assert!(!heard.fences.contains(&1), "{:?}", heard.fences);
    assert!(heard.is_ascending_without_gap(), "{:?}", heard.seqs);
    frozen.stop();
    second.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn relayed_stream_ends_with_its_server_and_leaves_the_owner_at_work() {
    let (owner, database, _proxy) = owner().await;
    let chat = begun(&owner.client).await;
    let other = member(&database, |_| {}).await;
    let mut far = other.client.follow(&chat, false, None).await;
    far.next_named("part").await;
    other.stop().await;
    far.rest().await;
    owner.client.chat_in(&chat, "waiting").await;
    owner.stop().await;
}

#[tokio::test]
async fn follower_gets_the_messages_where_replicas_share_no_secret() {
    let (owner, database, _proxy) = owner().await;
    let chat = begun(&owner.client).await;
    let other = member(&database, |settings| settings.cluster_secret = None).await;
    let events = other.client.follow(&chat, true, None).await.rest().await;
    assert!(events.iter().all(|(name, _)| name != "part"));
    let messages: Vec<String> =
        events.iter().filter(|(name, _)| name == "message").map(|event| said(&event.1)).collect();
    assert_eq!(messages, [format!("assistant: {}", question())]);
    owner.stop().await;
    other.stop().await;
}

#[tokio::test]
async fn cluster_route_takes_the_cluster_secret_and_no_token() {
    let database = TestDatabase::create().await.unwrap();
    let url = database.url().to_owned();
    let running = Running::start_beside(&url, |settings| {
        settings.cluster_secret = Some(SECRET.into());
        settings.echo_pace = Duration::from_millis(50);
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
struct Heard {
    /// Of each part, in the order in which they came.
    seqs: Vec<u64>,
    /// Each owner's, once.
    fences: Vec<i64>,
    message: String,
}

impl Heard {
    async fn until_message(events: &mut Events) -> Self {
        let (mut seqs, mut fences) = (Vec::new(), Vec::new());
        loop {
            let Event { event, data, .. } = events.next().await.expect("the stream goes on");
            let data: Value = serde_json::from_str(&data).unwrap();
            match event.as_str() {
                "part" => {
                    seqs.push(data["seq"].as_u64().unwrap());
                    fences.push(data["fence"].as_i64().unwrap());
                    fences.dedup();
                }
                "message" if data["role"] == "assistant" => {
                    return Self { seqs, fences, message: said(&data) };
                }
                _ => {}
            }
        }
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

fn slow(settings: &mut Settings) {
    settings.echo_pace = Duration::from_millis(50);
    settings.drain_timeout = Duration::ZERO;
}

/// Starts a replica of the cluster that is the only one so far, and that others reach by a proxy.
async fn owner() -> (Running, TestDatabase, FaultProxy) {
    let database = TestDatabase::create().await.unwrap();
    let address = free_address();
    let proxy = FaultProxy::start(address).await.unwrap();
    let url = format!("http://{}", proxy.addr());
    let owner = member(&database, |settings| {
        slow(settings);
        settings.listen = address;
        settings.advertise_url = Some(url);
    })
    .await;
    (owner, database, proxy)
}

/// Starts a replica that has its hands full.
async fn busy(database: &TestDatabase) -> Running {
    let busy = member(database, |settings| {
        settings.echo_pace = Duration::from_hours(1);
        settings.drain_timeout = Duration::ZERO;
        settings.capacity = 1.try_into().unwrap();
    })
    .await;
    begun(&busy.client).await;
    busy
}

async fn member(database: &TestDatabase, change: impl FnOnce(&mut Settings)) -> Running {
    Running::start_beside(database.url(), |settings| {
        let address = free_address();
        settings.dev = true;
        settings.listen = address;
        settings.advertise_url = Some(format!("http://{address}"));
        settings.cluster_secret = Some(SECRET.into());
        change(settings);
    })
    .await
}

/// Returns an address that was free a moment ago.
fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// Returns how many dials ended so, in all servers of this process.
async fn dials(client: &Client, outcome: &str) -> u64 {
    let text = client.get("/metrics").await.text().await.unwrap();
    let name = format!("musterbeat_relay_dials_total{{outcome=\"{outcome}\"}} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&name));
    line.map_or(0, |count| count.parse().unwrap())
}
