//! What tests of MCP servers stand on.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use musterbeat_core::chat::{Chat, Report, WhenBusy};
use musterbeat_core::id::{ChatId, OwnerId, Step};
use musterbeat_core::message::{Content, NewMessage};
use musterbeat_core::port::{
    AwaitError, ChatContext, ChatTurn, Halt, KinError, NewChild, RunContext, StepError,
};
use musterbeat_core::run::StopCause;
use musterbeat_testkit::eventually;
use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::mcp::{Allow, McpHealth, McpProgram, McpServer, McpState, McpToolkit, McpTransport};
use crate::tool::{Tool, ToolCall, ToolContext, ToolError, Toolkit};

/// Longest wait for a state; none takes nearly as long.
pub(super) const PATIENCE: Duration = Duration::from_mins(1);

pub(super) type Tools = Vec<Arc<dyn Tool>>;

/// Returns the example of this crate that is an MCP server.
pub(super) fn echo() -> McpServer {
    program("echo", example(), &[])
}

pub(super) fn program(name: &str, command: PathBuf, args: &[&str]) -> McpServer {
    let program = McpProgram {
        command,
        args: args.iter().map(ToString::to_string).collect(),
        env: [].into(),
        inherit: Vec::new(),
    };
    McpServer::new(name, McpTransport::Program(program), Allow::all())
}

/// Finds the example beside this test: cargo builds both.
fn example() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().and_then(|deps| deps.parent()).unwrap();
    let example = profile.join("examples/mcp_echo");
    assert!(example.exists(), "build {} by `cargo test` without `--lib`", example.display());
    example
}

pub(super) fn toolkit(servers: Vec<McpServer>) -> McpToolkit {
    McpToolkit::new(servers).unwrap()
}

pub(super) async fn open(toolkit: &McpToolkit) -> Tools {
    let turn = ChatTurn {
        chat: ChatId::new(Uuid::nil()),
        owner: OwnerId::new(Uuid::nil()),
        depth: 0,
        may_spawn: false,
        model: None,
        prompt: Vec::new(),
    };
    toolkit.open(&turn).await
}

/// Opens until there are tools.
pub(super) async fn open_again(toolkit: &McpToolkit) -> Tools {
    let mut tools = Vec::new();
    eventually(PATIENCE, "the server is connected again", async || {
        tools = open(toolkit).await;
        !tools.is_empty()
    })
    .await;
    tools
}

pub(super) fn names(tools: &Tools) -> Vec<String> {
    tools.iter().map(|tool| tool.spec().name).collect()
}

/// Calls the tool of the echo that is called `name`.
pub(super) async fn call(tools: &Tools, name: &str, input: Value) -> Result<String, ToolError> {
    let name = format!("echo__{name}");
    let tool = tools.iter().find(|tool| tool.spec().name == name).expect("the tool is offered");
    let context = ToolContext {
        chat: ChatId::new(Uuid::nil()),
        owner: OwnerId::new(Uuid::nil()),
        run: Arc::new(Unstopped),
    };
    tool.call(ToolCall { id: "1".into(), name, input }, &context).await
}

pub(super) async fn ask(tools: &Tools, name: &str) -> String {
    call(tools, name, json!({})).await.unwrap()
}

pub(super) async fn number(tools: &Tools, name: &str) -> i32 {
    ask(tools, name).await.parse().unwrap()
}

/// Says whether a process is there, be it one that nobody has waited for.
pub(super) fn is_alive(process: i32) -> bool {
    kill(Pid::from_raw(process), None) != Err(Errno::ESRCH)
}

/// Waits until none of the processes is left.
pub(super) async fn gone(processes: &[i32]) {
    eventually(PATIENCE, "the processes are gone", async || {
        !processes.iter().any(|process| is_running(*process))
    })
    .await;
}

/// Says whether a process runs; a grandchild that has ended may wait for whoever reaps orphans.
fn is_running(process: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
    is_alive(process) && state != Some('Z')
}

pub(super) fn health(toolkit: &McpToolkit) -> McpHealth {
    toolkit.health().remove(0)
}

pub(super) fn error(health: &McpHealth) -> &str {
    match &health.state {
        McpState::Failed { error, .. } => error,
        other => panic!("the server is not away: {other:?}"),
    }
}

/// A run that nobody stops.
struct Unstopped;

#[async_trait]
impl RunContext for Unstopped {
    async fn stopped(&self) -> StopCause {
        std::future::pending().await
    }

    fn stop_cause(&self) -> Option<StopCause> {
        None
    }

    fn is_draining(&self) -> bool {
        false
    }

    fn ending(&self) {}

    fn begin(&self, _step: Step) {}

    fn part(&self, _part: Vec<u8>) {}
}

/// No tool of an MCP server meets other chats.
#[async_trait]
impl ChatContext for Unstopped {
    async fn step(&self, _messages: Vec<NewMessage>) -> Result<(), StepError> {
        unreachable!()
    }

    async fn await_chat(
        &self,
        _descendant: ChatId,
        _timeout: Option<Duration>,
    ) -> Result<Report, AwaitError> {
        unreachable!()
    }

    async fn spawn(&self, _child: NewChild) -> Result<(), KinError> {
        unreachable!()
    }

    async fn send(
        &self,
        _descendant: ChatId,
        _content: Content,
        _when_busy: WhenBusy,
    ) -> Result<bool, KinError> {
        unreachable!()
    }

    async fn halt(&self, _descendant: ChatId, _halt: Halt) -> Result<(), KinError> {
        unreachable!()
    }

    async fn children(&self) -> Result<Vec<Chat>, KinError> {
        unreachable!()
    }
}
