//! The states of branches, from a mark to the owner's feed, with hosts that count what they are
//! asked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use musterbeat_server::settings::{GitHost, GitProviderKind, Settings};
use musterbeat_testkit::{Call, FakeGitHub, FakePull, Fault, TestDatabase, Whom, eventually};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::client::{Client, Events, PATIENCE, Running};
use crate::replica::{Replica, musterbeat};

const HOST: &str = "github.example";
const ORIGIN: &str = "https://github.example/o/r";

fn hosted_by(fake: &FakeGitHub) -> impl FnOnce(&mut Settings) {
    let host = GitHost {
        origin: HOST.to_owned(),
        provider: GitProviderKind::Github,
        api: Some(fake.api_url()),
        token: Some("secret".into()),
        reviews: false,
    };
    move |settings| settings.git = vec![host]
}

fn url(number: i64) -> String {
    format!("{ORIGIN}/pull/{number}")
}

fn on(chat: &str) -> String {
    format!("/api/v1/chats/{chat}/diff-status")
}

/// Says that a chat's branch changed.
async fn mark(client: &Client, chat: &str, body: &Value) {
    let response = client.post(&on(chat), body).await;
    assert_eq!(response.status(), StatusCode::ACCEPTED);
}

/// Waits until what is known of a chat's branch is as it should be, and returns it.
async fn known(client: &Client, chat: &str, is: impl Fn(&Value) -> bool) -> Value {
    let read = async || client.get(&on(chat)).await.json::<Value>().await.unwrap();
    eventually(PATIENCE, "the host has told it", async || is(&read().await)).await;
    read().await
}

async fn refresh(client: &Client, chat: &str) -> reqwest::Response {
    client.request(Method::POST, &format!("{}/refresh", on(chat))).send().await.unwrap()
}

/// Adds chats that are stale, numbered from 1; each is on the pull request that `pull` says.
async fn add_stale(database: &TestDatabase, count: i32, owner: Uuid, pull: &str) {
    let add = format!(
        "with new as (
            select gen_random_uuid() as id, number from generate_series(1, {count}) as number
        ), new_runs as (
            insert into runs (run_id, kind, status, owner_id)
            select id, 'chat', 'waiting', '{owner}' from new
        ), new_chats as (
            insert into chats (id, owner_id, title) select id, '{owner}', 'x' from new
        )
        insert into chat_diff_statuses
            (chat_id, owner_id, url, git_branch, git_remote_origin, stale_at)
        select id, '{owner}', '{ORIGIN}/pull/' || {pull}, 'branch ' || number, '{ORIGIN}',
               now() - interval '1 hour' + number * interval '1 millisecond'
        from new"
    );
    database.execute(&add).await.unwrap();
}

async fn count(database: &TestDatabase, which: &str) -> i64 {
    let count = format!("select count(*) from chat_diff_statuses where {which}");
    database.number(&count).await.unwrap()
}

async fn all(database: &TestDatabase, count_of: i64, which: &str) {
    eventually(PATIENCE, which, async || count(database, which).await == count_of).await;
}

async fn make_stale(database: &TestDatabase) {
    let stale = "update chat_diff_statuses set stale_at = now() - interval '1 second'";
    database.execute(stale).await.unwrap();
}

fn statuses(calls: &[Call]) -> BTreeMap<u16, usize> {
    calls.iter().fold(BTreeMap::new(), |mut counts, call| {
        *counts.entry(call.status).or_default() += 1;
        counts
    })
}

