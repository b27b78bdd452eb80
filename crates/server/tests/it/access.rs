//! Who reaches what.

use std::collections::BTreeSet;
use std::time::Duration;

use musterbeat_server::settings::Settings;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::agents::Agent;
use crate::client::{Client, Running};

/// Requests for which an agent's share is enough.
const SHARE: usize = 40;

/// What a route is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum For {
    /// Whoever uses chats, each their own.
    Users,
    /// Whoever owns the object that the path names.
    Owner,
    /// Whoever owns the agent that the path names, and that agent.
    Agent,
    /// Admins alone.
    Admins,
}

/// Every route of the API, with a body where it takes one, on the objects that are named.
fn routes(named: &Named) -> Vec<(For, Method, String, Option<Value>)> {
    let Named { chat, message, queued, agent, .. } = named;
    let content = || Some(json!({ "content": "x" }));
    let chat = |rest: &str| format!("/api/v1/chats/{chat}{rest}");
    let agent = |rest: &str| format!("/api/v1/agents/{agent}{rest}");
    let definitions = json!({ "definitions": [{ "key": "x", "interval_seconds": 1 }] });
    let mut routes = vec![
        (For::Users, Method::POST, "/api/v1/chats".to_owned(), content()),
        (For::Users, Method::GET, "/api/v1/chats".to_owned(), None),
        (For::Users, Method::GET, "/api/v1/chats/events".to_owned(), None),
        (For::Owner, Method::GET, chat(""), None),
        (For::Owner, Method::PATCH, chat(""), Some(json!({ "title": "x" }))),
        (For::Owner, Method::POST, chat("/messages"), content()),
        (For::Owner, Method::GET, chat("/messages"), None),
        (For::Owner, Method::GET, chat("/events"), None),
        (For::Owner, Method::GET, chat("/queue"), None),
        (For::Owner, Method::POST, chat(&format!("/queue/{queued}/promote")), None),
        (For::Owner, Method::DELETE, chat(&format!("/queue/{queued}")), None),
        (For::Owner, Method::DELETE, chat("/queue"), None),
        (For::Owner, Method::PUT, chat(&format!("/messages/{message}")), content()),
        (For::Owner, Method::POST, chat("/interrupt"), None),
        (For::Owner, Method::POST, chat("/compact"), None),
        (For::Owner, Method::GET, chat("/children"), None),
        (For::Owner, Method::GET, chat("/wait"), None),
        (
            For::Owner,
            Method::POST,
            chat("/diff-status"),
            Some(json!({ "branch": "x", "origin": "x" })),
        ),
        (For::Owner, Method::GET, chat("/diff-status"), None),
        (For::Owner, Method::POST, chat("/diff-status/refresh"), None),
        (For::Users, Method::GET, "/api/v1/chats/diff-statuses".to_owned(), None),
        (
            For::Users,
            Method::POST,
            format!("/api/v1/workspaces/{}/diff-status", named.chat),
            Some(json!({ "branch": "x", "origin": "x" })),
        ),
        (For::Users, Method::POST, "/api/v1/agents".to_owned(), Some(json!({ "name": "x" }))),
        (For::Users, Method::GET, "/api/v1/agents".to_owned(), None),
        (For::Owner, Method::PUT, agent("/metadata/definitions"), Some(definitions)),
        (For::Agent, Method::POST, agent("/metadata"), Some(json!([{ "key": "x" }]))),
        (For::Agent, Method::GET, agent("/metadata"), None),
        (For::Agent, Method::GET, agent("/metadata/events"), None),
        (For::Owner, Method::DELETE, agent(""), None),
        (For::Owner, Method::POST, chat("/archive"), None),
        (For::Owner, Method::POST, chat("/unarchive"), None),
        (
            For::Admins,
            Method::POST,
            "/api/v1/tokens".to_owned(),
            Some(json!({ "kind": "user", "name": "x" })),
        ),
        (For::Admins, Method::DELETE, format!("/api/v1/tokens/{}", named.chat), None),
        (For::Admins, Method::GET, "/api/v1/workers".to_owned(), None),
    ];
    routes.extend(routes_of_models(named));
    routes.extend(routes_of_supply(named));
    routes
}

/// Those of them that are about whom chats are answered by.
fn routes_of_models(named: &Named) -> Vec<(For, Method, String, Option<Value>)> {
    let model = format!("/api/v1/models/{}", named.model);
    let config = json!({ "provider": "default", "model": "x" });
    vec![
        (For::Users, Method::GET, "/api/v1/models".to_owned(), None),
        (For::Admins, Method::PUT, model.clone(), Some(config)),
        (For::Admins, Method::DELETE, model, None),
        (For::Admins, Method::GET, "/api/v1/mcp".to_owned(), None),
    ]
}

