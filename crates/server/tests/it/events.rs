//! The stream of a chat: what comes, in which order, and after a break.

use musterbeat_server::settings::RunnerChoice;
use musterbeat_testkit::TestDatabase;
use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{Client, Events, Running, said};
use crate::process::write_program;
use crate::recital::Recital;
use crate::replica::{Replica, musterbeat};

/// The first `curl` of the README: one request creates a chat and streams its answer.
#[tokio::test]
async fn creation_that_accepts_events_streams_the_answer() {
    let running = Running::start().await;
    let request = running.client.request(Method::POST, "/api/v1/chats");
    let request = request.header("accept", "text/event-stream");
    let response = request.json(&json!({ "content": "to be or not" })).send().await.unwrap();
    assert_eq!(response.status(), 201);
    assert!(response.headers()["location"].to_str().unwrap().starts_with("/api/v1/chats/"));

    let events = Events::of(response).rest().await;
    assert_eq!(events[0].0, "snapshot");
    let parts: String = named(&events, "part").map(|part| text(&part["part"])).collect();
    // A quick answer may be in the snapshot already.
    let early = events[0].1["messages"].as_array().unwrap().iter();
    let messages: Vec<String> = early.chain(named(&events, "message")).map(said).collect();
    assert_eq!(messages, ["user: to be or not", "assistant: to be or not"]);
    // Pieces end with their turn: the stored message says the rest.
    assert!("to be or not".contains(&parts), "{parts:?}");
    running.stop().await;
}

#[tokio::test]
async fn follower_sees_parts_in_order_and_then_the_whole_message() {
    let recital = Recital::of(2);
    let running = Running::start_reciting(&recital).await;
    let client = &running.client;
    let chat = client.create_chat("warm up").await;
    client.chat_in(&chat, "waiting").await;
    let mut events = client.follow(&chat, false, None).await;
    events.next_named("snapshot").await;
    client.send(&chat, "a b c d").await;

    let mut parts = String::new();
    let mut seqs = Vec::new();
    let message = loop {
        let event = events.next().await.unwrap();
        let data: Value = serde_json::from_str(&event.data).unwrap();
        match event.event.as_str() {
            "part" => {
                parts += &text(&data["part"]);
                seqs.push(data["seq"].as_u64().unwrap());
                if seqs.len() == 2 {
                    recital.finish();
                }
            }
            "message" if data["role"] == "assistant" => break data,
            _ => {}
        }
    };
    // A follower that is slow may miss the last pieces, which end with their turn.
    assert!(parts.starts_with("a b ") && "a b c d".starts_with(&parts), "{parts:?}");
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
    assert_eq!(said(&message), "assistant: a b c d");
    running.stop().await;
}

#[tokio::test]
async fn late_follower_gets_the_parts_so_far() {
    let recital = Recital::of(2);
    let running = Running::start_reciting(&recital).await;
    let client = &running.client;
    let chat = client.create_chat("a b c d").await;
    let mut first = client.follow(&chat, false, None).await;
    first.next_named("part").await;
    first.next_named("part").await;

    let mut late = client.follow(&chat, false, None).await;
    assert_eq!(late.next_named("part").await.1["seq"], 1);
    recital.finish();
    running.stop().await;
}

#[tokio::test]
async fn stream_goes_on_after_the_last_event_seen() {
    let running = Running::start().await;
    let client = &running.client;
    let chat = client.create_chat("first").await;
    client.chat_in(&chat, "waiting").await;
    let (seen, snapshot) = client.follow(&chat, true, None).await.next_named("snapshot").await;
    assert_eq!(snapshot["messages"].as_array().unwrap().len(), 2);
    client.send(&chat, "second").await;
    client.chat_in(&chat, "waiting").await;

    let resumed = client.follow(&chat, true, Some(&seen)).await.rest().await;
    assert_eq!(named(&resumed, "snapshot").count(), 0);
    let messages: Vec<String> = named(&resumed, "message").map(said).collect();
    assert_eq!(messages, ["user: second", "assistant: second"]);
    running.stop().await;
}

