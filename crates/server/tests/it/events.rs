//! The stream of a chat: what comes, in which order, and after a break.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::client::{Events, Running, said};

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
    let running = slow().await;
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
            }
            "message" if data["role"] == "assistant" => break data,
            _ => {}
        }
    };
    // A follower that is slow may miss the last pieces, which end with their turn.
    assert!(parts.starts_with("a ") && "a b c d".starts_with(&parts), "{parts:?}");
    assert_eq!(seqs, (1..=seqs.len() as u64).collect::<Vec<_>>());
    assert_eq!(said(&message), "assistant: a b c d");
    running.stop().await;
}

#[tokio::test]
async fn late_follower_gets_the_parts_so_far() {
    let running = slow().await;
    let client = &running.client;
    let chat = client.create_chat(&long()).await;
    let mut first = client.follow(&chat, false, None).await;
    first.next_named("part").await;
    first.next_named("part").await;

    let mut late = client.follow(&chat, false, None).await;
    assert_eq!(late.next_named("part").await.1["seq"], 1);
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
    let running = slow().await;
    let client = &running.client;
    let chat = client.create_chat(&long()).await;
    let mut events = client.follow(&chat, false, None).await;
    events.next_named("part").await;
    client.send(&chat, "next").await;
    assert_eq!(events.next_named("queue").await.1["queue"].as_array().unwrap().len(), 1);
    assert_eq!(events.next_named("queue").await.1["queue"].as_array().unwrap().len(), 0);
    running.stop().await;
}

async fn slow() -> Running {
    Running::start_with(|settings| {
        settings.echo_pace = Duration::from_millis(50);
        settings.drain_timeout = Duration::ZERO;
    })
    .await
}

/// A question whose answer takes three seconds: time enough for what happens meanwhile.
fn long() -> String {
    vec!["word"; 60].join(" ")
}

fn named<'a>(events: &'a [(String, Value)], name: &'a str) -> impl Iterator<Item = &'a Value> {
    events.iter().filter(move |event| event.0 == name).map(|event| &event.1)
}

fn text(part: &Value) -> String {
    part["text"].as_str().unwrap().to_owned()
}
