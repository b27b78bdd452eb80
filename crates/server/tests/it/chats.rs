//! Chats from question to stored answer.

use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::client::Running;
use crate::recital::Recital;

#[tokio::test]
async fn question_is_answered_and_stored() {
    let running = Running::start().await;
    let client = &running.client;
    let chat = client.create_chat("who keeps the roll?").await;
    let rested = client.chat_in(&chat, "waiting").await;
    assert_eq!(rested["title"], "who keeps the roll?");
    assert_eq!(rested["error"], json!(null));
    assert_eq!(
        client.history(&chat).await,
        ["user: who keeps the roll?", "assistant: who keeps the roll?"]
    );
    running.stop().await;
}

#[tokio::test]
async fn turns_sent_to_a_busy_chat_wait_and_are_answered_in_order() {
    let recital = Recital::of(1);
    let running = Running::start_reciting(&recital).await;
    let client = &running.client;
    let chat = client.create_chat("the first").await;
    client.chat_in(&chat, "running").await;
    assert_eq!(client.send(&chat, "second").await["queued"], true);
    assert_eq!(client.send(&chat, "third").await["queued"], true);
    recital.finish();
    client.chat_in(&chat, "waiting").await;
    assert_eq!(
        client.history(&chat).await,
        [
            "user: the first",
            "assistant: the first",
            "user: second",
            "assistant: second",
            "user: third",
            "assistant: third",
        ]
    );
    running.stop().await;
}

#[tokio::test]
async fn list_is_paged_newest_first() {
    let running = Running::start().await;
    let client = &running.client;
    let mut created = Vec::new();
    for number in 0..5 {
        created.push(client.create_chat(&number.to_string()).await);
    }
    for chat in &created {
        client.chat_in(chat, "waiting").await;
    }
    let (mut listed, mut times) = (Vec::new(), Vec::new());
    let mut path = "/api/v1/chats?limit=2".to_owned();
    loop {
        let page = client.get_json(&path).await;
        for chat in page["chats"].as_array().unwrap() {
            listed.push(chat["id"].as_str().unwrap().to_owned());
            let updated = chat["updated_at"].as_str().unwrap();
            times.push(OffsetDateTime::parse(updated, &Rfc3339).unwrap());
        }
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/api/v1/chats?limit=2&after={next}");
    }
    assert!(times.is_sorted_by(|newer, older| newer >= older), "{times:?}");
    listed.sort();
    created.sort();
    assert_eq!(listed, created);
    running.stop().await;
}

#[tokio::test]
async fn content_may_come_in_parts() {
    let running = Running::start().await;
    let client = &running.client;
    let parts = json!([{ "type": "text", "text": "a" }, { "type": "text", "text": "b" }]);
    let body = json!({ "content": parts, "title": "parts", "model": "any" });
    let created: serde_json::Value =
        client.post("/api/v1/chats", &body).await.json().await.unwrap();
    let chat = client.chat_in(created["id"].as_str().unwrap(), "waiting").await;
    assert_eq!((&chat["title"], &chat["model"]), (&json!("parts"), &json!("any")));
    running.stop().await;
}
