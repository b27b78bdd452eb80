//! Tools of an MCP server: offered, called, interrupted, and shown how they stand.

use std::sync::Arc;

use axum::Json;
use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::http::header::AUTHORIZATION;
use axum::response::{IntoResponse, Response};
use musterbeat_agent::mcp::McpServer;
use musterbeat_testkit::{Answer, FakeModels, Web};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::net::TcpSocket;
use tokio::sync::watch;

use crate::client::Running;
use crate::models::{answered_by, soon, told};

/// An MCP server over HTTP: `read` tells at once that it did, `pay` only once it is let go on.
pub(crate) struct Desk {
    web: Web,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// How often `pay` was called.
    paid: watch::Sender<usize>,
    goes_on: watch::Sender<bool>,
    /// What the last call brought as its right.
    right: watch::Sender<String>,
}

impl Desk {
    pub(crate) async fn start() -> Self {
        let shared = Arc::<Shared>::default();
        let answering = Arc::clone(&shared);
        let answer = move |request| answer(request, Arc::clone(&answering));
        Self { web: Web::start(answer).await.unwrap(), shared }
    }

    pub(crate) fn url(&self) -> String {
        format!("{}/mcp", self.web.url())
    }

    /// Describes it as settings do, under a name.
    fn server(&self, name: &str) -> McpServer {
        let table = json!({ "name": name, "url": self.url(), "allow": ["*"] });
        serde_json::from_value(table).unwrap()
    }

    /// Returns how often `pay` was called.
    pub(crate) fn paid(&self) -> usize {
        *self.shared.paid.borrow()
    }

    /// Returns what the last call of anything brought as its right, if anything.
    pub(crate) fn right(&self) -> String {
        self.shared.right.borrow().clone()
    }

    /// Waits until `pay` was called so often.
    pub(crate) async fn is_paid(&self, times: usize) {
        let mut paid = self.shared.paid.subscribe();
        soon(paid.wait_for(|&paid| paid == times)).await.unwrap();
    }

    /// Lets `pay` end.
    fn let_pay(&self) {
        self.shared.goes_on.send_replace(true);
    }
}

async fn answer(request: Request, shared: Arc<Shared>) -> Response {
    if request.method() != Method::POST {
        return StatusCode::METHOD_NOT_ALLOWED.into_response();
    }
    let right = request.headers().get(AUTHORIZATION).and_then(|right| right.to_str().ok());
    shared.right.send_replace(right.unwrap_or_default().to_owned());
    let body = to_bytes(request.into_body(), 1024 * 1024).await.unwrap();
    let call: Value = serde_json::from_slice(&body).unwrap();
    let Some(id) = call.get("id") else { return StatusCode::ACCEPTED.into_response() };
    let input = json!({ "type": "object" });
    let result = match call["method"].as_str().unwrap() {
        "initialize" => json!({
            "protocolVersion": "2025-06-18",
            "capabilities": { "tools": {} },
            "serverInfo": { "name": "desk", "version": "1" },
        }),
        "tools/list" => json!({ "tools": [
            { "name": "read", "inputSchema": input, "annotations": { "readOnlyHint": true } },
            { "name": "pay", "inputSchema": input },
        ] }),
        "tools/call" => {
            let tool = &call["params"]["name"];
            if tool == "pay" {
                shared.paid.send_modify(|paid| *paid += 1);
                shared.goes_on.subscribe().wait_for(|goes_on| *goes_on).await.unwrap();
            }
            json!({ "content": [{ "type": "text", "text": format!("{tool} is done") }] })
        }
        _ => {
            let error = json!({ "code": -32601, "message": "no such method" });
            return Json(json!({ "jsonrpc": "2.0", "id": id, "error": error })).into_response();
        }
    };
    Json(json!({ "jsonrpc": "2.0", "id": id, "result": result })).into_response()
}

/// Starts a server with these servers of tools, whose chats `models` answers.
async fn start(models: &FakeModels, mcp: Vec<McpServer>) -> Running {
    let answered = answered_by(models);
    Running::start_with(|settings| {
        answered(settings);
        settings.mcp = mcp;
    })
    .await
}

