//! Parents and children, waiting for a chat, and the feed of an owner.

use std::time::Duration;

use musterbeat_testkit::TestDatabase;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::client::{Client, Events, Running};

async fn child(client: &Client, parent: &str, content: &str) -> String {
    let body = json!({ "content": content, "parent_id": parent });
    let response = client.post("/api/v1/chats", &body).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    let chat: Value = response.json().await.unwrap();
    assert_eq!(chat["parent_id"], parent);
    chat["id"].as_str().unwrap().to_owned()
}

async fn feed(client: &Client, last_id: Option<&str>) -> Events {
    let mut request = client.request(Method::GET, "/api/v1/chats/events");
    if let Some(id) = last_id {
        request = request.header("last-event-id", id);
    }
    Events::of(request.send().await.unwrap())
}

#[tokio::test]
async fn children_are_listed_and_archived_with_their_root() {
    let running = Running::start().await;
    let client = &running.client;
    let root = client.create_chat("root").await;
    let one = child(client, &root, "one").await;
    let two = child(client, &one, "two").await;
    let listed = async |query: &str| {
        let page = client.get_json(&format!("/api/v1/chats/{root}/children{query}")).await;
        let chats = page["chats"].as_array().unwrap().iter();
        chats.map(|chat| chat["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(listed("").await, [one.as_str()]);
    assert_eq!(listed("?of=descendants").await, [one.as_str(), two.as_str()]);
    let alone = client.post(&format!("/api/v1/chats/{one}/archive"), &json!(null)).await;
    assert_eq!(alone.status(), StatusCode::CONFLICT);
    let archive = client.post(&format!("/api/v1/chats/{root}/archive"), &json!(null)).await;
    assert_eq!(archive.status(), StatusCode::OK);
    assert_eq!(client.get_json(&format!("/api/v1/chats/{two}")).await["archived"], true);
    let body = json!({ "content": "late", "parent_id": one });
    assert_eq!(client.post("/api/v1/chats", &body).await.status(), StatusCode::CONFLICT);
    running.stop().await;
}

/// No poll would come in time: word of the end comes from the other replica.
#[tokio::test]
async fn end_of_a_chat_reaches_who_waits_on_another_replica_by_notice() {
    let database = TestDatabase::create().await.unwrap();
    let working = Running::start_beside(database.url(), |settings| {
        settings.dev = true;
        settings.echo_pace = Duration::from_millis(300);
    })
    .await;
    let chat = working.client.create_chat("one two three four five").await;
    working.client.chat_in(&chat, "running").await;
    let waiting = Running::start_beside(database.url(), |settings| {
        settings.dev = true;
        settings.await_poll = Duration::from_hours(1);
    })
    .await;
    let path = format!("/api/v1/chats/{chat}/wait");
    let report = waiting.client.get_json(&path).await;
    assert_eq!((&report["status"], &report["at_rest"]), (&json!("waiting"), &json!(true)));
    assert_eq!(report["text"], "one two three four five");
    let missing = format!("/api/v1/chats/{}/wait", uuid::Uuid::nil());
    assert_eq!(waiting.client.get(&missing).await.status(), StatusCode::NOT_FOUND);
    waiting.stop().await;
    working.stop().await;
}

#[tokio::test]
async fn wait_ends_with_its_time_and_tells_how_the_chat_stands() {
    let running = Running::start_with(|settings| {
        settings.echo_pace = Duration::from_hours(1);
        settings.drain_timeout = Duration::ZERO;
    })
    .await;
    let client = &running.client;
    let chat = client.create_chat("for ever").await;
    client.chat_in(&chat, "running").await;
    let report = client.get_json(&format!("/api/v1/chats/{chat}/wait?timeout=100ms")).await;
    assert_eq!((&report["status"], &report["at_rest"]), (&json!("running"), &json!(false)));
    running.stop().await;
}

#[tokio::test]
async fn owner_follows_chats_as_they_come_and_change() {
    let running = Running::start().await;
    let admin = &running.client;
    let (one, other) =
        (admin.with_token(&admin.user_token().await), admin.with_token(&admin.user_token().await));
    let old = one.create_chat("old").await;
    one.chat_in(&old, "waiting").await;
    let mut events = feed(&one, None).await;
    let (_, snapshot) = events.next_named("snapshot").await;
    assert_eq!(snapshot["chats"][0]["id"], old.as_str());

    other.create_chat("not theirs").await;
    let new = one.create_chat("new").await;
    let told = async |events: &mut Events, chat: &str, field: &str, value: Value| loop {
        let (id, event) = events.next_named("chat").await;
        let owner = one.get_json(&format!("/api/v1/chats/{chat}")).await["owner_id"].clone();
        assert_eq!(event["chat"]["owner_id"], owner, "each is told of their own");
        if event["chat"]["id"] == chat && event["chat"][field] == value {
            return id;
        }
    };
    told(&mut events, &new, "status", json!("waiting")).await;
    let patch = one.request(Method::PATCH, &format!("/api/v1/chats/{old}"));
    patch.json(&json!({ "title": "renamed" })).send().await.unwrap().error_for_status().unwrap();
    told(&mut events, &old, "title", json!("renamed")).await;
    one.post(&format!("/api/v1/chats/{old}/archive"), &json!(null)).await;
    told(&mut events, &old, "archived", json!(true)).await;
    one.send(&new, "again").await;
    let mut id = String::new();
    while id.is_empty() {
        id = told(&mut events, &new, "status", json!("waiting")).await;
    }
    drop(events);

    // What happened meanwhile is told to who comes back.
    let missed = one.create_chat("missed").await;
    one.chat_in(&missed, "waiting").await;
    let mut again = feed(&one, Some(&id)).await;
    told(&mut again, &missed, "status", json!("waiting")).await;
    tokio::join!(again.rest(), running.stop());
}
