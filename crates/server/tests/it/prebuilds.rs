//! Pools of prebuilds: filled, claimed, refilled, and what a replica that dies leaves behind.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use musterbeat_server::settings::{ProvisionerChoice, Settings};
use musterbeat_testkit::{TestDatabase, eventually};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client::{Client, PATIENCE, Running};
use crate::process::write_program;
use crate::replica::{Replica, musterbeat};

/// A template of a folder, and a place for workspaces.
struct Ground {
    folder: TempDir,
}

impl Ground {
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("musterbeat-prebuilds-").tempdir().unwrap();
        let template = folder.path().join("templates/hello");
        std::fs::create_dir_all(&template).unwrap();
        std::fs::create_dir(folder.path().join("workspaces")).unwrap();
        std::fs::write(template.join("README.md"), "hello\n").unwrap();
        Self { folder }
    }

    fn workspaces(&self) -> PathBuf {
        self.folder.path().join("workspaces")
    }

    /// Builds folders, and looks at pools by itself only each hour.
    fn settings(&self) -> impl FnOnce(&mut Settings) {
        let (workspaces, templates) = (self.workspaces(), self.folder.path().join("templates"));
        |settings| {
            settings.provisioner = Some(ProvisionerChoice::Directory);
            settings.workspaces_dir = Some(workspaces);
            settings.templates_dir = Some(templates);
            settings.reconcile_interval = Duration::from_hours(1);
        }
    }
}

impl Client {
    /// Returns how the only pool stands.
    async fn pool(&self) -> Value {
        self.get_json("/api/v1/pools").await["pools"][0].take()
    }

    /// Waits until the only pool has so many ready, and nothing else.
    async fn full_pool(&self, ready: u64) {
        eventually(PATIENCE, &format!("{ready} are ready"), async || {
            let pool = self.pool().await;
            let moving = ["starting", "deleting", "expired", "failed"];
            pool["ready"] == ready && moving.iter().all(|count| pool[count] == 0)
        })
        .await;
    }

    async fn prebuilds(&self, preset: &str) -> Vec<String> {
        let page = self.get_json(&format!("/api/v1/presets/{preset}/prebuilds")).await;
        let prebuilds = page["prebuilds"].as_array().unwrap().iter();
        prebuilds.map(|prebuild| prebuild["workspace_id"].as_str().unwrap().to_owned()).collect()
    }

    async fn claim(&self, preset: &str, name: &str) -> (StatusCode, Value) {
        let body = json!({ "name": name });
        let answer = self.post(&format!("/api/v1/presets/{preset}/claim"), &body).await;
        (answer.status(), answer.json().await.unwrap())
    }

    /// Waits until a build has ended; returns it.
    async fn ended_build(&self, build: &Value) -> Value {
        let path = format!("/api/v1/builds/{}", build.as_str().unwrap());
        eventually(PATIENCE, "the build has ended", async || {
            let status = &self.get_json(&path).await["status"];
            status == "succeeded" || status == "failed"
        })
        .await;
        self.get_json(&path).await
    }
}

#[tokio::test]
async fn pool_fills_gives_and_refills() {
    let ground = Ground::new();
    let running = Running::start_with(ground.settings()).await;
    let client = &running.client;
    let preset = client.create_preset("hello", "hello", 3).await;
    client.full_pool(3).await;
    let before = client.prebuilds(&preset).await;
    assert_eq!(before.len(), 3);

    let claimed = Instant::now();
    let (status, given) = client.claim(&preset, "blue").await;
    assert_eq!(status, StatusCode::OK);
    let workspace = given["workspace_id"].as_str().unwrap();
    assert_eq!(workspace, before[0], "the oldest");
    eventually(PATIENCE, "a refill has begun", async || {
        client.prebuilds(&preset).await.iter().any(|id| !before.contains(id))
    })
    .await;
    println!("a refill began {:?} after a claim", claimed.elapsed());
    client.full_pool(3).await;

    let build = client.ended_build(&given["build_id"]).await;
    assert_eq!((&build["transition"], &build["status"]), (&json!("claim"), &json!("succeeded")));
    let label = ground.workspaces().join(workspace).join(".musterbeat.json");
    let label: Value = serde_json::from_slice(&std::fs::read(label).unwrap()).unwrap();
    assert_eq!(label["name"], "blue");
    let shown = client.get_json(&format!("/api/v1/workspaces/{workspace}")).await;
    assert_eq!((&shown["name"], &shown["owner_id"]), (&json!("blue"), &label["owner_id"]));

    let (status, problem) = client.claim(&preset, "BLUE").await;
    assert_eq!(
        (status, problem["type"].as_str().unwrap()),
        (StatusCode::CONFLICT, "urn:musterbeat:name-taken")
    );
    client.full_pool(3).await;
    running.stop().await;
}