/// Those of them that are about workspaces and what they are built from.
fn routes_of_supply(named: &Named) -> Vec<(For, Method, String, Option<Value>)> {
    let Named { template, version, preset, workspace, build, .. } = named;
    let template = |rest: &str| format!("/api/v1/templates/{template}{rest}");
    let preset = |rest: &str| format!("/api/v1/presets/{preset}{rest}");
    let workspace = |rest: &str| format!("/api/v1/workspaces/{workspace}{rest}");
    let build = |rest: &str| format!("/api/v1/builds/{build}{rest}");
    let fresh = Uuid::now_v7();
    let of_version = json!({ "name": fresh, "source": "x", "activate": false });
    let of_template = json!({ "name": fresh, "version": of_version });
    let of_preset = json!({ "name": fresh, "version_id": version });
    let of_workspace = json!({ "name": fresh, "preset_id": named.preset });
    let paused = json!({ "paused": false });
    vec![
        (For::Admins, Method::POST, "/api/v1/templates".to_owned(), Some(of_template)),
        (For::Users, Method::GET, "/api/v1/templates".to_owned(), None),
        (For::Users, Method::GET, template(""), None),
        (For::Admins, Method::PATCH, template(""), Some(json!({}))),
        (For::Admins, Method::POST, template("/versions"), Some(of_version)),
        (For::Users, Method::GET, template("/versions"), None),
        (For::Admins, Method::POST, "/api/v1/presets".to_owned(), Some(of_preset)),
        (For::Users, Method::GET, "/api/v1/presets".to_owned(), None),
        (For::Users, Method::GET, preset(""), None),
        (For::Admins, Method::PATCH, preset(""), Some(json!({}))),
        (For::Users, Method::GET, preset("/prebuilds"), None),
        (For::Users, Method::POST, preset("/claim"), Some(json!({ "name": fresh }))),
        (For::Users, Method::GET, "/api/v1/pools".to_owned(), None),
        (For::Admins, Method::PUT, "/api/v1/pools/paused".to_owned(), Some(paused)),
        (For::Users, Method::POST, "/api/v1/workspaces".to_owned(), Some(of_workspace)),
        (For::Users, Method::GET, "/api/v1/workspaces".to_owned(), None),
        (For::Owner, Method::GET, workspace(""), None),
        (For::Owner, Method::POST, workspace("/start"), None),
        (For::Owner, Method::POST, workspace("/stop"), None),
        (For::Owner, Method::GET, workspace("/builds"), None),
        (For::Owner, Method::GET, build(""), None),
        (For::Owner, Method::GET, build("/log"), None),
        (For::Owner, Method::POST, build("/interrupt"), None),
        (For::Owner, Method::DELETE, workspace(""), None),
        (For::Admins, Method::DELETE, preset(""), None),
        (For::Admins, Method::DELETE, template(""), None),
    ]
}

/// What the paths of routes name.
struct Named {
    chat: String,
    message: String,
    queued: String,
    agent: String,
    template: String,
    version: String,
    preset: String,
    workspace: String,
    build: String,
    model: String,
}

impl Named {
    /// Names things as the description does.
    fn described() -> Self {
        let [message, queued] = ["{message_id}", "{queued_id}"].map(str::to_owned);
        let id = || "{id}".to_owned();
        Self {
            message,
            queued,
            chat: id(),
            agent: id(),
            template: id(),
            version: id(),
            preset: id(),
            workspace: id(),
            build: id(),
            model: "{name}".to_owned(),
        }
    }

    /// Creates a busy chat, with a turn that waits, an agent and a workspace, of a template that
    /// an admin made.
    async fn create(client: &Client, admin: &Client) -> Self {
        let chat = client.create_chat("mine").await;
        client.send(&chat, "and then").await;
        let page = client.get_json(&format!("/api/v1/chats/{chat}/messages")).await;
        let queue = client.get_json(&format!("/api/v1/chats/{chat}/queue")).await;
        let message = page["messages"][0]["id"].to_string();
        let agent = Agent::create(client, &["x"]).await.id;
        let preset = admin.create_preset(&Uuid::now_v7().to_string(), "none", 0).await;
        let described = client.get_json(&format!("/api/v1/presets/{preset}")).await;
        let order = json!({ "name": Uuid::now_v7(), "preset_id": preset });
        let given = client.post("/api/v1/workspaces", &order).await;
        assert_eq!(given.status(), StatusCode::CREATED);
        let given: Value = given.json().await.unwrap();
        let text = |of: &Value, field: &str| of[field].as_str().unwrap().to_owned();
        Self {
            chat,
            message,
            queued: queue["queue"][0]["id"].to_string(),
            agent,
            template: text(&described, "template_id"),
            version: text(&described, "version_id"),
            preset,
            workspace: text(&given, "workspace_id"),
            build: text(&given, "build_id"),
            model: Uuid::now_v7().to_string(),
        }
    }
}