#[tokio::test]
async fn marked_branch_is_told_and_its_owner_hears_of_it() {
    let fake = FakeGitHub::start().await.unwrap();
    fake.set_pull("o", "r", 7, FakePull::of("feature"));
    let running = Running::start_with(hosted_by(&fake)).await;
    let client = &running.client;
    let chat = client.create_chat("work").await;
    client.chat_in(&chat, "waiting").await;
    assert_eq!(client.get(&on(&chat)).await.status(), StatusCode::NOT_FOUND);
    let feed = client.get("/api/v1/chats/events").await;
    let mut feed = Events::of(feed);
    feed.next_named("snapshot").await;

    mark(client, &chat, &json!({ "branch": "feature", "origin": ORIGIN })).await;
    let found = known(client, &chat, |diff| diff["status"]["state"] == "open").await;
    let status = &found["status"];
    let figures = ["additions", "deletions", "changed_files"].map(|name| status[name].clone());
    assert_eq!(figures, [json!(10), json!(3), json!(2)]);
    assert_eq!((&found["url"], &status["pull_request"]["number"]), (&json!(url(7)), &json!(7)));
    let times = ["refreshed_at", "stale_at"].map(|name| {
        let text = found[name].as_str().unwrap();
        time::OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).unwrap()
    });
    let fresh = (times[1] - times[0]).as_seconds_f64();
    assert!((120.0..=132.0).contains(&fresh), "fresh for {fresh} s");
    assert_eq!(fake.take_calls().len(), 2, "once to find it, once to ask");
    loop {
        let (_, event) = feed.next_named("diff_status").await;
        assert_eq!(event["diff_status"]["chat_id"], json!(chat));
        if event["diff_status"]["status"]["state"] == "open" {
            break;
        }
    }

    fake.change_pull("o", "r", 7, |pull| "Better".clone_into(&mut pull.title));
    let now: Value = refresh(client, &chat).await.json().await.unwrap();
    assert_eq!(now["status"]["pull_request"]["title"], "Better");
    assert_eq!(statuses(&fake.take_calls()), BTreeMap::from([(200, 1)]));
    let (_, event) = feed.next_named("diff_status").await;
    assert_eq!(event["diff_status"]["status"]["pull_request"]["title"], "Better");
    let many = client.get_json(&format!("/api/v1/chats/diff-statuses?ids={chat}")).await;
    assert_eq!(many["diff_statuses"][0]["chat_id"], json!(chat));
    running.stop().await;
}

#[tokio::test]
async fn bad_marks_are_refused_by_the_name_of_their_field() {
    let running = Running::start().await;
    let client = &running.client;
    let chat = client.create_chat("work").await;
    let workspace = format!("/api/v1/workspaces/{}/diff-status", Uuid::now_v7());
    for (path, body, field) in [
        (on(&chat), json!({ "branch": "x".repeat(1_025) }), "branch"),
        (on(&chat), json!({ "url": "a\u{0}b" }), "url"),
        (workspace.clone(), json!({ "origin": ORIGIN }), "branch"),
        (workspace, json!({ "branch": "x" }), "origin"),
    ] {
        let response = client.post(&path, &body).await;
        assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(response.json::<Value>().await.unwrap()["field"], field);
    }
    mark(client, &chat, &json!({ "branch": "x", "origin": "https://nobody.example/o/r" })).await;
    let refused = refresh(client, &chat).await;
    assert_eq!(refused.status(), StatusCode::CONFLICT);
    let problem = known(client, &chat, |diff| diff["problem"].is_string()).await;
    assert_eq!(problem["problem"], "no host is set for this origin");
    running.stop().await;
}

#[tokio::test]
async fn five_hundred_chats_on_twenty_pull_requests_are_twenty_calls() {
    let fake = FakeGitHub::start().await.unwrap();
    for number in 1..=20 {
        fake.set_pull("o", "r", number, FakePull::of("feature"));
    }
    let running = Running::start_with(hosted_by(&fake)).await;
    let database = running.database();
    add_stale(database, 500, Uuid::now_v7(), "1 + number % 20").await;
    all(database, 500, "told is not null").await;
    assert_eq!(statuses(&fake.take_calls()), BTreeMap::from([(200, 20)]));

    let changes = "select max(changed_in) from chat_diff_statuses";
    let changed = database.number(changes).await.unwrap();
    make_stale(database).await;
    all(database, 500, "stale_at > now() and refreshed_at > now() - interval '1 minute'").await;
    all(database, 0, "stale_at < now() or stale_at > now() + interval '4 minutes'").await;
    assert_eq!(statuses(&fake.take_calls()), BTreeMap::from([(304, 20)]));
    assert_eq!(
        database.number(changes).await.unwrap(),
        changed,
        "no feed tells of what did not change"
    );
    running.stop().await;
}