#[tokio::test]
async fn claim_of_an_empty_pool_is_refused_and_a_workspace_is_built_instead() {
    let ground = Ground::new();
    let running = Running::start_with(ground.settings()).await;
    let client = &running.client;
    let preset = client.create_preset("hello", "hello", 0).await;
    let (status, problem) = client.claim(&preset, "blue").await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(problem["type"], "urn:musterbeat:no-claimable-prebuild");

    let body = json!({ "name": "blue", "preset_id": preset, "ttl": 3_600 });
    let made = client.post("/api/v1/workspaces", &body).await;
    assert_eq!(made.status(), StatusCode::CREATED);
    let made: Value = made.json().await.unwrap();
    let build = client.ended_build(&made["build_id"]).await;
    assert_eq!(build["transition"], "start");
    let log =
        client.get_json(&format!("/api/v1/builds/{}/log", build["id"].as_str().unwrap())).await;
    assert_eq!(log["lines"], json!(["copied 1 files, 6 bytes"]));
    let path = format!("/api/v1/workspaces/{}", made["workspace_id"].as_str().unwrap());
    assert!(client.get_json(&path).await["deadline"].is_string());

    let order = client.request(Method::DELETE, &path).send().await.unwrap();
    assert_eq!(order.status(), StatusCode::ACCEPTED);
    let order: Value = order.json().await.unwrap();
    assert_eq!(client.ended_build(&order["build_id"]).await["status"], "succeeded");
    assert_eq!(client.get(&path).await.status(), StatusCode::NOT_FOUND);
    let left = std::fs::read_dir(ground.workspaces()).unwrap();
    let left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| name == "by-owner"), "{left:?}");
    running.stop().await;
}

#[tokio::test]
async fn new_version_replaces_a_pool_and_a_pause_holds_it() {
    let ground = Ground::new();
    let running = Running::start_with(ground.settings()).await;
    let client = &running.client;
    let first = client.create_preset("hello", "hello", 2).await;
    client.full_pool(2).await;
    let pause = async |paused: bool| {
        let body = json!({ "paused": paused });
        let request = client.request(Method::PUT, "/api/v1/pools/paused").json(&body);
        let pools: Value = request.send().await.unwrap().json().await.unwrap();
        assert_eq!(pools["paused"], paused);
    };
    pause(true).await;
    let template = client.get_json(&format!("/api/v1/presets/{first}")).await["template_id"].take();
    let presets = json!([{ "name": "small", "pool": { "desired_instances": 1 } }]);
    let version = json!({ "name": "v2", "source": "hello", "presets": presets });
    let path = format!("/api/v1/templates/{}/versions", template.as_str().unwrap());
    assert_eq!(client.post(&path, &version).await.status(), StatusCode::CREATED);
    let (status, _) = client.claim(&first, "too late").await;
    assert_eq!(status, StatusCode::CONFLICT, "its version is not active any more");
    assert_eq!(client.prebuilds(&first).await.len(), 2, "nothing is deleted while it is paused");

    pause(false).await;
    eventually(PATIENCE, "the former ones are gone", async || {
        client.prebuilds(&first).await.is_empty()
    })
    .await;
    client.full_pool(1).await;
    running.stop().await;
}

/// Starts a replica whose builds are programs that write down what they do.
fn replica(folder: &Path, database: &TestDatabase) -> Replica {
    Replica::start(
        musterbeat(folder)
            .arg("--dev")
            .args(["--database-url", database.url()])
            .env("MUSTERBEAT_PROVISIONER", format!("command:{}", folder.join("build").display()))
            .env("MUSTERBEAT_BUILD_CAPACITY", "2")
            .env("MUSTERBEAT_RECONCILE_INTERVAL", "1s")
            .env("MUSTERBEAT_BEAT_INTERVAL", "300ms")
            .env("MUSTERBEAT_LEASE_TTL", "6s")
            .env("MUSTERBEAT_FENCE_MARGIN", "500ms"),
    )
}

/// Writes a program that notes when a build begins and when it is done.
fn write_builder(folder: &Path) {
    let program = folder.join("build");
    let journal = folder.join("journal");
    let text = format!(
        "#!/bin/sh\necho \"begin $MUSTERBEAT_BUILD_ID\" >>{0}\nsleep 0.1\n\
         echo \"end $MUSTERBEAT_BUILD_ID\" >>{0}\n",
        journal.display()
    );
    write_program(&program, &text);
}

