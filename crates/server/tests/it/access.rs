//! Who reaches what.

use std::collections::BTreeSet;

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::client::Running;

/// Every route of the API, with a body where it takes one.
fn routes(chat: &str) -> Vec<(Method, String, Option<Value>)> {
    let content = || Some(json!({ "content": "x" }));
    vec![
        (Method::POST, "/api/v1/chats".to_owned(), content()),
        (Method::GET, "/api/v1/chats".to_owned(), None),
        (Method::GET, format!("/api/v1/chats/{chat}"), None),
        (Method::POST, format!("/api/v1/chats/{chat}/messages"), content()),
        (Method::GET, format!("/api/v1/chats/{chat}/messages"), None),
        (Method::GET, format!("/api/v1/chats/{chat}/events"), None),
        (Method::POST, "/api/v1/tokens".to_owned(), Some(json!({ "kind": "user", "name": "x" }))),
        (Method::DELETE, format!("/api/v1/tokens/{chat}"), None),
        (Method::GET, "/api/v1/workers".to_owned(), None),
    ]
}

#[tokio::test]
async fn table_of_routes_is_complete() {
    let openapi: Value = serde_json::from_str(&musterbeat_server::openapi_json()).unwrap();
    let mut described = Vec::new();
    for (path, operations) in openapi["paths"].as_object().unwrap() {
        for method in operations.as_object().unwrap().keys() {
            described.push(format!("{} {path}", method.to_uppercase()));
        }
    }
    let mut tested: Vec<String> =
        routes("{id}").iter().map(|(method, path, _)| format!("{method} {path}")).collect();
    described.sort();
    tested.sort();
    assert_eq!(tested, described);
}

#[test]
fn operations_have_names_of_their_own() {
    let openapi: Value = serde_json::from_str(&musterbeat_server::openapi_json()).unwrap();
    let paths = openapi["paths"].as_object().unwrap().values();
    let operations = paths.flat_map(|path| path.as_object().unwrap().values());
    let mut names = BTreeSet::new();
    for operation in operations {
        let name = operation["operationId"].as_str().unwrap();
        assert!(names.insert(name), "{name} names two operations");
    }
}

#[tokio::test]
async fn nothing_is_served_without_a_valid_token() {
    let running = Running::start().await;
    let chat = running.client.create_chat("mine").await;
    for client in [running.client.anonymous(), running.client.with_token("mb_guessed")] {
        for (method, path, body) in routes(&chat) {
            let mut request = client.request(method.clone(), &path);
            if let Some(body) = body {
                request = request.json(&body);
            }
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{method} {path}");
            assert_eq!(response.headers()["www-authenticate"], "Bearer");
        }
    }
    running.stop().await;
}

#[tokio::test]
async fn user_reaches_own_chats_only() {
    let running = Running::start().await;
    let admin = &running.client;
    let (one, other) =
        (admin.with_token(&admin.user_token().await), admin.with_token(&admin.user_token().await));
    let chat = one.create_chat("of one").await;
    for (method, path, body) in routes(&chat) {
        let mut request = other.request(method.clone(), &path);
        if let Some(body) = body {
            request = request.json(&body);
        }
        let expected = match (method.as_str(), path.as_str()) {
            ("POST", "/api/v1/chats") => StatusCode::CREATED,
            ("GET", "/api/v1/chats") => StatusCode::OK,
            (_, "/api/v1/workers") => StatusCode::FORBIDDEN,
            (_, path) if path.starts_with("/api/v1/tokens") => StatusCode::FORBIDDEN,
            _ => StatusCode::NOT_FOUND,
        };
        assert_eq!(request.send().await.unwrap().status(), expected, "{method} {path}");
    }
    let listed = other.get_json("/api/v1/chats").await;
    assert_eq!(listed["chats"].as_array().unwrap().len(), 1, "only what it created above");
    assert_eq!(admin.get(&format!("/api/v1/chats/{chat}")).await.status(), StatusCode::OK);
    running.stop().await;
}

#[tokio::test]
async fn revoked_token_is_refused() {
    let running = Running::start().await;
    let admin = &running.client;
    let body = json!({ "kind": "user", "name": "short-lived" });
    let made: Value = admin.post("/api/v1/tokens", &body).await.json().await.unwrap();
    let user = admin.with_token(made["token"].as_str().unwrap());
    assert_eq!(user.get("/api/v1/chats").await.status(), StatusCode::OK);

    let path = format!("/api/v1/tokens/{}", made["id"].as_str().unwrap());
    let revoke = async || admin.request(Method::DELETE, &path).send().await.unwrap().status();
    assert_eq!(revoke().await, StatusCode::NO_CONTENT);
    assert_eq!(revoke().await, StatusCode::NOT_FOUND, "once");
    assert_eq!(user.get("/api/v1/chats").await.status(), StatusCode::UNAUTHORIZED);
    running.stop().await;
}

#[tokio::test]
async fn stream_of_a_revoked_token_ends() {
    let running = Running::start().await;
    let admin = &running.client;
    let body = json!({ "kind": "user", "name": "leaked" });
    let made: Value = admin.post("/api/v1/tokens", &body).await.json().await.unwrap();
    let user = admin.with_token(made["token"].as_str().unwrap());
    let chat = user.create_chat("mine").await;
    user.chat_in(&chat, "waiting").await;
    let mut leaked = user.follow(&chat, false, None).await;
    leaked.next_named("snapshot").await;
    let mut other = admin.follow(&chat, false, None).await;
    other.next_named("snapshot").await;

    let path = format!("/api/v1/tokens/{}", made["id"].as_str().unwrap());
    admin.request(Method::DELETE, &path).send().await.unwrap().error_for_status().unwrap();
    leaked.rest().await;
    admin.send(&chat, "for the admin alone").await;
    assert_eq!(other.next_named("message").await.1["role"], "user", "streams of others go on");
    running.stop().await;
}

#[tokio::test]
async fn dev_serves_loopback_names_without_tokens() {
    let running = Running::start_with(|settings| settings.dev = true).await;
    let client = running.client.anonymous();
    client.create_chat("no token").await;
    let openapi = client.get_json("/openapi.json").await;
    assert_eq!(openapi.get("security"), None, "it describes what is served");
    let request = client.request(Method::GET, "/api/v1/chats").header("host", "evil.example");
    assert_eq!(request.send().await.unwrap().status(), StatusCode::FORBIDDEN);
    running.stop().await;
}