/// More than one page, each read only when the one before it was sent.
#[tokio::test]
async fn long_history_comes_page_by_page() {
    let running = Running::start().await;
    let client = &running.client;
    let large = "x".repeat(200_000);
    let chat = client.create_chat(&large).await;
    for _ in 1..6 {
        client.chat_in(&chat, "waiting").await;
        client.send(&chat, &large).await;
    }
    client.chat_in(&chat, "waiting").await;

    let events = client.follow(&chat, true, None).await.rest().await;
    let first = events[0].1["messages"].as_array().unwrap().len();
    assert_eq!(events[0].0, "snapshot");
    assert!((5..8).contains(&first), "a page of a mebibyte has {first} messages");
    assert_eq!(first + named(&events, "message").count(), 12);

    let second = &client.follow(&chat, true, Some("1")).await.rest().await;
    assert_eq!(named(second, "snapshot").count(), 0);
    assert_eq!(named(second, "message").count(), 11, "resumed in the middle, over pages");
    running.stop().await;
}

#[tokio::test]
async fn follower_ahead_of_the_store_is_given_the_history_again() {
    let running = Running::start().await;
    let client = &running.client;
    let chat = client.create_chat("first").await;
    client.chat_in(&chat, "waiting").await;
    let events = client.follow(&chat, true, Some("999")).await.rest().await;
    let names: Vec<&str> = events.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["history_reset", "snapshot"]);
    running.stop().await;
}

#[tokio::test]
async fn queue_is_told_as_it_grows_and_shrinks() {
    let recital = Recital::of(1);
    let running = Running::start_reciting(&recital).await;
    let client = &running.client;
    let chat = client.create_chat("a b").await;
    let mut events = client.follow(&chat, false, None).await;
    events.next_named("part").await;
    client.send(&chat, "next").await;
    assert_eq!(events.next_named("queue").await.1["queue"].as_array().unwrap().len(), 1);
    recital.finish();
    assert_eq!(events.next_named("queue").await.1["queue"].as_array().unwrap().len(), 0);
    running.stop().await;
}

/// What changes is read once for all of them, and encoded once.
#[tokio::test]
async fn two_hundred_followers_of_a_chat_cost_a_few_reads_a_change() {
    const FOLLOWERS: u64 = 200;
    const TURNS: u64 = 5;
    let database = TestDatabase::create().await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    // In a process of its own, whose metrics are of this test alone.
    let mut command = musterbeat(folder.path());
    let replica = Replica::start(command.args(["--dev", "--database-url", database.url()]));
    let client = &replica.client;
    let chat = client.create_chat("warm up").await;
    client.chat_in(&chat, "waiting").await;
    let mut followers = Vec::new();
    for _ in 0..FOLLOWERS {
        let mut follower = client.follow(&chat, false, None).await;
        follower.next_named("snapshot").await;
        followers.push(follower);
    }
    assert_eq!(reads(client, "one").await, FOLLOWERS, "each reads once when it comes");
    let before = reads(client, "all").await;
    for turn in 0..TURNS {
        client.send(&chat, &format!("turn {turn}")).await;
        for follower in &mut followers {
            while said(&follower.next_named("message").await.1) != format!("assistant: turn {turn}")
            {
            }
        }
    }
    assert_eq!(reads(client, "one").await, FOLLOWERS, "and never again");
    // A turn changes the chat by question, claim and answer; a notice may come twice.
    let made = reads(client, "all").await - before;
    assert!((TURNS..=TURNS * 8).contains(&made), "{made} reads");
    drop(followers);
    replica.stop();
}

async fn reads(client: &Client, whom: &str) -> u64 {
    let text = client.get("/metrics").await.text().await.unwrap();
    let name = format!("musterbeat_follow_reads_total{{for=\"{whom}\"}} ");
    let line = text.lines().find_map(|line| line.strip_prefix(&name));
    line.map_or(0, |count| count.parse().unwrap())
}