#[tokio::test]
async fn tool_is_offered_and_called_and_how_its_server_stands_is_shown() {
    let (models, desk) = (FakeModels::start().await.unwrap(), Desk::start().await);
    models.queue(Answer::new().call("offices__read", &json!({})));
    models.queue(Answer::text("I have read it."));
    let running = start(&models, vec![desk.server("offices")]).await;
    let client = &running.client;
    let stands = async || client.get_json("/api/v1/mcp").await["servers"].take();
    let idle = json!([{
        "name": "offices", "state": "idle", "calls": 0, "failures": 0, "connections": 0,
        "notes": [],
    }]);
    assert_eq!(stands().await, idle);

    let chat = client.create_chat("Read it.").await;
    client.chat_in(&chat, "waiting").await;
    let history = [
        "user: Read it.",
        "assistant: offices__read{}",
        "tool: = \"read\" is done",
        "assistant: I have read it.",
    ];
    assert_eq!(told(client, &chat).await, history);
    let asked = soon(models.nth(1)).await.unwrap();
    let offered = asked.tool_names();
    assert!(offered.contains(&"offices__read") && offered.contains(&"offices__pay"), "{offered:?}");
    let server = stands().await[0].take();
    let fields = ["state", "tools", "calls", "failures", "connections"];
    let connected = [json!("connected"), json!(2), json!(1), json!(0), json!(1)];
    assert_eq!(fields.map(|field| server[field].clone()), connected);
    let metrics = client.get("/metrics").await.text().await.unwrap();
    for line in [
        "musterbeat_mcp_calls_total{server=\"offices\"} 1",
        "musterbeat_mcp_connections_total{server=\"offices\"} 1",
        "musterbeat_mcp_connected{server=\"offices\"} 1",
        "musterbeat_mcp_tools{server=\"offices\"} 2",
    ] {
        assert!(metrics.lines().any(|shown| shown == line), "{line}");
    }
    running.stop().await;
}

#[tokio::test]
async fn server_that_is_away_costs_a_turn_its_tools_and_nothing_else() {
    let models = FakeModels::start().await.unwrap();
    models.queue(Answer::text("Without tools, then."));
    // Bound so that nobody else takes the port, and nobody listens.
    let closed = TcpSocket::new_v4().unwrap();
    closed.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let url = format!("http://{}/mcp", closed.local_addr().unwrap());
    let table = json!({ "name": "away", "url": url, "allow": ["*"] });
    let running = start(&models, vec![serde_json::from_value(table).unwrap()]).await;
    let client = &running.client;
    let chat = client.create_chat("Read it.").await;
    client.chat_in(&chat, "waiting").await;
    assert_eq!(told(client, &chat).await[1], "assistant: Without tools, then.");
    let server = client.get_json("/api/v1/mcp").await["servers"][0].take();
    assert_eq!((&server["state"], &server["connections"]), (&json!("failed"), &json!(0)));
    assert!(server["error"].is_string() && server["retry_in_seconds"].is_u64(), "{server}");
    running.stop().await;
}

#[tokio::test]
async fn interrupted_call_is_answered_so_and_the_next_prompt_has_none_open() {
    let (models, desk) = (FakeModels::start().await.unwrap(), Desk::start().await);
    models.queue(
        Answer::new().call("desk__read", &json!({})).call("desk__pay", &json!({ "sum": 7 })),
    );
    models.queue(Answer::text("I did not pay."));
    let running = start(&models, vec![desk.server("desk")]).await;
    let client = &running.client;
    let chat = client.create_chat("Read and pay.").await;
    desk.is_paid(1).await;
    client.post(&format!("/api/v1/chats/{chat}/interrupt"), &json!(null)).await;
    client.chat_in(&chat, "waiting").await;
    let before = told(client, &chat).await;
    assert_eq!(before[1], r#"assistant: desk__read{} | desk__pay{"sum":7}"#);
    let results = before[2..].join(" ").replace("tool: ", "");
    assert!(results.contains("! interrupted"), "{before:?}");

    client.send(&chat, "What did you do?").await;
    client.chat_in(&chat, "waiting").await;
    let asked = soon(models.nth(2)).await.unwrap();
    let mut open: Vec<_> = vec![];
    for message in &asked.messages {
        let calls = message["tool_calls"].as_array().into_iter().flatten();
        open.extend(calls.map(|call| call["id"].clone()));
        open.retain(|call| *call != message["tool_call_id"]);
    }
    assert!(open.is_empty(), "{:?}", asked.messages);
    assert_eq!(asked.last_said("tool"), "Error: interrupted");
    assert_eq!(desk.paid(), 1);
    desk.let_pay();
    running.stop().await;
}
