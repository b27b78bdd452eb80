//! Owners that die, freeze or lose their database, with real replicas.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use musterbeat_core::chat::{NewChat, Title};
use musterbeat_core::id::{ChatId, OwnerId, RunId, WorkerId};
use musterbeat_core::message::{Content, Turn};
use musterbeat_core::port::{ChatStore, LeaseStore, Reach};
use musterbeat_core::run::{RunKind, RunStatus};
use musterbeat_core::timestamp::Timestamp;
use musterbeat_db::runs::{self, Locked};
use musterbeat_db::{PgConnection, PgPool, PgStore, PoolLimits, connect};
use musterbeat_testkit::{FaultProxy, TestDatabase, crash, eventually};
use nix::sys::signal::Signal;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::client::{Client, PATIENCE, Running};
use crate::process::{on_its_own, open_to_all, write_program};
use crate::recital::Recital;
use crate::replica::{Replica, musterbeat};

/// A lease that passes soon, with room for a machine that stands still for some seconds.
pub(crate) const SHORT_LEASE: [(&str, &str); 3] = [
    ("MUSTERBEAT_BEAT_INTERVAL", "500ms"),
    ("MUSTERBEAT_LEASE_TTL", "6s"),
    ("MUSTERBEAT_FENCE_MARGIN", "500ms"),
];

pub(crate) fn shorten_lease(settings: &mut musterbeat_server::settings::Settings) {
    settings.beat_interval = Duration::from_millis(500);
    settings.lease_ttl = Duration::from_secs(6);
    settings.fence_margin = Duration::from_millis(500);
}

/// Locks a chat's run, until the transaction is dropped.
pub(crate) async fn lock(conn: &mut PgConnection, chat: &str) -> Locked {
    let run = RunId::new(chat.parse().unwrap());
    let locked = runs::lock(conn, run, &RunKind::CHAT, Reach::Everything).await;
    locked.unwrap().unwrap()
}

async fn fence_of(pool: &PgPool, chat: &str) -> i64 {
    lock(&mut pool.begin().await.unwrap(), chat).await.ownership.fence.0
}

async fn lapsed(client: &Client) -> bool {
    let metrics = client.get("/metrics").await.text().await.unwrap();
    metrics.lines().any(|line| line.starts_with("musterbeat_leases_lapsed_total{"))
}

/// It wakes with an answer half written, and the question is answered already.
#[tokio::test]
async fn frozen_replica_that_wakes_after_its_lease_writes_nothing() {
    let database = TestDatabase::create().await.unwrap();
    let pool = database.pool().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut frozen = musterbeat(folder.path());
    frozen.args(["--dev", "--database-url", database.url()]).envs(SHORT_LEASE);
    let frozen = Replica::start(frozen.env("MUSTERBEAT_ECHO_PACE", "1h"));
    let chat = frozen.client.create_chat("who answers this?").await;
    frozen.client.chat_in(&chat, "running").await;

    let other = Running::start_beside(database.url(), |settings| {
        settings.dev = true;
        shorten_lease(settings);
    })
    .await;
    frozen.signal(Signal::SIGSTOP);
    other.client.chat_in(&chat, "waiting").await;
    assert_eq!(fence_of(&pool, &chat).await, 3, "claim, requeue, claim");

    frozen.signal(Signal::SIGCONT);
    eventually(PATIENCE, "it finds its lease lapsed", async || lapsed(&frozen.client).await).await;
    eventually(PATIENCE, "it works under a new lease", async || {
        let workers = other.client.get_json("/api/v1/workers").await;
        let live = |worker: &&Value| worker["dead"] == false;
        workers["workers"].as_array().unwrap().iter().filter(live).count() == 2
    })
    .await;
    let said = ["user: who answers this?", "assistant: who answers this?"];
    assert_eq!(other.client.history(&chat).await, said);
    assert_eq!(fence_of(&pool, &chat).await, 3);
    frozen.stop();
    other.stop().await;
}

/// One run that kills its process does not take the fleet down.
#[tokio::test]
async fn run_that_kills_its_process_five_times_ends_in_error() {
    let database = TestDatabase::create().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("poison.sh");
    write_program(&program, "#!/bin/sh\nkill -9 $PPID\n");
    let mut command = musterbeat(folder.path());
    command.args(["--dev", "--database-url", database.url()]).envs(SHORT_LEASE);
    // Each of its replicas dies anyway, and the next waits for the end of its lease.
    command.env("MUSTERBEAT_LEASE_TTL", "3s");
    command.arg("--runner").arg(format!("command:{}", program.display()));

    let mut replica = Replica::start(&mut command);
    // Its answer may be lost with the server.
    let create = replica.client.request(Method::POST, "/api/v1/chats");
    let _ = create.json(&json!({ "content": "die" })).send().await;
    for _ in 0..4 {
        end_of(&mut replica).await;
        replica = Replica::start(&mut command);
    }
    end_of(&mut replica).await;
    let survivor = Replica::start(&mut command);
    let chats = survivor.client.get_json("/api/v1/chats").await;
    let chat = chats["chats"][0]["id"].as_str().unwrap();
    let stored = survivor.client.chat_in(chat, "error").await;
    let error = stored["error"].as_str().unwrap();
    assert_eq!(error, "its worker died 5 times in a row while the run was on it");
    survivor.stop();
}