async fn status(client: &Client, method: &Method, path: &str, body: Option<Value>) -> StatusCode {
    let mut request = client.request(method.clone(), path);
    if let Some(body) = body {
        request = request.json(&body);
    }
    request.send().await.unwrap().status()
}

/// Says whether a request got as far as what it is about: it may have been in the wrong state.
fn got_through(status: StatusCode) -> bool {
    status.is_success() || status == StatusCode::CONFLICT
}

/// Starts a server whose turns do not end.
async fn busy() -> Running {
    Running::start_with(endless).await
}

fn endless(settings: &mut Settings) {
    settings.echo_pace = Duration::from_hours(1);
    settings.drain_timeout = Duration::ZERO;
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
    let mut tested: Vec<String> = routes(&Named::described())
        .iter()
        .map(|(_, method, path, _)| format!("{method} {path}"))
        .collect();
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
    let running = busy().await;
    let named = Named::create(&running.client, &running.client).await;
    for client in [running.client.anonymous(), running.client.with_token("mb_guessed")] {
        for (_, method, path, body) in routes(&named) {
            let status = status(&client, &method, &path, body).await;
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{method} {path}");
        }
        let response = client.get("/api/v1/chats").await;
        assert_eq!(response.headers()["www-authenticate"], "Bearer");
    }
    running.stop().await;
}

#[tokio::test]
async fn user_reaches_own_objects_only_and_an_admin_all() {
    let running = busy().await;
    let admin = &running.client;
    let (one, other) =
        (admin.with_token(&admin.user_token().await), admin.with_token(&admin.user_token().await));
    let named = Named::create(&one, admin).await;
    for (whose, method, path, body) in routes(&named) {
        let refused = status(&other, &method, &path, body.clone()).await;
        match whose {
            For::Users => assert!(got_through(refused), "{method} {path}: {refused}"),
            For::Owner | For::Agent => {
                assert_eq!(refused, StatusCode::NOT_FOUND, "{method} {path}");
            }
            For::Admins => assert_eq!(refused, StatusCode::FORBIDDEN, "{method} {path}"),
        }
    }
    let listed = other.get_json("/api/v1/chats").await;
    assert_eq!(listed["chats"].as_array().unwrap().len(), 1, "only what it created above");
    let before = one.get_json(&format!("/api/v1/chats/{}", named.chat)).await;
    assert_eq!((&before["title"], &before["archived"]), (&json!("mine"), &json!(false)));
    for client in [&one, admin] {
        let named = Named::create(&one, admin).await;
        for (whose, method, path, body) in routes(&named) {
            let taken = status(client, &method, &path, body).await;
            // What is gone by then was promoted or edited away by the routes before.
            let gone = path.contains("/queue/") || path.contains("/tokens/");
            let reached = got_through(taken) || (gone && taken == StatusCode::NOT_FOUND);
            let is_admin = std::ptr::eq(client, admin);
            assert_eq!(reached, is_admin || whose != For::Admins, "{method} {path}: {taken}");
        }
    }
    running.stop().await;
}

#[tokio::test]
async fn agent_reaches_its_own_metadata_and_nothing_else() {
    let running = busy().await;
    let named = Named::create(&running.client, &running.client).await;
    for routes in routes(&named).chunks(SHARE) {
        let other = Agent::create(&running.client, &["x"]).await;
        for (whose, method, path, body) in routes {
            let refused = status(&other.client, method, path, body.clone()).await;
            let expected = match whose {
                For::Agent => StatusCode::NOT_FOUND,
                For::Users | For::Owner | For::Admins => StatusCode::FORBIDDEN,
            };
            assert_eq!(refused, expected, "{method} {path}");
        }
    }
    let own = Agent::create(&running.client, &["x"]).await;
    let named = Named { agent: own.id.clone(), ..named };
    for (place, routes) in routes(&named).chunks(SHARE).enumerate() {
        // What it may do is in the first part; of the rest, somebody else is refused as well.
        let agent =
            if place == 0 { own.clone() } else { Agent::create(&running.client, &["x"]).await };
        for (whose, method, path, body) in routes {
            let answer = status(&agent.client, method, path, body.clone()).await;
            assert_eq!(answer.is_success(), *whose == For::Agent, "{method} {path}: {answer}");
        }
    }
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