#[tokio::test]
async fn rate_limit_is_kept_to_until_its_reset_for_its_owner_and_origin() {
    let fake = FakeGitHub::start().await.unwrap();
    for repository in ["r", "free"] {
        fake.set_pull("o", repository, 7, FakePull::of("feature"));
    }
    let limited = Whom::Path("/repos/o/r/".to_owned());
    fake.fail(limited, Fault::RateLimit { seconds: 3_000 });
    let running = Running::start_with(hosted_by(&fake)).await;
    let client = &running.client;
    let other = client.with_token(&client.user_token().await);
    let mut chats = Vec::new();
    for (client, repository) in [(client, "r"), (client, "r"), (client, "free"), (&other, "r")] {
        let chat = client.create_chat("work").await;
        let origin = format!("https://{HOST}/o/{repository}");
        let url = format!("{origin}/pull/7");
        mark(client, &chat, &json!({ "branch": "feature", "origin": origin, "url": url })).await;
        // The second one is not even leased.
        if chats.len() != 1 {
            known(client, &chat, |diff| diff["problem"].is_string() || diff["status"].is_object())
                .await;
        }
        chats.push(chat);
    }
    let paths: Vec<_> = fake.take_calls().into_iter().map(|call| call.path).collect();
    let [r, free] = ["/repos/o/r/pulls/7", "/repos/o/free/pulls/7"];
    assert_eq!(paths, [r, free, r], "the second chat of the first owner led to no call");
    let refused = refresh(client, &chats[0]).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    let again: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((2_900..=3_301).contains(&again), "{again}");
    assert!(fake.take_calls().is_empty(), "nobody was asked");

    // As the reset will have come, by the database's clock.
    fake.heal();
    let database = running.database();
    let past = "update git_host_limits set until = now() - interval '1 second'";
    database.execute(past).await.unwrap();
    make_stale(database).await;
    mark(client, &chats[2], &json!({})).await;
    all(database, 4, "told is not null and problem is null").await;
    running.stop().await;
}

#[tokio::test]
async fn merged_pull_request_is_asked_once_more_and_then_no_longer() {
    let fake = FakeGitHub::start().await.unwrap();
    fake.set_pull("o", "r", 7, FakePull::of("feature"));
    let running = Running::start_with(hosted_by(&fake)).await;
    let client = &running.client;
    let chat = client.create_chat("work").await;
    mark(client, &chat, &json!({ "branch": "feature", "origin": ORIGIN, "url": url(7) })).await;
    known(client, &chat, |diff| diff["status"]["state"] == "open").await;
    fake.change_pull("o", "r", 7, |pull| {
        pull.merged = true;
        "closed".clone_into(&mut pull.state);
    });
    let merged: Value = refresh(client, &chat).await.json().await.unwrap();
    assert_eq!(merged["status"]["state"], "merged");
    assert!(merged["stale_at"].is_string(), "once more");
    let last: Value = refresh(client, &chat).await.json().await.unwrap();
    assert_eq!((&last["status"]["state"], &last["stale_at"]), (&json!("merged"), &Value::Null));
    assert_eq!(statuses(&fake.take_calls()), BTreeMap::from([(200, 2), (304, 1)]));
    mark(client, &chat, &json!({})).await;
    eventually(PATIENCE, "a mark asks again", async || !fake.calls().is_empty()).await;
    running.stop().await;
}

#[tokio::test]
async fn mark_while_the_host_is_asked_is_not_lost() {
    let fake = FakeGitHub::start().await.unwrap();
    fake.set_pull("o", "r", 7, FakePull::of("feature"));
    fake.fail(Whom::Everybody, Fault::Silence);
    let running = Running::start_with(hosted_by(&fake)).await;
    let client = &running.client;
    let chat = client.create_chat("work").await;
    mark(client, &chat, &json!({ "branch": "feature", "origin": ORIGIN, "url": url(7) })).await;
    fake.hanging(1).await.unwrap();
    mark(client, &chat, &json!({})).await;
    fake.heal();
    eventually(PATIENCE, "it is asked again", async || fake.calls().len() == 2).await;
    let database = running.database();
    all(database, 1, "told is not null and stale_at > now() and marks = 2").await;
    running.stop().await;
}

fn git(folder: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .current_dir(folder)
        .args(["-c", "user.name=test", "-c", "user.email=test@example.com"])
        .args(args)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .output()
        .expect("`git` is installed");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test]
async fn folder_of_a_repository_is_enough() {
    let folder = tempfile::tempdir().unwrap();
    let repository = folder.path().join("r");
    std::fs::create_dir(&repository).unwrap();
    git(&repository, &["init", "--quiet", "--initial-branch=main"]);
    std::fs::write(repository.join("a"), "1\n2\n3\n4\n5\n").unwrap();
    git(&repository, &["add", "--all"]);
    git(&repository, &["commit", "--quiet", "--message=first"]);
    git(&repository, &["checkout", "--quiet", "-b", "feature"]);
    std::fs::write(repository.join("a"), "1\n2\n4\n5\n6\n7\n").unwrap();
    std::fs::write(repository.join("b"), "new\n").unwrap();
    git(&repository, &["add", "--all"]);
    git(&repository, &["commit", "--quiet", "--message=second"]);

    let root = folder.path().to_str().unwrap().to_owned();
    let running = Running::start_with(|settings| {
        let provider = GitProviderKind::Local;
        let (origin, api, token) = (root, None, None);
        settings.git = vec![GitHost { origin, provider, api, token, reviews: false }];
    })
    .await;
    let client = &running.client;
    let chat = client.create_chat("work").await;
    let origin = repository.to_str().unwrap();
    mark(client, &chat, &json!({ "branch": "feature", "origin": origin })).await;
    let found = known(client, &chat, |diff| diff["status"].is_object()).await;
    let status = &found["status"];
    let told = format!(
        "{} files changed, {} insertions(+), {} deletion(-)",
        status["changed_files"], status["additions"], status["deletions"]
    );
    assert_eq!(told, git(&repository, &["diff", "--shortstat", "main...feature"]));
    assert_eq!((&status["state"], &status["commits"]), (&json!("open"), &json!(1)));

    git(&repository, &["checkout", "--quiet", "main"]);
    git(&repository, &["merge", "--quiet", "--ff-only", "feature"]);
    let merged: Value = refresh(client, &chat).await.json().await.unwrap();
    assert_eq!(merged["status"]["state"], "merged");
    running.stop().await;
}

