//! Subagents: tools by which a chat has children work for it.
//!
//! A child is a chat of its own: it inherits owner, workspace and model, works on any replica and
//! is seen by its owner. Its parent waits for it by notices, and takes the wait up again after a
//! takeover.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use musterbeat_core::chat::{Report, Title, WhenBusy};
use musterbeat_core::id::ChatId;
use musterbeat_core::message::Content;
use musterbeat_core::port::{AwaitError, ChatTurn, Halt, KinError, NewChild};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::metrics::{AtWork, Work};
use crate::tool::{Conduct, Repeat, Tool, ToolCall, ToolContext, ToolError, ToolSpec, Toolkit};

/// Longest wait for a child: who needs more waits again.
const WAIT_MAX: Duration = Duration::from_hours(1);

/// How long a call may take beyond the wait that it asks for.
const WAIT_SLACK: Duration = Duration::from_mins(1);

/// Offers the tools to chats that may have children.
#[derive(Clone, Copy, Debug, Default)]
pub struct Subagents;

#[async_trait]
impl Toolkit for Subagents {
    async fn open(&self, turn: &ChatTurn) -> Vec<Arc<dyn Tool>> {
        if !turn.may_spawn {
            return vec![];
        }
        let tools =
            [Deed::Spawn, Deed::Wait, Deed::Message, Deed::Interrupt, Deed::Close, Deed::List];
        tools.into_iter().map(|deed| Arc::new(deed) as Arc<dyn Tool>).collect()
    }
}

/// What a chat does with its children.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Spawn,
    Wait,
    Message,
    Interrupt,
    Close,
    List,
}

#[async_trait]
impl Tool for Deed {
    fn spec(&self) -> ToolSpec {
        let Described { name, description, properties, required } = self.described();
        ToolSpec {
            name: name.to_owned(),
            description: description.to_owned(),
            input: json!({
                "type": "object", "properties": properties, "required": required,
                "additionalProperties": false,
            }),
        }
    }

    fn conduct(&self) -> Conduct {
        let repeat = match self {
            Self::Spawn | Self::Wait => Repeat::Same,
            Self::Message => Repeat::Never,
            Self::Interrupt | Self::Close | Self::List => Repeat::Anew,
        };
        let timeout = matches!(self, Self::Wait).then_some(WAIT_MAX + WAIT_SLACK);
        Conduct { repeat, timeout, ..Conduct::default() }
    }

    async fn call(&self, call: ToolCall, context: &ToolContext) -> Result<String, ToolError> {
        let answer = match self {
            Self::Spawn => spawn(&call.id, read(call.input)?, context).await?,
            Self::Wait => wait(read(call.input)?, context).await?,
            Self::Message => message(read(call.input)?, context).await?,
            Self::Interrupt => halt(read(call.input)?, Halt::Turn, context).await?,
            Self::Close => halt(read(call.input)?, Halt::Everything, context).await?,
            Self::List => list(context).await?,
        };
        Ok(answer.to_string())
    }
}

/// What models are told of a deed.
struct Described {
    name: &'static str,
    description: &'static str,
    properties: Value,
    required: &'static [&'static str],
}

impl Described {
    fn new(
        name: &'static str,
        description: &'static str,
        properties: Value,
        required: &'static [&'static str],
    ) -> Self {
        Self { name, description, properties, required }
    }
}