/// Returns how often each build did something.
fn counts(folder: &Path, what: &str) -> BTreeMap<String, usize> {
    let journal = std::fs::read_to_string(folder.join("journal")).unwrap_or_default();
    let mut counts = BTreeMap::new();
    for build in journal.lines().filter_map(|line| line.strip_prefix(what)) {
        *counts.entry(build.trim().to_owned()).or_default() += 1;
    }
    counts
}

/// Waits until exactly one of the replicas says that it leads; returns its place.
async fn leader(replicas: &[&Replica]) -> usize {
    let mut leaders = Vec::new();
    eventually(PATIENCE, "exactly one leads", async || {
        leaders.clear();
        for (place, replica) in replicas.iter().enumerate() {
            let metrics = replica.client.get("/metrics").await.text().await.unwrap();
            if metrics.lines().any(|line| line == "musterbeat_reconcile_leads 1") {
                leaders.push(place);
            }
        }
        leaders.len() == 1
    })
    .await;
    leaders[0]
}

#[tokio::test]
async fn killed_leader_loses_no_build_and_doubles_none() {
    const WANTED: u32 = 24;
    let folder = tempfile::tempdir().unwrap();
    write_builder(folder.path());
    let database = TestDatabase::create().await.unwrap();
    let mut replicas = vec![replica(folder.path(), &database), replica(folder.path(), &database)];
    let leads = leader(&replicas.iter().collect::<Vec<_>>()).await;
    let first = replicas.remove(leads);
    let second = replicas.remove(0);
    let preset = first.client.create_preset("hello", "none", WANTED).await;
    eventually(PATIENCE, "some are built", async || counts(folder.path(), "end ").len() >= 6).await;
    first.kill();
    let begun = counts(folder.path(), "begin ");

    second.client.full_pool(WANTED.into()).await;
    assert_eq!(leader(&[&second]).await, 0);
    let prebuilds = second.client.prebuilds(&preset).await;
    assert_eq!(prebuilds.len(), WANTED as usize);
    let ended = counts(folder.path(), "end ");
    assert_eq!(ended.len(), WANTED as usize, "each was built, and none beside them");
    // Only what the killed one was at, two at most, may have been begun again.
    let again: Vec<_> =
        counts(folder.path(), "begin ").into_iter().filter(|(_, n)| *n > 1).collect();
    assert!(again.len() <= 2, "{again:?}");
    assert!(again.iter().all(|(build, n)| *n == 2 && begun.contains_key(build)), "{again:?}");
    second.stop();
}

#[tokio::test]
async fn replica_that_cannot_write_its_folder_serves_no_builds() {
    let ground = Ground::new();
    let settings = ground.settings();
    let running = Running::start_with(|of| {
        settings(of);
        of.workspaces_dir = Some(ground.folder.path().join("not-mounted"));
    })
    .await;
    running.client.create_preset("hello", "hello", 2).await;
    eventually(PATIENCE, "they are ordered", async || running.client.pool().await["starting"] == 2)
        .await;
    let url = running.database().url();
    let other = Running::start_beside(url, ground.settings()).await;
    other.client.with_token(running.client.token()).full_pool(2).await;
    other.stop().await;
    running.stop().await;
}

#[tokio::test]
async fn failing_preset_is_held_back_and_then_given_up_while_others_go_on() {
    let ground = Ground::new();
    let settings = ground.settings();
    let running = Running::start_with(|of| {
        settings(of);
        of.backoff_interval = Duration::from_millis(50);
        of.failure_hard_limit = 2;
    })
    .await;
    let client = &running.client;
    let bad = client.create_preset("bad", "not-there", 1).await;
    let path = format!("/api/v1/presets/{bad}");
    eventually(PATIENCE, "what is not valid is marked", async || {
        client.get_json(&path).await["health"] == "validation_failed"
    })
    .await;
    eventually(PATIENCE, "nothing is left of it", async || client.prebuilds(&bad).await.is_empty())
        .await;
    let good = client.create_preset("good", "hello", 1).await;
    eventually(PATIENCE, "the other is built", async || {
        let prebuilds = client.get_json(&format!("/api/v1/presets/{good}/prebuilds")).await;
        prebuilds["prebuilds"][0]["status"] == "ready"
    })
    .await;
    // Whoever edits it means to try again.
    let patch = client.request(Method::PATCH, &path).json(&json!({ "invalidate": true }));
    let patched: Value = patch.send().await.unwrap().json().await.unwrap();
    assert_eq!(patched["health"], "healthy");
    running.stop().await;
}
