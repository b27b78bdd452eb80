//! An MCP server whose tools show what a client does.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, JsonObject,
    ListToolsResult, PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool,
    ToolAnnotations,
};
use rmcp::service::RequestContext;
use rmcp::{ErrorData, RoleServer, ServerHandler};
use serde_json::{Value, json};
use tokio::sync::Barrier;

/// Tools that do what their names say; all but the first few take nothing.
const TOOLS: [&str; 14] = [
    "echo",
    "set",
    "meet",
    "fail",
    "refuse",
    "environment",
    "process",
    "breed",
    "hang",
    "cancelled",
    "die",
    "flood",
    "learn",
    "read a/file",
];

/// The server; its sessions share what its clones share.
#[derive(Clone)]
pub(crate) struct Echo {
    /// Where calls of `meet` wait for each other.
    meeting: Arc<Barrier>,
    has_learnt: Arc<AtomicBool>,
    hanging: Arc<AtomicUsize>,
    cancelled: Arc<AtomicUsize>,
}

impl Default for Echo {
    fn default() -> Self {
        Self {
            meeting: Arc::new(Barrier::new(2)),
            has_learnt: Arc::default(),
            hanging: Arc::default(),
            cancelled: Arc::default(),
        }
    }
}

impl Echo {
    async fn answer(
        &self,
        tool: &str,
        input: &JsonObject,
        context: &RequestContext<RoleServer>,
    ) -> Result<CallToolResult, ErrorData> {
        let text = match tool {
            "echo" => input["text"].as_str().unwrap_or_default().to_owned(),
            "meet" => {
                self.meeting.wait().await;
                "met".to_owned()
            }
            "fail" => return Ok(CallToolResult::error(vec![ContentBlock::text("no such file")])),
            "refuse" => return Err(ErrorData::invalid_params("not like this", None)),
            "environment" => {
                let names =
                    std::env::vars_os().map(|(name, _)| name.to_string_lossy().into_owned());
                json!(names.collect::<Vec<_>>()).to_string()
            }
            "process" => std::process::id().to_string(),
            "breed" => breed(),
            "hang" => {
                self.hanging.fetch_add(1, Ordering::Relaxed);
                context.ct.cancelled().await;
                self.cancelled.fetch_add(1, Ordering::Relaxed);
                "cancelled".to_owned()
            }
            "cancelled" => {
                let counts = [&self.hanging, &self.cancelled];
                counts.map(|count| count.load(Ordering::Relaxed).to_string()).join(" ")
            }
            "die" => std::process::exit(3),
            "flood" => "x".repeat(9 * 1024 * 1024),
            "learn" => {
                self.has_learnt.store(true, Ordering::Relaxed);
                context.peer.notify_tool_list_changed().await.expect("the client listens");
                "learnt".to_owned()
            }
            other => format!("{other} was called"),
        };
        Ok(CallToolResult::success(vec![ContentBlock::text(text)]))
    }
}

impl ServerHandler for Echo {
    fn get_info(&self) -> ServerConfig {
        let tools = ServerCapabilities::builder().enable_tools().enable_tool_list_changed();
        ServerConfig::new(tools.build())
    }

    /// Two pages: what everybody has, then what only some clients can use.
    async fn list_tools(
        &self,
        request: Option<PaginatedRequestParams>,
        _context: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        if request.and_then(|page| page.cursor).is_none() {
            let mut page = ListToolsResult::with_all_items(TOOLS.map(tool).to_vec());
            page.next_cursor = Some("rest".to_owned());
            return Ok(page);
        }
        let long = json!({"type": "object", "description": "x".repeat(100_000)});
        let mut rest = vec![with_schema("huge", &long)];
        if self.has_learnt.load(Ordering::Relaxed) {
            rest.push(tool("learnt"));
        }
        Ok(ListToolsResult::with_all_items(rest))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let input = request.arguments.unwrap_or_default();
        self.answer(&request.name, &input, &context).await.map(Into::into)
    }
}

fn tool(name: &'static str) -> Tool {
    let tool = with_schema(name, &json!({"type": "object"}));
    match name {
        "echo" => tool.with_annotations(ToolAnnotations::new().read_only(true)),
        "set" => tool.with_annotations(ToolAnnotations::new().idempotent(true)),
        _ => tool,
    }
}

fn with_schema(name: &'static str, schema: &Value) -> Tool {
    let schema = schema.as_object().cloned().unwrap_or_default();
    Tool::new(name, format!("The tool {name}."), schema)
}

/// Starts a process that would live for long, and returns its number.
fn breed() -> String {
    let mut sleeper = std::process::Command::new("sleep");
    sleeper.arg("600").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // Nobody waits for it: whoever ends the group ends it too.
    sleeper.spawn().map_or_else(|error| error.to_string(), |child| child.id().to_string())
}
