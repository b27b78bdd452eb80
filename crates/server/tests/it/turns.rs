//! What a user does to a chat that is at work: stop it, change it, order its queue, put it away.

use std::time::Duration;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::client::{Client, Running};

/// Notices alone make it quick: the next beat is far.
async fn slow() -> Running {
    Running::start_with(|settings| {
        settings.echo_pace = Duration::from_millis(100);
        settings.beat_interval = Duration::from_mins(1);
        settings.lease_ttl = Duration::from_mins(5);
        settings.fence_margin = Duration::from_secs(30);
    })
    .await
}

fn long() -> String {
    vec!["word"; 3_000].join(" ")
}

/// Asks for words without an end and waits until some were said.
async fn busy_chat(client: &Client) -> String {
    let chat = client.create_chat(&long()).await;
    let mut events = client.follow(&chat, false, None).await;
    events.next_named("part").await;
    chat
}

async fn call(
    client: &Client,
    method: Method,
    path: &str,
    body: Option<Value>,
) -> (StatusCode, Value) {
    let mut request = client.request(method, path);
    if let Some(body) = body {
        request = request.json(&body);
    }
    let response = request.send().await.unwrap();
    let status = response.status();
    (status, response.json().await.unwrap_or(Value::Null))
}

async fn queued(client: &Client, chat: &str) -> Vec<(i64, String)> {
    let queue = client.get_json(&format!("/api/v1/chats/{chat}/queue")).await;
    let turns = queue["queue"].as_array().unwrap().iter();
    turns
        .map(|turn| {
            let text = turn["content"][0]["text"].as_str().unwrap();
            (turn["id"].as_i64().unwrap(), text.to_owned())
        })
        .collect()
}

#[tokio::test]
async fn interrupt_stops_at_once_and_keeps_what_was_said() {
    let running = slow().await;
    let client = &running.client;
    let chat = busy_chat(client).await;
    client.send(&chat, "and then").await;
    let path = format!("/api/v1/chats/{chat}/interrupt");
    let (status, body) = call(client, Method::POST, &path, None).await;
    assert_eq!((status, &body["status"]), (StatusCode::ACCEPTED, &json!("interrupting")));
    client.chat_in(&chat, "waiting").await;
    let history = client.history(&chat).await;
    assert_eq!(history.len(), 4, "{history:?}");
    assert!(history[1].starts_with("assistant: word"), "the partial answer is kept");
    assert!(history[1].len() < long().len());
    assert_eq!(history[2..], ["user: and then", "assistant: and then"]);
    let (status, body) = call(client, Method::POST, &path, None).await;
    assert_eq!(
        (status, &body["status"]),
        (StatusCode::ACCEPTED, &json!("waiting")),
        "again is nothing"
    );
    running.stop().await;
}

#[tokio::test]
async fn message_that_interrupts_is_answered_next() {
    let running = slow().await;
    let client = &running.client;
    let chat = busy_chat(client).await;
    let body = json!({ "content": "instead", "when_busy": "interrupt" });
    let path = format!("/api/v1/chats/{chat}/messages");
    let (status, sent) = call(client, Method::POST, &path, Some(body)).await;
    assert_eq!((status, &sent["queued"]), (StatusCode::ACCEPTED, &json!(true)));
    client.chat_in(&chat, "waiting").await;
    let history = client.history(&chat).await;
    assert_eq!(history[2..], ["user: instead", "assistant: instead"]);
    running.stop().await;
}

#[tokio::test]
async fn edited_message_begins_the_chat_anew() {
    let running = slow().await;
    let client = &running.client;
    let chat = busy_chat(client).await;
    client.send(&chat, "forgotten").await;
    let page = client.get_json(&format!("/api/v1/chats/{chat}/messages")).await;
    let first = page["messages"][0]["id"].as_i64().unwrap();
    let path = format!("/api/v1/chats/{chat}/messages/{first}");
    let (status, edited) =
        call(client, Method::PUT, &path, Some(json!({ "content": "short" }))).await;
    assert_eq!(status, StatusCode::OK);
    assert!(edited["message_id"].as_i64().unwrap() > first);
    client.chat_in(&chat, "waiting").await;
    assert_eq!(client.history(&chat).await, ["user: short", "assistant: short"]);
    let (status, problem) = call(client, Method::PUT, &path, Some(json!({ "content": "x" }))).await;
    assert_eq!(
        (status, &problem["detail"]),
        (StatusCode::NOT_FOUND, &json!("the chat has no such message"))
    );
    running.stop().await;
}