/// Waits for a replica's death: after its lease has passed and the run's backoff.
async fn end_of(replica: &mut Replica) {
    eventually(PATIENCE, "the replica is killed", async || replica.has_ended()).await;
}

/// Starts turns that are held in their middle, all on the server at `client`.
async fn long_turns(client: &Client) -> Vec<String> {
    const QUESTION: &str = "one two three four five six seven eight nine ten eleven twelve";
    let mut chats = Vec::new();
    for _ in 0..20 {
        chats.push(client.create_chat(QUESTION).await);
    }
    for chat in &chats {
        client.chat_in(chat, "running").await;
    }
    chats
}

async fn reciting(url: &str, recital: &Recital) -> Running {
    Running::start_answering(url, recital.runner(), |settings| settings.dev = true).await
}

async fn is_ready(running: &Running) {
    eventually(PATIENCE, "the database is reached again", async || {
        running.client.get("/readyz").await.status().is_success()
    })
    .await;
}

async fn each_is_answered_once(client: &Client, pool: &PgPool, chats: &[String]) -> Vec<i64> {
    let mut fences = Vec::new();
    for chat in chats {
        let path = format!("/api/v1/chats/{chat}");
        eventually(PATIENCE, "it is answered", async || {
            through_recovery(client, &path).await["status"] == "waiting"
        })
        .await;
        let history = client.history(chat).await;
        assert_eq!(history.len(), 2, "{history:?}");
        assert_eq!(history[1], history[0].replace("user", "assistant"));
        fences.push(fence_of(pool, chat).await);
    }
    fences
}

/// The default lease bears it: beats fail, and nobody is interrupted or replaced.
#[tokio::test]
async fn database_down_for_five_seconds_changes_no_owner() {
    let database = TestDatabase::create().await.unwrap();
    let pool = database.pool().await.unwrap();
    let proxy = FaultProxy::in_front_of(database.url()).await.unwrap();
    let url = proxy.url(database.url()).unwrap();
    let recital = Recital::of(1);
    let owner = reciting(&url, &recital).await;
    let chats = long_turns(&owner.client).await;
    // A thief whose own way to the database is whole.
    let thief = reciting(database.url(), &recital).await;
    proxy.refuse();
    proxy.reset();
    tokio::time::sleep(Duration::from_secs(5)).await;
    proxy.heal();
    is_ready(&owner).await;
    recital.finish();
    let fences = each_is_answered_once(&thief.client, &pool, &chats).await;
    assert_eq!(fences, vec![1; chats.len()]);
    owner.stop().await;
    thief.stop().await;
}

/// Longer than any lease, for everybody: what ran begins again, once.
#[tokio::test]
async fn database_down_for_thirty_seconds_requeues_each_run_at_most_once() {
    let database = TestDatabase::create().await.unwrap();
    let pool = database.pool().await.unwrap();
    let proxy = FaultProxy::in_front_of(database.url()).await.unwrap();
    let url = proxy.url(database.url()).unwrap();
    let recital = Recital::of(1);
    let owner = reciting(&url, &recital).await;
    let chats = long_turns(&owner.client).await;
    let other = reciting(&url, &recital).await;
    proxy.refuse();
    proxy.reset();
    tokio::time::sleep(Duration::from_secs(30)).await;
    proxy.heal();
    is_ready(&other).await;
    recital.finish();
    let fences = each_is_answered_once(&other.client, &pool, &chats).await;
    assert_eq!(fences, vec![3; chats.len()], "claim, requeue, claim");
    owner.stop().await;
    other.stop().await;
}

/// Beats are not flushed: a database that crashes forgets some that it acknowledged.
#[tokio::test]
async fn beats_forgotten_by_a_crash_of_the_database_cost_nobody_a_run() {
    let folder = tempfile::Builder::new().prefix("musterbeat-process-").tempdir().unwrap();
    open_to_all(folder.path());
    let data_dir = folder.path().join("data");
    let mut command = on_its_own(&data_dir);
    command.arg("--dev").env("MUSTERBEAT_ECHO_PACE", "1s");
    let owner = Replica::start(&mut command);
    let twenty_seconds = vec!["word"; 20].join(" ");
    let chat = owner.client.create_chat(&twenty_seconds).await;
    owner.client.chat_in(&chat, "running").await;
    let running = musterbeat_embedded::running(&data_dir).unwrap().unwrap();
    let url = running.url("postgres");
    let thief = Running::start_beside(&url, |settings| settings.dev = true).await;
    let pool = connect(&url, &PoolLimits::default()).await.unwrap();
    let store = PgStore::new(pool.clone());

    let (mut crashes, path) = (0, format!("/api/v1/chats/{chat}"));
    // For longer than a lease lasts, each crash right after a beat was acknowledged.
    while through_recovery(&owner.client, &path).await["status"] == "running" {
        crash(&url).await.unwrap();
        crashes += 1;
        let known = last_beats(&store).await;
        eventually(PATIENCE, "both beat after it", async || {
            let workers = store.workers().await.unwrap_or_default();
            let newer =
                workers.iter().filter(|one| known.get(&one.lease.worker) < Some(&one.heartbeat_at));
            newer.count() == 2
        })
        .await;
    }
    assert!(crashes >= 2, "{crashes} crashes");
    let messages = through_recovery(&thief.client, &format!("{path}/messages")).await;
    assert_eq!(messages["messages"].as_array().unwrap().len(), 2);
    assert_eq!(fence_of(&pool, &chat).await, 1, "it kept its owner");
    pool.close().await;
    thief.stop().await;
    owner.stop();
}