/// Starts a replica whose token tells which one it is.
fn start_replica(
    number: usize,
    folder: &Path,
    fake: &FakeGitHub,
    database: &TestDatabase,
) -> Replica {
    let host = [
        "[[git]]",
        &format!("origin = \"{HOST}\""),
        "provider = \"github\"",
        &format!("api = \"{}\"", fake.api_url()),
        &format!("token = \"replica {number}\""),
    ];
    std::fs::write(folder.join("musterbeat.toml"), host.join("\n")).unwrap();
    Replica::start(musterbeat(folder).args(["--database-url", database.url()]))
}

/// Each batch is leased by one of the two; one of them is killed while a host keeps it waiting.
#[tokio::test]
async fn rows_that_a_dead_replica_had_leased_come_back_with_their_lease_and_no_other_is_asked_twice()
 {
    const ROWS: i32 = 1_000;
    const SILENT: i64 = 500;
    let fake = FakeGitHub::start().await.unwrap();
    for number in 1..=i64::from(ROWS) {
        fake.set_pull("o", "r", number, FakePull::of("feature"));
    }
    fake.fail(Whom::Path(format!("/repos/o/r/pulls/{SILENT}")), Fault::Silence);
    let database = TestDatabase::create().await.unwrap();
    let folders = [(); 2].map(|()| tempfile::tempdir().unwrap());
    let start = |number: usize| start_replica(number, folders[number].path(), &fake, &database);
    let mut replicas = [Some(start(0)), Some(start(1))];
    add_stale(&database, ROWS, Uuid::now_v7(), "number").await;
    fake.hanging(1).await.unwrap();

    // Who keeps the silent one leased has asked about others of the same batch.
    let batch = format!(
        "select url from chat_diff_statuses
         where stale_at = (select stale_at from chat_diff_statuses where url = '{}')",
        url(SILENT)
    );
    let of_batch = async || -> BTreeSet<String> {
        database.texts(&batch).await.unwrap().into_iter().collect()
    };
    let leased = of_batch().await;
    let asked_by = |call: &Call| call.token.clone().unwrap();
    let is_leased = |call: &Call| {
        let number = call.path.rsplit('/').next().unwrap();
        leased.contains(&format!("{ORIGIN}/pull/{number}"))
    };
    let mut holder = None;
    eventually(PATIENCE, "somebody else of the batch was asked about", async || {
        holder = fake.calls().iter().find(|call| is_leased(call)).map(asked_by);
        holder.is_some()
    })
    .await;
    let killed = usize::from(holder.as_deref() == Some("replica 1"));
    replicas[killed].take().unwrap().kill();
    fake.heal();

    let kept = i64::try_from(leased.len()).unwrap();
    all(&database, i64::from(ROWS) - kept, "told is not null and fence = 1").await;
    assert_eq!(of_batch().await, leased, "the lease holds, and nobody else is at it");
    let later = "update chat_diff_statuses set stale_at = stale_at - interval '5 minutes'
        where told is null";
    database.execute(later).await.unwrap();
    all(&database, i64::from(ROWS), "told is not null").await;
    assert_eq!(count(&database, "fence = 2").await, kept, "those alone were leased again");

    let mut answers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for call in fake.calls() {
        answers.entry(call.path.clone()).or_default().push(asked_by(&call));
    }
    assert_eq!(answers.len(), usize::try_from(ROWS).unwrap());
    let survivor = format!("replica {}", 1 - killed);
    for (path, by) in answers {
        let twice = by.len() == 2 && Some(&by[0]) == holder.as_ref() && by[1] == survivor;
        let call = Call { path, token: None, user_agent: String::new(), status: 0 };
        assert!(by.len() == 1 || (twice && is_leased(&call)), "{call:?} by {by:?}");
    }
}