impl Deed {
    fn described(self) -> Described {
        let chat = || json!({ "type": "string", "description": "The chat_id of the subagent." });
        match self {
            Self::Spawn => Described::new(
                "spawn_agent",
                "Starts a subagent that works on a task of its own while you go on. It sees \
                 nothing of this conversation: tell it all that it needs. Returns its chat_id; \
                 wait_agent gives its report.",
                json!({
                    "prompt": { "type": "string", "description": "The whole task." },
                    "title": { "type": "string", "description": "A few words for the list." },
                }),
                &["prompt"],
            ),
            Self::Wait => Described::new(
                "wait_agent",
                "Waits until a subagent has finished and returns its report. With timed_out it \
                 still works: wait again. Wait for several by several calls at once.",
                json!({
                    "chat_id": chat(),
                    "timeout_seconds": {
                        "type": "integer", "minimum": 0, "maximum": WAIT_MAX.as_secs(),
                        "description": "How long to wait at most; 0 or nothing for 5 minutes.",
                    },
                }),
                &["chat_id"],
            ),
            Self::Message => Described::new(
                "message_agent",
                "Sends a further message to a subagent. It waits until the subagent has finished \
                 what it does, unless interrupt is set.",
                json!({
                    "chat_id": chat(),
                    "message": { "type": "string", "description": "What to tell it." },
                    "interrupt": { "type": "boolean", "description": "Stops what it does first." },
                }),
                &["chat_id", "message"],
            ),
            Self::Interrupt => Described::new(
                "interrupt_agent",
                "Stops what a subagent does; messages that wait for it come next.",
                json!({ "chat_id": chat() }),
                &["chat_id"],
            ),
            Self::Close => Described::new(
                "close_agent",
                "Stops a subagent and drops the messages that wait for it.",
                json!({ "chat_id": chat() }),
                &["chat_id"],
            ),
            Self::List => Described::new(
                "list_agents",
                "Lists the subagents of this conversation and how they stand.",
                json!({}),
                &[],
            ),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Spawn {
    prompt: String,
    title: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wait {
    chat_id: Uuid,
    timeout_seconds: Option<u64>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ToldMessage {
    chat_id: Uuid,
    message: String,
    #[serde(default)]
    interrupt: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    chat_id: Uuid,
}

fn read<T: DeserializeOwned>(input: Value) -> Result<T, ToolError> {
    serde_json::from_value(input).map_err(|error| ToolError(format!("the input is wrong: {error}")))
}

async fn spawn(call: &str, wish: Spawn, context: &ToolContext) -> Result<Value, ToolError> {
    let title = wish.title.filter(|title| !title.trim().is_empty());
    let title = title.map_or_else(|| Ok(Title::of_question(&wish.prompt)), Title::new);
    let title = title.map_err(|invalid| ToolError(invalid.to_string()))?;
    let content = Content::text(wish.prompt);
    let content = content.map_err(|invalid| ToolError(invalid.within("prompt").to_string()))?;
    let id = child_id(context.chat, call);
    let child = NewChild { id, title: title.clone(), content };
    context.run.spawn(child).await.map_err(unreached)?;
    Ok(json!({ "chat_id": id.uuid(), "title": title.as_str(), "status": "pending" }))
}

/// Names the child that a call wishes: the same for the same call, so that it is made once.
fn child_id(parent: ChatId, call: &str) -> ChatId {
    ChatId::new(Uuid::new_v5(&parent.uuid(), call.as_bytes()))
}

async fn wait(wish: Wait, context: &ToolContext) -> Result<Value, ToolError> {
    let timeout = wish.timeout_seconds.map(Duration::from_secs);
    let timeout = timeout.filter(|timeout| !timeout.is_zero()).map(|timeout| timeout.min(WAIT_MAX));
    let _waits = AtWork::at(Work::Waiting);
    match context.run.await_chat(ChatId::new(wish.chat_id), timeout).await {
        Ok(report) => Ok(reported(&report)),
        Err(AwaitError::NotFound) => Err(unreached(KinError::NotFound)),
        Err(error) => Err(ToolError(error.to_string())),
    }
}

fn reported(report: &Report) -> Value {
    let mut told = json!({ "chat_id": report.chat.uuid(), "status": report.status.to_string() });
    if !report.is_at_rest() {
        told["timed_out"] = true.into();
        return told;
    }
    if let Some(error) = &report.error {
        told["error"] = error.as_str().into();
    }
    told["report"] = report.text.as_deref().into();
    told
}

async fn message(wish: ToldMessage, context: &ToolContext) -> Result<Value, ToolError> {
    let content = Content::text(wish.message);
    let content = content.map_err(|invalid| ToolError(invalid.within("message").to_string()))?;
    let when_busy = if wish.interrupt { WhenBusy::Interrupt } else { WhenBusy::Queue };
    let chat = ChatId::new(wish.chat_id);
    let queued = context.run.send(chat, content, when_busy).await.map_err(unreached)?;
    Ok(json!({ "chat_id": wish.chat_id, "queued": queued }))
}

async fn halt(wish: Named, halt: Halt, context: &ToolContext) -> Result<Value, ToolError> {
    context.run.halt(ChatId::new(wish.chat_id), halt).await.map_err(unreached)?;
    Ok(json!({ "chat_id": wish.chat_id, "stopped": true }))
}

async fn list(context: &ToolContext) -> Result<Value, ToolError> {
    let children = context.run.children().await.map_err(unreached)?;
    let shown = children.iter().map(|child| {
        json!({
            "chat_id": child.id.uuid(), "title": child.title, "status": child.status.to_string(),
        })
    });
    Ok(json!({ "agents": shown.collect::<Vec<_>>() }))
}

#[expect(clippy::needless_pass_by_value, reason = "it maps errors")]
fn unreached(error: KinError) -> ToolError {
    ToolError(error.to_string())
}