/// Reads what a server refuses, with a 503, while its database recovers.
async fn through_recovery(client: &Client, path: &str) -> Value {
    let mut read = None;
    eventually(PATIENCE, "the database is read", async || {
        let response = client.get(path).await;
        let status = response.status();
        assert!(status.is_success() || status == StatusCode::SERVICE_UNAVAILABLE, "{status}");
        read = status.is_success().then_some(response);
        read.is_some()
    })
    .await;
    read.unwrap().json().await.unwrap()
}

/// Returns the last beats that the database knows of, once it has recovered.
async fn last_beats(store: &PgStore) -> BTreeMap<WorkerId, Timestamp> {
    let mut beats = BTreeMap::new();
    eventually(PATIENCE, "the workers are read", async || {
        let workers = store.workers().await.unwrap_or_default();
        beats = workers.iter().map(|worker| (worker.lease.worker, worker.heartbeat_at)).collect();
        !beats.is_empty()
    })
    .await;
    beats
}

/// The wake finds the run locked; nobody wakes the worker again, and its poll is far.
#[tokio::test]
async fn wake_spent_while_the_row_was_locked_is_made_up_for_soon() {
    let database = TestDatabase::create().await.unwrap();
    let pool = database.pool().await.unwrap();
    let running = Running::start_beside(database.url(), |settings| {
        settings.dev = true;
        settings.poll_interval = Duration::from_mins(5);
    })
    .await;
    // Its looks are over, and the next one is far.
    let first = running.client.create_chat("hello").await;
    running.client.chat_in(&first, "waiting").await;
    // By another process, whose notices do not reach the server.
    let store = PgStore::new(pool.clone());
    let (hidden, holder) = loop {
        let hidden = store.create(new_chat(), Reach::Everything).await.unwrap().chat;
        let mut holder = pool.begin().await.unwrap();
        // A look that was still to come may have taken it first.
        if lock(&mut holder, &hidden.to_string()).await.status == RunStatus::Pending {
            break (hidden, holder);
        }
        holder.rollback().await.unwrap();
    };
    let woken = running.client.create_chat("wake up").await;
    running.client.chat_in(&woken, "waiting").await;
    holder.rollback().await.unwrap();
    running.client.chat_in(&hidden.to_string(), "waiting").await;
    running.stop().await;
}

fn new_chat() -> NewChat {
    let content = Content::text("hidden").unwrap();
    let turn = Turn { content, model: None, created_by: None };
    let [id, owner] = [uuid::Uuid::now_v7(), uuid::Uuid::now_v7()];
    NewChat::new(ChatId::new(id), OwnerId::new(owner), Title::new("hidden").unwrap(), turn)
}

/// An operator's second signal: what runs is handed over at once and goes on elsewhere.
#[tokio::test]
async fn second_signal_hands_running_turns_over_at_once() {
    let database = TestDatabase::create().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut leaving = slow_replica(folder.path(), database.url());
    let chat = leaving.client.create_chat("go on elsewhere").await;
    leaving.client.chat_in(&chat, "running").await;
    let other = Running::start_beside(database.url(), |settings| settings.dev = true).await;
    leaving.signal(Signal::SIGTERM);
    eventually(PATIENCE, "it takes nothing new", async || {
        !leaving.client.get("/readyz").await.status().is_success()
    })
    .await;
    assert_eq!(other.client.get_json(&format!("/api/v1/chats/{chat}")).await["status"], "running");
    leaving.signal(Signal::SIGTERM);
    let answered = other.client.chat_in(&chat, "waiting").await;
    assert_eq!(answered["error"], Value::Null);
    let said = ["user: go on elsewhere", "assistant: go on elsewhere"];
    assert_eq!(other.client.history(&chat).await, said, "a shutdown keeps no partial answer");
    assert!(leaving.ended_well());
    let workers = other.client.get_json("/api/v1/workers").await;
    assert_eq!(workers["workers"].as_array().unwrap().len(), 1, "it resigned");
    other.stop().await;
}

fn slow_replica(folder: &Path, url: &str) -> Replica {
    let mut command = musterbeat(folder);
    command.args(["--dev", "--database-url", url]).env("MUSTERBEAT_ECHO_PACE", "1h");
    Replica::start(&mut command)
}