#[tokio::test]
async fn queue_is_shown_ordered_and_taken_back() {
    let running = slow().await;
    let client = &running.client;
    let chat = busy_chat(client).await;
    for text in ["a", "b", "c", "d"] {
        client.send(&chat, text).await;
    }
    let turns = queued(client, &chat).await;
    let path = |id: i64| format!("/api/v1/chats/{chat}/queue/{id}");
    let delete = call(client, Method::DELETE, &path(turns[0].0), None).await;
    assert_eq!(delete.0, StatusCode::NO_CONTENT);
    let again = call(client, Method::DELETE, &path(turns[0].0), None).await;
    assert_eq!(again.0, StatusCode::NOT_FOUND);
    let promote = call(client, Method::POST, &format!("{}/promote", path(turns[3].0)), None).await;
    assert_eq!(promote.0, StatusCode::ACCEPTED);
    client.chat_in(&chat, "waiting").await;
    let history = client.history(&chat).await;
    let asked: Vec<&String> =
        history.iter().filter(|line| line.starts_with("user: ")).skip(1).collect();
    assert_eq!(asked, ["user: d", "user: b", "user: c"]);
    let clear = format!("/api/v1/chats/{chat}/queue");
    assert_eq!(call(client, Method::DELETE, &clear, None).await.0, StatusCode::NO_CONTENT);
    running.stop().await;
}

#[tokio::test]
async fn archived_chat_stops_hard_and_takes_nothing() {
    let running = slow().await;
    let client = &running.client;
    let chat = busy_chat(client).await;
    client.send(&chat, "later").await;
    let (status, body) =
        call(client, Method::POST, &format!("/api/v1/chats/{chat}/archive"), None).await;
    assert_eq!((status, &body["status"]), (StatusCode::OK, &json!("error")));
    let read = client.get_json(&format!("/api/v1/chats/{chat}")).await;
    assert_eq!((&read["archived"], &read["error"]), (&json!(true), &json!("stopped by archiving")));
    assert_eq!(queued(client, &chat).await.len(), 1, "the queue stays as it is");
    let messages = format!("/api/v1/chats/{chat}/messages");
    let (status, problem) =
        call(client, Method::POST, &messages, Some(json!({ "content": "x" }))).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(problem["detail"], "the chat is archived; unarchive it first");
    for (archived, expected) in [("true", 1), ("false", 0)] {
        let page = client.get_json(&format!("/api/v1/chats?archived={archived}")).await;
        assert_eq!(page["chats"].as_array().unwrap().len(), expected);
    }
    call(client, Method::POST, &format!("/api/v1/chats/{chat}/unarchive"), None).await;
    client.send(&chat, "and now").await;
    client.chat_in(&chat, "waiting").await;
    let history = client.history(&chat).await;
    let asked: Vec<&String> =
        history.iter().filter(|line| line.starts_with("user: ")).skip(1).collect();
    assert_eq!(asked, ["user: later", "user: and now"]);
    running.stop().await;
}

#[tokio::test]
async fn title_workspace_and_marker_are_patched() {
    let running = Running::start().await;
    let client = &running.client;
    let chat = client.create_chat("first").await;
    let path = format!("/api/v1/chats/{chat}");
    let workspace = client.create_workspace("mine").await;
    let body = json!({ "title": "roll", "workspace_id": workspace, "last_read_message_id": 7 });
    let (status, patched) = call(client, Method::PATCH, &path, Some(body)).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!((&patched["title"], &patched["workspace_id"]), (&json!("roll"), &json!(workspace)));
    assert_eq!(patched["last_read_message_id"], 7);
    let (_, cleared) =
        call(client, Method::PATCH, &path, Some(json!({ "workspace_id": null }))).await;
    assert_eq!((&cleared["title"], &cleared["workspace_id"]), (&json!("roll"), &Value::Null));
    let bad = json!({ "title": " " });
    let (status, problem) = call(client, Method::PATCH, &path, Some(bad)).await;
    assert_eq!((status, &problem["field"]), (StatusCode::UNPROCESSABLE_ENTITY, &json!("title")));
    running.stop().await;
}
