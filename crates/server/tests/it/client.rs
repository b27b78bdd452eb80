//! A server, and one who talks to it.

use std::future::ready;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use eventsource_stream::{Event, EventStreamError, Eventsource};
use futures_util::{Stream, StreamExt};
use musterbeat_core::port::ChatRunner;
use musterbeat_engine::shutdown::Shutdown;
use musterbeat_server::serve::Server;
use musterbeat_server::settings::Settings;
use musterbeat_testkit::{TestDatabase, eventually};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use crate::recital::Recital;

/// Longest wait for anything; a test that meets it has failed.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Far below the time after which a server closes a connection that says nothing: a request must
/// not meet that end.
const IDLE_MAX: Duration = Duration::from_secs(5);

/// A server that runs in this process.
pub(crate) struct Running {
    pub(crate) client: Client,
    pub(crate) shutdown: Shutdown,
    server: Server,
    /// `None` of one that was started beside another.
    database: Option<TestDatabase>,
}

impl Running {
    /// Starts a server with quick answers.
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    pub(crate) async fn start_with(change: impl FnOnce(&mut Settings)) -> Self {
        Self::start_on(TestDatabase::create().await.unwrap(), change).await
    }

    pub(crate) async fn start_on(
        database: TestDatabase,
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        let url = database.url().to_owned();
        Self { database: Some(database), ..Self::start_beside(&url, change).await }
    }

    /// Starts a further server on the database of another.
    pub(crate) async fn start_beside(url: &str, change: impl FnOnce(&mut Settings)) -> Self {
        Self::start_as(url, None, change).await
    }

    /// Starts a server whose turns go on as `recital` lets them.
    pub(crate) async fn start_reciting(recital: &Recital) -> Self {
        let database = TestDatabase::create().await.unwrap();
        let running = Self::start_answering(database.url(), recital.runner(), |_| {}).await;
        Self { database: Some(database), ..running }
    }

    /// Starts a server on a database whose chats `runner` answers.
    pub(crate) async fn start_answering(
        url: &str,
        runner: Arc<dyn ChatRunner>,
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        Self::start_as(url, Some(runner), change).await
    }

    async fn start_as(
        url: &str,
        runner: Option<Arc<dyn ChatRunner>>,
        change: impl FnOnce(&mut Settings),
    ) -> Self {
        let mut settings = Settings {
            listen: ([127, 0, 0, 1], 0).into(),
            database_url: Some(url.into()),
            echo_pace: Duration::from_millis(1),
            ..Settings::default()
        };
        change(&mut settings);
        let shutdown = Shutdown::default();
        let server = match runner {
            None => Server::start(settings, shutdown.clone()).await.unwrap(),
            Some(runner) => {
                Server::start_with_runner(settings, runner, shutdown.clone()).await.unwrap()
            }
        };
        let token = server.admin_token().map(|token| token.expose_secret().to_owned());
        let base = format!("http://{}", server.address());
        Self { client: Client::new(base, token), shutdown, server, database: None }
    }

    /// Returns the database that it was started on.
    pub(crate) fn database(&self) -> &TestDatabase {
        self.database.as_ref().expect("it was not started beside another")
    }

    /// Asks for the end, unless somebody did, and waits for it; the database stays.
    pub(crate) async fn stop(self) -> Option<TestDatabase> {
        if !self.shutdown.is_requested() {
            self.shutdown.request();
        }
        tokio::time::timeout(PATIENCE, self.server.ended()).await.unwrap().unwrap();
        self.database
    }
}

/// One who talks to a server.
#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    base: String,
    token: Option<String>,
}

impl Client {
    pub(crate) fn new(base: String, token: Option<String>) -> Self {
        // The crate that downloads PostgreSQL asks for rustls without a provider, and features unite.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().pool_idle_timeout(IDLE_MAX).build().unwrap();
        Self { http, base, token }
    }

    /// Returns the token that it shows.
    pub(crate) fn token(&self) -> &str {
        self.token.as_deref().unwrap_or_default()
    }

