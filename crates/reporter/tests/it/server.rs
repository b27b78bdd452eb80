//! A server of the two routes that agents call.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Longest wait for anything; a test that meets it has failed.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// What a test sees and decides.
#[derive(Debug, Default)]
pub(crate) struct Script {
    pub(crate) definitions: Vec<Value>,
    pub(crate) version: i64,
    /// The right to call; `None` as in a server in dev.
    pub(crate) token: Option<String>,
    /// The status and detail that all calls are answered with.
    pub(crate) problem: Option<(u16, &'static str)>,
    /// The newest of each key.
    pub(crate) stored: BTreeMap<String, Value>,
    pub(crate) agents: Vec<String>,
}

/// A server on loopback.
pub(crate) struct FakeServer {
    script: Arc<Shared>,
    pub(crate) address: SocketAddr,
    serving: JoinHandle<()>,
}

struct Shared {
    script: Mutex<Script>,
    changes: watch::Sender<()>,
}

impl FakeServer {
    pub(crate) async fn start(definitions: Vec<Value>) -> Self {
        let script = Script { definitions, version: 1, ..Script::default() };
        let script =
            Arc::new(Shared { script: Mutex::new(script), changes: watch::Sender::default() });
        let router = Router::new()
            .route("/muster/api/v1/agents/{id}/metadata", get(read).post(report))
            .with_state(Arc::clone(&script));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { script, address, serving }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/muster", self.address)
    }

    pub(crate) fn script<T>(&self, change: impl FnOnce(&mut Script) -> T) -> T {
        change(&mut self.script.script.lock().unwrap())
    }

    /// Waits until calls have led to something.
    pub(crate) async fn until(&self, what: &str, reached: impl Fn(&Script) -> bool) {
        let mut changes = self.script.changes.subscribe();
        let come = changes.wait_for(|()| self.script(|script| reached(script)));
        let come = timeout(PATIENCE, come).await;
        assert!(come.is_ok(), "{what} did not come: {:?}", self.script.script.lock().unwrap());
    }
}

impl Drop for FakeServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn read(
    State(shared): State<Arc<Shared>>,
    Path(agent): Path<String>,
    headers: HeaderMap,
) -> Response {
    let mut script = shared.script.lock().unwrap();
    script.agents.push(agent);
    if let Some(problem) = script.refusal(&headers) {
        return problem;
    }
    let definitions = script.definitions.clone();
    let body = json!({ "definitions_version": script.version, "metadata": definitions });
    Json(body).into_response()
}

async fn report(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    Json(entries): Json<Vec<Value>>,
) -> Response {
    let mut script = shared.script.lock().unwrap();
    if let Some(problem) = script.refusal(&headers) {
        return problem;
    }
    let accepted = entries.len();
    for entry in entries {
        script.stored.insert(entry["key"].as_str().unwrap().to_owned(), entry);
    }
    let version = script.version;
    drop(script);
    shared.changes.send_replace(());
    let body = json!({
        "accepted": accepted, "changed": [], "refused": [], "definitions_version": version,
    });
    (StatusCode::ACCEPTED, Json(body)).into_response()
}

impl Script {
    fn refusal(&self, headers: &HeaderMap) -> Option<Response> {
        let told = headers.get(header::AUTHORIZATION).map(|value| value.to_str().unwrap());
        let wanted = self.token.as_ref().map(|token| format!("Bearer {token}"));
        let (status, detail) =
            if told == wanted.as_deref() { self.problem? } else { (401, "no such token") };
        let body = Json(json!({ "status": status, "detail": detail }));
        let status = StatusCode::from_u16(status).unwrap();
        Some((status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response())
    }
}
