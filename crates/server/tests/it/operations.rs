//! What operators do: probe, scrape, stop, start again.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::Value;

use crate::client::{PATIENCE, Running};
use crate::recital::Recital;

#[tokio::test]
async fn probes_tell_life_and_readiness() {
    let running = Running::start().await;
    let client = running.client.anonymous();
    assert_eq!(client.get("/healthz").await.status(), StatusCode::OK);
    assert_eq!(client.get("/readyz").await.status(), StatusCode::OK);
    running.stop().await;
}

#[tokio::test]
async fn scrape_shows_declared_metrics_with_help() {
    let running = Running::start().await;
    let chat = running.client.create_chat("count me").await;
    running.client.chat_in(&chat, "waiting").await;
    let text = running.client.anonymous().get("/metrics").await.text().await.unwrap();
    for line in [
        "# HELP musterbeat_claims_total Claims sent to the database.",
        "musterbeat_runs_claimed_total{kind=\"chat\"}",
        "musterbeat_run_ready_to_running_seconds_bucket{kind=\"chat\"",
        "musterbeat_http_requests_total{route=\"/api/v1/chats\",method=\"POST\",status=\"201\"}",
        "process_resident_memory_bytes",
    ] {
        assert!(text.contains(line), "{line} is not in\n{text}");
    }
    for line in text.lines().filter(|line| line.starts_with("musterbeat_")) {
        let name = line.split(['{', ' ']).next().unwrap();
        let declared =
            musterbeat_server::metrics::all().any(|metric| name.starts_with(metric.name));
        assert!(declared, "{name} is not declared");
    }
    running.stop().await;
}

#[tokio::test]
async fn description_and_its_page_are_served() {
    let running = Running::start().await;
    let client = running.client.anonymous();
    let openapi: Value = client.get("/openapi.json").await.json().await.unwrap();
    assert_eq!(openapi, serde_json::from_str::<Value>(&musterbeat_server::openapi_json()).unwrap());
    let page = client.get("/docs/").await;
    assert_eq!(page.status(), StatusCode::OK);
    running.stop().await;
}

#[tokio::test]
async fn end_waits_for_the_turn_and_ends_the_stream_after_it() {
    let recital = Recital::of(1);
    let running = Running::start_reciting(&recital).await;
    let client = running.client.clone();
    let chat = client.create_chat("a b c d e f").await;
    let mut events = client.follow(&chat, false, None).await;
    events.next_named("part").await;
    running.shutdown.request();
    assert_eq!(client.get("/readyz").await.status(), StatusCode::SERVICE_UNAVAILABLE);

    recital.finish();
    let (left, _database) = tokio::join!(events.rest(), running.stop());
    let answered = left.iter().any(|(name, data)| name == "message" && data["role"] == "assistant");
    assert!(answered, "the turn is finished first: {left:?}");
}

#[tokio::test]
async fn turn_that_outlasts_the_drain_is_finished_by_the_next_server() {
    let running = Running::start_with(|settings| {
        settings.echo_pace = Duration::from_hours(1);
        settings.drain_timeout = Duration::from_millis(10);
    })
    .await;
    let client = running.client.clone();
    let token = client.user_token().await;
    let user = client.with_token(&token);
    let chat = user.create_chat("carry on").await;
    user.chat_in(&chat, "running").await;
    let events = user.follow(&chat, false, None).await;
    let database = running.stop().await.unwrap();
    drop(events);

    let next = Running::start_on(database, |_| {}).await;
    let user = next.client.with_token(&token);
    user.chat_in(&chat, "waiting").await;
    assert_eq!(user.history(&chat).await, ["user: carry on", "assistant: carry on"]);
    next.stop().await;
}

#[tokio::test]
async fn second_request_ends_at_once() {
    let running = Running::start_with(|settings| {
        settings.echo_pace = Duration::from_hours(1);
        settings.drain_timeout = Duration::from_hours(1);
    })
    .await;
    let chat = running.client.create_chat("endless").await;
    running.client.chat_in(&chat, "running").await;
    running.shutdown.request();
    running.shutdown.request();
    let ended = tokio::time::timeout(PATIENCE, running.stop());
    ended.await.expect("the drain of an hour is cut short by the second request");
}

#[tokio::test]
async fn workers_are_shown_with_what_they_own() {
    let running =
        Running::start_with(|settings| settings.echo_pace = Duration::from_hours(1)).await;
    let chat = running.client.create_chat("endless").await;
    running.client.chat_in(&chat, "running").await;
    let shown = running.client.get_json("/api/v1/workers").await;
    let workers = shown["workers"].as_array().unwrap();
    assert_eq!(workers.len(), 1);
    assert_eq!((&workers[0]["runs"], &workers[0]["dead"]), (&1.into(), &false.into()));
    assert!(workers[0]["beat_age"].as_f64().unwrap() < PATIENCE.as_secs_f64());
    running.shutdown.request();
    running.shutdown.request();
    running.stop().await;
}
