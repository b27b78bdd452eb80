//! Bad input: a clear answer that names the field and the limit, as a problem.

use expect_test::{Expect, expect};
use musterbeat_testkit::eventually;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::client::{Client, PATIENCE, Running};

/// Sends a body to create a chat, and shows the problem that comes back.
async fn check(client: &Client, body: &str, expected: Expect) {
    let request = client.request(Method::POST, "/api/v1/chats");
    let request = request.header("content-type", "application/json").body(body.to_owned());
    expected.assert_eq(&shown(request.send().await.unwrap()).await);
}

async fn shown(response: reqwest::Response) -> String {
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let problem: Value = response.json().await.unwrap();
    let field = problem["field"].as_str().map(|field| format!(" [{field}]")).unwrap_or_default();
    let kind = problem["type"].as_str().unwrap().rsplit(':').next().unwrap().to_owned();
    format!("{} {kind}{field}: {}", problem["status"], problem["detail"].as_str().unwrap())
}

#[tokio::test]
async fn bad_bodies_name_field_and_limit() {
    let running = Running::start().await;
    let client = &running.client;
    check(client, "{", expect!["400 malformed: Failed to parse the request body as JSON: EOF while parsing an object at line 1 column 1"]).await;
    check(client, "{}", expect!["422 invalid: Failed to deserialize the JSON body into the target type: missing field `content` at line 1 column 2"]).await;
    check(client, r#"{"content": 7}"#, expect!["422 invalid: Failed to deserialize the JSON body into the target type: content: invalid type: integer `7`, expected a text or an array of parts at line 1 column 13"]).await;
    check(client, r#"{"content": "x", "colour": 1}"#, expect!["422 invalid: Failed to deserialize the JSON body into the target type: colour: unknown field `colour`, expected one of `content`, `title`, `workspace_id`, `parent_id`, `model`, `subagent_depth_max`, `subagents_max` at line 1 column 25"]).await;
    check(
        client,
        r#"{"content": []}"#,
        expect!["422 invalid [content]: content: has 0 parts, 1 to 64 are allowed"],
    )
    .await;
    check(
        client,
        r#"{"content": "a\u0000b"}"#,
        expect!["422 invalid [content[0].text]: content[0].text: contains a NUL character"],
    )
    .await;
    check(
        client,
        r#"{"content": "x", "title": ""}"#,
        expect!["422 invalid [title]: title: is empty"],
    )
    .await;
    // A summary is wished for by a route of its own.
    check(client, r#"{"content": [{"type": "command"}]}"#, expect!["422 invalid: Failed to deserialize the JSON body into the target type: content[0].type: unknown variant `command`, expected `text` at line 1 column 31"]).await;
    let long = json!({ "content": "x", "title": "é".repeat(101) }).to_string();
    check(
        client,
        &long,
        expect!["422 invalid [title]: title: has 101 characters, at most 100 are allowed"],
    )
    .await;
    check(
        client,
        r#"{"content": "x", "model": "modèle"}"#,
        expect!["422 invalid [model]: model: has characters other than printable ASCII"],
    )
    .await;
    let long = json!({ "content": "x".repeat(300_000) }).to_string();
    check(client, &long, expect!["422 invalid [content[0].text]: content[0].text: has 300000 bytes, at most 262144 are allowed"]).await;
    let huge = json!({ "content": "x".repeat(2_000_000) }).to_string();
    check(
        client,
        &huge,
        expect!["413 too-large: Failed to buffer the request body: length limit exceeded"],
    )
    .await;
    assert_eq!(client.get_json("/api/v1/chats").await["chats"], json!([]), "nothing was created");
    running.stop().await;
}

#[tokio::test]
async fn whatever_is_refused_is_a_problem() {
    let running = Running::start().await;
    let client = &running.client;
    let chat = client.create_chat("x").await;
    let refused = |method, path: &str| {
        let request = client.request(method, path);
        async move { shown(request.send().await.unwrap()).await }
    };
    assert!(refused(Method::GET, "/nowhere").await.starts_with("404 not-found"));
    assert!(refused(Method::PUT, "/api/v1/chats").await.starts_with("405 method-not-allowed"));
    assert!(refused(Method::GET, "/api/v1/chats/no-uuid").await.starts_with("400 malformed"));
    assert!(refused(Method::GET, "/api/v1/chats?limit=0").await.starts_with("422 invalid [limit]"));
    assert!(refused(Method::GET, "/api/v1/chats?limit=-1").await.starts_with("400 malformed"));
    assert!(refused(Method::GET, "/api/v1/chats?offset=3").await.starts_with("400 malformed"));
    assert!(refused(Method::GET, "/api/v1/chats?after=x").await.starts_with("422 invalid [after]"));
    assert!(refused(Method::POST, "/api/v1/chats").await.starts_with("415 media-type"));
    let messages = format!("/api/v1/chats/{chat}/messages?after_version");
    assert!(refused(Method::GET, &format!("{messages}=x")).await.starts_with("400 malformed"));
    let negative = refused(Method::GET, &format!("{messages}=-1")).await;
    assert!(negative.starts_with("422 invalid [after_version]"), "{negative}");
    running.stop().await;
}

#[tokio::test]
async fn cursor_is_taken_only_as_a_page_showed_it() {
    let running = Running::start().await;
    let client = &running.client;
    client.create_chat("x").await;
    let page = client.get_json("/api/v1/chats?limit=1").await;
    let next = page["next"].as_str().unwrap();
    let status =
        async |after: &str| client.get(&format!("/api/v1/chats?after={after}")).await.status();
    assert_eq!(status(next).await, StatusCode::OK);
    assert_eq!(status(&format!("0{next}")).await, StatusCode::UNPROCESSABLE_ENTITY);
    running.stop().await;
}

#[tokio::test]
async fn full_queue_is_a_conflict_that_names_the_limit() {
    let running = Running::start_with(|settings| {
        settings.queue_max = 1;
        settings.echo_pace = std::time::Duration::from_hours(1);
        settings.drain_timeout = std::time::Duration::ZERO;
    })
    .await;
    let client = &running.client;
    let chat = client.create_chat("slow").await;
    client.send(&chat, "waits").await;
    let path = format!("/api/v1/chats/{chat}/messages");
    let refused = shown(client.post(&path, &json!({ "content": "too many" })).await).await;
    assert_eq!(
        refused,
        "409 queue-full: the chat's queue is full with 1 turns; wait for one to finish or remove one"
    );
    running.stop().await;
}

#[tokio::test]
async fn address_over_its_rate_is_refused_but_probes_pass() {
    let running = Running::start_with(|settings| {
        settings.rate_per_second = 1.try_into().unwrap();
        settings.rate_burst = 5.try_into().unwrap();
    })
    .await;
    let client = &running.client;
    for _ in 0..5 {
        assert_eq!(client.get("/api/v1/chats").await.status(), StatusCode::OK);
    }
    // One more is let through each second, however slow the machine is.
    eventually(PATIENCE, "one is refused", async || {
        client.get("/api/v1/chats").await.status() == StatusCode::TOO_MANY_REQUESTS
    })
    .await;
    assert_eq!(client.get("/healthz").await.status(), StatusCode::OK);
    running.stop().await;
}