/// It takes nothing until the whole answer was said, which is more than sockets hold.
#[tokio::test]
async fn follower_that_takes_nothing_is_told_that_it_missed_parts_and_slows_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let (program, go) = (folder.path().join("talk.sh"), folder.path().join("go"));
    let script = format!(
        r#"#!/bin/sh
cat > /dev/null
text=$(head -c 60000 /dev/zero | tr '\0' x)
part=0
while [ $part -lt 250 ]; do
    echo '{{"type": "part", "part": {{"type": "text", "text": "'$text'"}}}}'
    part=$((part + 1))
done
echo '{{"type": "part", "part": {{"type": "text", "text": "last"}}}}'
until [ -e {} ]; do sleep 0.1; done
echo '{{"type": "message", "content": "done"}}'
"#,
        go.display()
    );
    write_program(&program, &script);
    let running =
        Running::start_with(|settings| settings.runner = RunnerChoice::Command(program)).await;
    let client = &running.client;
    let chat = client.create_chat("talk").await;
    let mut slow = client.follow(&chat, false, None).await;
    let mut quick = client.follow(&chat, false, None).await;
    while text(&quick.next_named("part").await.1["part"]) != "last" {}

    let missed = slow.next_named("resync").await.1["missed"].as_u64().unwrap();
    assert!((1..250).contains(&missed), "{missed}");
    while text(&slow.next_named("part").await.1["part"]) != "last" {}
    std::fs::write(&go, "").unwrap();
    assert_eq!(said(&slow.next_named("message").await.1), "assistant: done");
    running.stop().await;
}

#[tokio::test]
async fn follower_that_is_cut_off_again_and_again_gets_each_version_of_each_message() {
    let running = Running::start().await;
    let client = &running.client;
    let chat = client.create_chat("turn 0").await;
    let mut seen = Vec::new();
    let mut last = None;
    for turn in 1..=8 {
        client.chat_in(&chat, "waiting").await;
        client.send(&chat, &format!("turn {turn}")).await;
        let mut events = client.follow(&chat, true, last.as_deref()).await;
        // Cut off after some events, whichever they are; a slow follower is told less often.
        for _ in 0..turn {
            let Some(event) = events.next().await else { break };
            let data: Value = serde_json::from_str(&event.data).unwrap();
            match event.event.as_str() {
                "snapshot" => seen.extend(data["messages"].as_array().unwrap().iter().map(key)),
                "message" => seen.push(key(&data)),
                _ => {}
            }
            if !event.id.is_empty() {
                last = Some(event.id);
            }
        }
    }
    client.chat_in(&chat, "waiting").await;
    let rest = client.follow(&chat, true, last.as_deref()).await.rest().await;
    seen.extend(named(&rest, "message").map(key));
    // What was cut in the middle of a change comes again, and is known by its version.
    seen.sort_unstable();
    seen.dedup();
    let page = client.get_json(&format!("/api/v1/chats/{chat}/messages")).await;
    let stored: Vec<_> = page["messages"].as_array().unwrap().iter().map(key).collect();
    assert_eq!(stored.len(), 18);
    assert_eq!(seen, stored);
    running.stop().await;
}

fn key(message: &Value) -> (i64, i64) {
    (message["id"].as_i64().unwrap(), message["version"].as_i64().unwrap())
}

#[tokio::test]
async fn stream_ends_with_the_server_after_the_end_of_the_turn_that_was_under_way() {
    let recital = Recital::of(1);
    let running = Running::start_reciting(&recital).await;
    let client = &running.client;
    let chat = client.create_chat("a b c d e f").await;
    let mut events = client.follow(&chat, false, None).await;
    events.next_named("part").await;
    running.shutdown.request();
    recital.finish();
    let (rest, _) = tokio::join!(events.rest(), running.stop());
    let messages: Vec<String> = named(&rest, "message").map(said).collect();
    assert_eq!(messages, ["assistant: a b c d e f"]);
}

#[tokio::test]
async fn stream_is_raw_frames_that_no_proxy_holds_back() {
    let running = Running::start().await;
    let client = &running.client;
    let chat = client.create_chat("hello").await;
    let path = format!("/api/v1/chats/{chat}/events?until=rest");
    let response = client.get(&path).await;
    assert_eq!(response.headers()["cache-control"], "no-cache");
    assert_eq!(response.headers()["x-accel-buffering"], "no");
    let text = response.text().await.unwrap();
    assert!(text.starts_with("event: snapshot\ndata: {"), "{text}");
    assert!(text.ends_with("\n\n"), "{text}");
    running.stop().await;
}

fn named<'a>(events: &'a [(String, Value)], name: &'a str) -> impl Iterator<Item = &'a Value> {
    events.iter().filter(move |event| event.0 == name).map(|event| &event.1)
}

fn text(part: &Value) -> String {
    part["text"].as_str().unwrap().to_owned()
}