    /// Returns where the server is.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// Returns where the server listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.base.strip_prefix("http://").unwrap().parse().unwrap()
    }

    /// Returns the same client with another token.
    pub(crate) fn with_token(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    /// Returns the same client without a token.
    pub(crate) fn anonymous(&self) -> Self {
        Self { token: None, ..self.clone() }
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.base)).timeout(PATIENCE);
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.request(Method::GET, path).send().await.unwrap()
    }

    pub(crate) async fn get_json(&self, path: &str) -> Value {
        let response = self.get(path).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        response.json().await.unwrap()
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Response {
        self.request(Method::POST, path).json(body).send().await.unwrap()
    }

    /// Creates a chat and returns its id.
    pub(crate) async fn create_chat(&self, content: &str) -> String {
        let response = self.post("/api/v1/chats", &json!({ "content": content })).await;
        assert_eq!(response.status(), StatusCode::CREATED);
        let chat: Value = response.json().await.unwrap();
        chat["id"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn send(&self, chat: &str, content: &str) -> Value {
        let path = format!("/api/v1/chats/{chat}/messages");
        let response = self.post(&path, &json!({ "content": content })).await;
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        response.json().await.unwrap()
    }

    /// Creates a workspace of a template of its own; returns its id.
    pub(crate) async fn create_workspace(&self, name: &str) -> String {
        let preset = self.create_preset(name, "none", 0).await;
        let body = json!({ "preset_id": preset, "name": name });
        let response = self.post("/api/v1/workspaces", &body).await;
        assert_eq!(response.status(), StatusCode::CREATED);
        let given: Value = response.json().await.unwrap();
        given["workspace_id"].as_str().unwrap().to_owned()
    }

    /// Creates a template with a preset `small` that wants so many prebuilds; returns its id.
    pub(crate) async fn create_preset(&self, name: &str, source: &str, desired: u32) -> String {
        let pool = json!({ "desired_instances": desired });
        let presets = json!([{ "name": "small", "pool": pool }]);
        let version = json!({ "name": "v1", "source": source, "presets": presets });
        let body = json!({ "name": name, "version": version });
        let response = self.post("/api/v1/templates", &body).await;
        assert_eq!(response.status(), StatusCode::CREATED);
        let created: Value = response.json().await.unwrap();
        let presets = self
            .get_json(&format!("/api/v1/presets?template_id={}", created["id"].as_str().unwrap()))
            .await;
        presets["presets"][0]["id"].as_str().unwrap().to_owned()
    }

    /// Makes a user's token and returns it.
    pub(crate) async fn user_token(&self) -> String {
        let body = json!({ "kind": "user", "name": "test" });
        let response = self.post("/api/v1/tokens", &body).await;
        assert_eq!(response.status(), StatusCode::CREATED);
        let token: Value = response.json().await.unwrap();
        token["token"].as_str().unwrap().to_owned()
    }

    /// Follows a chat; `rest` ends the stream once the chat has nothing to do.
    pub(crate) async fn follow(&self, chat: &str, rest: bool, last_id: Option<&str>) -> Events {
        let until = if rest { "?until=rest" } else { "" };
        let mut request = self.request(Method::GET, &format!("/api/v1/chats/{chat}/events{until}"));
        if let Some(id) = last_id {
            request = request.header("last-event-id", id);
        }
        Events::of(request.send().await.unwrap())
    }

    /// Waits until a chat stands in `status`, and returns it.
    pub(crate) async fn chat_in(&self, chat: &str, status: &str) -> Value {
        let path = format!("/api/v1/chats/{chat}");
        eventually(PATIENCE, &format!("chat {chat} is {status}"), async || {
            self.get_json(&path).await["status"] == status
        })
        .await;
        self.get_json(&path).await
    }

    /// Returns what was said in a chat, each line with who said it.
    pub(crate) async fn history(&self, chat: &str) -> Vec<String> {
        let page = self.get_json(&format!("/api/v1/chats/{chat}/messages")).await;
        let messages = page["messages"].as_array().unwrap();
        messages.iter().map(said).collect()
    }
}

/// Returns a message as `role: text`.
pub(crate) fn said(message: &Value) -> String {
    let role = message["role"].as_str().unwrap();
    format!("{role}: {}", message["content"][0]["text"].as_str().unwrap())
}

/// Says whether the server has gone; a stream that outlasts the test's patience is a failure.
fn is_cut_off(event: &Result<Event, EventStreamError<reqwest::Error>>) -> bool {
    match event {
        Ok(_) => false,
        Err(EventStreamError::Transport(error)) if error.is_timeout() => {
            panic!("the stream did not end in time")
        }
        Err(_) => true,
    }
}

/// Server-sent events as they come.
pub(crate) struct Events(Pin<Box<dyn Stream<Item = Event> + Send>>);

impl Events {
    pub(crate) fn of(response: Response) -> Self {
        assert!(response.status().is_success(), "{}", response.status());
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let events = response.bytes_stream().eventsource();
        // A server that ends takes its connections with it: the stream is over then, too.
        let whole = events.take_while(|event| ready(!is_cut_off(event))).map(Result::unwrap);
        Self(Box::pin(whole))
    }

    /// Returns the next event, `None` at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        tokio::time::timeout(PATIENCE, self.0.next()).await.expect("no event in time")
    }

    /// Returns the next event of this name, passing over others.
    pub(crate) async fn next_named(&mut self, name: &str) -> (String, Value) {
        loop {
            let event =
                self.next().await.unwrap_or_else(|| panic!("the stream ended before {name}"));
            if event.event == name {
                return (event.id, serde_json::from_str(&event.data).unwrap());
            }
        }
    }

    /// Returns what is left until the stream ends, as name and data.
    pub(crate) async fn rest(mut self) -> Vec<(String, Value)> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push((event.event, serde_json::from_str(&event.data).unwrap()));
        }
        events
    }
}
