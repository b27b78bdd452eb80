//! Tools: what a model may call.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use musterbeat_core::id::{ChatId, OwnerId};
use musterbeat_core::port::{ChatContext, ChatTurn};
use serde_json::Value;

/// Something that a model may call.
#[async_trait]
pub trait Tool: Send + Sync {
    /// Returns what models are told of it.
    fn spec(&self) -> ToolSpec;

    /// Returns what holds of its calls.
    fn conduct(&self) -> Conduct {
        Conduct::default()
    }

    /// Carries a call out; what it returns is for the model to read.
    ///
    /// It runs beside the other calls of its step. The future is dropped when the turn is to stop
    /// or the time is over; a panic is an error of this call only.
    async fn call(&self, call: ToolCall, context: &ToolContext) -> Result<String, ToolError>;
}

/// What a model is told of a tool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolSpec {
    /// Its name: letters, digits, `_` and `-`, at most [`NAME_BYTES_MAX`].
    pub name: String,
    /// What it does and when to call it.
    pub description: String,
    /// JSON Schema of its input, an object.
    pub input: Value,
}

/// Bytes of a tool's name, at most: providers allow no more.
pub const NAME_BYTES_MAX: usize = 64;

/// What holds of a tool's calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conduct {
    /// What becomes of a call whose worker died in the middle.
    pub repeat: Repeat,
    /// Whether it must be the only call of its step; if it is not, no call of the step is made.
    pub exclusive: bool,
    /// How long a call may take; `None` leaves it to the agent.
    pub timeout: Option<Duration>,
}

/// What becomes of a call whose worker died in the middle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Repeat {
    /// The model is asked again, and may call it again or not: it costs no write.
    #[default]
    Anew,
    /// The call is stored before it starts, and the next worker makes the very same one again:
    /// for tools that do nothing twice for one [`ToolCall::id`].
    Same,
    /// The call is stored before it starts and never made again: the model is told that its
    /// outcome is unknown.
    Never,
}

/// A call of a tool.
#[derive(Clone, Debug, PartialEq)]
pub struct ToolCall {
    /// Names the call: no other of the chat has this name, and a repeated call has the same.
    pub id: String,
    /// Which tool.
    pub name: String,
    /// With what.
    pub input: Value,
}

/// What a call is given to meet the world with.
#[derive(Clone)]
pub struct ToolContext {
    /// The chat that calls.
    pub chat: ChatId,
    /// Whose it is.
    pub owner: OwnerId,
    /// Its run. Ask [`stop_cause`](musterbeat_core::port::RunContext::stop_cause) before each
    /// side effect.
    pub run: Arc<dyn ChatContext>,
}

/// A call failed; the text is for the model to read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ToolError(pub String);

/// Offers tools to a turn.
#[async_trait]
pub trait Toolkit: Send + Sync {
    /// Returns the tools for `turn`; what they hold open ends when they are dropped.
    ///
    /// A tool that is away is left out: the turn goes on without it.
    async fn open(&self, turn: &ChatTurn) -> Vec<Arc<dyn Tool>>;
}

/// The same tools for every turn.
#[async_trait]
impl Toolkit for Vec<Arc<dyn Tool>> {
    async fn open(&self, _turn: &ChatTurn) -> Vec<Arc<dyn Tool>> {
        self.clone()
    }
}
