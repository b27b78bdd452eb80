//! Models that chats may name: added, changed, made the default, deleted.

use expect_test::{Expect, expect};
use musterbeat_testkit::{Answer, Asked, FakeModels};
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::client::Client;
use crate::models::{create, soon, start, told};

async fn put(client: &Client, name: &str, body: &Value) -> Response {
    let request = client.request(Method::PUT, &format!("/api/v1/models/{name}"));
    request.json(body).send().await.unwrap()
}

/// Adds a model that the default provider calls `model`.
async fn add(client: &Client, name: &str, model: &str, is_default: bool) {
    let body = json!({ "provider": "default", "model": model, "is_default": is_default });
    assert_eq!(put(client, name, &body).await.status(), StatusCode::OK);
}

async fn delete(client: &Client, name: &str) -> StatusCode {
    let request = client.request(Method::DELETE, &format!("/api/v1/models/{name}"));
    request.send().await.unwrap().status()
}

/// Has a model answer with the name that it was asked by.
fn by_name(asked: &Asked) -> Answer {
    Answer::text(&asked.model)
}

/// Asks in a chat without a model; returns the name of who answered.
async fn who_answers(client: &Client) -> String {
    let chat = client.create_chat("Who are you?").await;
    client.chat_in(&chat, "waiting").await;
    told(client, &chat).await.pop().unwrap()
}

#[tokio::test]
async fn chat_that_names_a_model_is_answered_as_its_configuration_says() {
    let models = FakeModels::start().await.unwrap();
    models.answer_by(by_name);
    let running = start(&models).await;
    let client = &running.client;
    let body = json!({
        "provider": "default", "model": "maker/fast-7b", "context_limit": 4_096,
        "max_output_tokens": 77, "temperature": 0.5, "reasoning_effort": "low", "compact_at": 50,
    });
    let shown: Value = put(client, "fast", &body).await.json().await.unwrap();
    let mut expected = body.clone();
    expected["name"] = "fast".into();
    expected["is_default"] = false.into();
    assert_eq!(shown, expected);
    assert_eq!(client.get_json("/api/v1/models").await, json!({ "models": [expected] }));

    let chat = create(client, &json!({ "content": "Who are you?", "model": "fast" })).await;
    client.chat_in(&chat, "waiting").await;
    assert_eq!(told(client, &chat).await[1], "assistant: maker/fast-7b");
    let asked = soon(models.nth(1)).await.unwrap();
    let limit = ["max_tokens", "max_completion_tokens"].map(|name| asked.options.get(name));
    assert!(limit.contains(&Some(&json!(77))), "{:?}", asked.options);
    assert_eq!(asked.options["temperature"], 0.5);
    let page = client.get_json(&format!("/api/v1/chats/{chat}/messages")).await;
    assert_eq!(page["messages"][1]["model"], "fast", "as chats call it");
    running.stop().await;
}

#[tokio::test]
async fn default_moves_to_who_says_so_last_and_back_to_the_settings() {
    let models = FakeModels::start().await.unwrap();
    models.answer_by(by_name);
    let running = start(&models).await;
    let client = &running.client;
    assert_eq!(who_answers(client).await, "assistant: demo");
    add(client, "one", "one-1", true).await;
    assert_eq!(who_answers(client).await, "assistant: one-1", "at once, on this replica");
    add(client, "two", "two-1", true).await;
    assert_eq!(who_answers(client).await, "assistant: two-1");
    let listed = client.get_json("/api/v1/models").await["models"].take();
    let listed = listed.as_array().unwrap().iter();
    let defaults: Vec<_> = listed.map(|model| (&model["name"], &model["is_default"])).collect();
    assert_eq!(defaults, [(&json!("one"), &json!(false)), (&json!("two"), &json!(true))]);

    assert_eq!(delete(client, "two").await, StatusCode::NO_CONTENT);
    assert_eq!(delete(client, "two").await, StatusCode::NOT_FOUND);
    assert_eq!(who_answers(client).await, "assistant: demo");
    running.stop().await;
}

#[tokio::test]
async fn unknown_model_or_provider_is_an_error_that_says_what_to_do() {
    let models = FakeModels::start().await.unwrap();
    models.answer_by(by_name);
    let running = start(&models).await;
    let client = &running.client;
    let chat = create(client, &json!({ "content": "Who are you?", "model": "slow" })).await;
    let error = client.chat_in(&chat, "error").await["error"].take();
    let remedy = "there is no model `slow`: name another, or add it with \
                  `PUT /api/v1/models/slow`";
    assert!(error.as_str().unwrap().contains(remedy), "{error}");

    let body = json!({ "provider": "elsewhere", "model": "x" });
    assert_eq!(put(client, "slow", &body).await.status(), StatusCode::OK);
    client.send(&chat, "And now?").await;
    let error = client.chat_in(&chat, "error").await["error"].take();
    assert!(error.as_str().unwrap().contains("the provider `elsewhere`"), "{error}");
    add(client, "slow", "slow-1", false).await;
    client.send(&chat, "And now?").await;
    client.chat_in(&chat, "waiting").await;
    assert_eq!(told(client, &chat).await.last().unwrap(), "assistant: slow-1");
    running.stop().await;
}

/// Puts a model and compares the problem that comes back.
async fn check(client: &Client, name: &str, body: &Value, expected: Expect) {
    let problem: Value = put(client, name, body).await.json().await.unwrap();
    let (status, field) = (&problem["status"], problem["field"].as_str().unwrap_or_default());
    expected.assert_eq(&format!("{status} [{field}] {}", problem["detail"].as_str().unwrap()));
}

#[tokio::test]
async fn bad_models_are_refused_by_field_and_limit() {
    let models = FakeModels::start().await.unwrap();
    let running = start(&models).await;
    let client = &running.client;
    let good = json!({ "provider": "default", "model": "x" });
    let with = |field: &str, value: Value| {
        let mut body = good.clone();
        body[field] = value;
        body
    };
    check(client, "m", &with("provider", json!("")), expect!["422 [provider] provider: is empty"])
        .await;
    check(
        client,
        "m",
        &with("model", json!("x".repeat(201))),
        expect!["422 [model] model: has 201 bytes, at most 200 are allowed"],
    )
    .await;
    check(
        client,
        "m",
        &with("context_limit", json!(0)),
        expect!["422 [context_limit] context_limit: is not from 1 to 100000000"],
    )
    .await;
    check(
        client,
        "m",
        &with("max_output_tokens", json!(100_000_001)),
        expect!["422 [max_output_tokens] max_output_tokens: is not from 1 to 100000000"],
    )
    .await;
    check(
        client,
        "m",
        &with("temperature", json!(2.5)),
        expect!["422 [temperature] temperature: is not from 0 to 2"],
    )
    .await;
    check(
        client,
        "m",
        &with("compact_at", json!(101)),
        expect!["422 [compact_at] compact_at: is not from 0 to 100"],
    )
    .await;
    check(
        client,
        &"x".repeat(201),
        &good,
        expect!["422 [name] name: has 201 bytes, at most 200 are allowed"],
    )
    .await;
    check(
        client,
        "mod%C3%A8le",
        &good,
        expect!["422 [name] name: has characters other than printable ASCII"],
    )
    .await;
    check(client, "m", &with("reasoning_effort", json!("utmost")), expect!["422 [] Failed to deserialize the JSON body into the target type: reasoning_effort: unknown variant `utmost`, expected one of `minimal`, `low`, `medium`, `high` at line 1 column 61"]).await;
    assert_eq!(client.get_json("/api/v1/models").await, json!({ "models": [] }));
    running.stop().await;
}
