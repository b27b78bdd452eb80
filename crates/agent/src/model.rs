//! Models: what they are asked, and how they answer.

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::stream::BoxStream;
use musterbeat_core::message::{Content, Model as ModelName, Role, Usage};
use musterbeat_core::model_config::ModelConfig;
use serde_json::Value;

use crate::error::ModelError;
use crate::tool::ToolSpec;

/// Answers prompts, piece by piece.
pub trait Model: Send + Sync {
    /// Returns the name of its provider, for errors and metrics.
    fn provider(&self) -> &str;

    /// Asks; the call begins when the stream is first polled, and ends when it is dropped.
    ///
    /// The stream ends with [`Delta::End`] or an error. An answer that was cut off is an error.
    fn ask(&self, request: Request) -> BoxStream<'static, Result<Delta, ModelError>>;
}

/// What a model is asked.
#[derive(Clone, Debug)]
pub struct Request {
    /// Which model, and how.
    pub config: Arc<ModelConfig>,
    /// The history, oldest first; no call of a tool in it is open.
    pub messages: Vec<Arc<Said>>,
    /// What it may call.
    pub tools: Arc<[ToolSpec]>,
    /// Whether it may call anything; it is told of the tools all the same, since the history may
    /// hold calls of them.
    pub may_call: bool,
}

/// What was said in a chat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// By whom.
    pub role: Role,
    /// What.
    pub content: Content,
}

/// A piece of a model's answer.
#[derive(Clone, Debug, PartialEq)]
pub enum Delta {
    /// Words for the user.
    Text(String),
    /// Words that it thinks.
    Reasoning(String),
    /// A whole call of a tool; it comes once.
    Call(Call),
    /// A sign that a call is being written, which is not whole yet.
    Writing,
    /// The end of the answer.
    End(End),
}

/// A call of a tool, as its model made it.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// Which tool.
    pub name: String,
    /// With what; a text where the model wrote no JSON.
    pub input: Value,
}

/// How an answer ended.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct End {
    /// What it cost.
    pub usage: Usage,
    /// Whether it stopped because it may not be longer.
    pub is_cut: bool,
    /// Thoughts that the provider wants back as they were, each a text and a signature.
    ///
    /// They say the same as the pieces that came as [`Delta::Reasoning`].
    pub signed: Vec<(String, String)>,
}

/// Says which model answers a turn.
#[async_trait]
pub trait Models: Send + Sync {
    /// Returns the model of this name, or the default one without a name.
    ///
    /// # Errors
    /// An error of the configuration when there is none such.
    async fn choose(&self, name: Option<&ModelName>) -> Result<Chosen, ModelError>;
}

/// A model and how to ask it.
#[derive(Clone)]
pub struct Chosen {
    /// The model.
    pub model: Arc<dyn Model>,
    /// How.
    pub config: Arc<ModelConfig>,
}

/// One model for every turn, whatever it names.
#[async_trait]
impl Models for Chosen {
    async fn choose(&self, _name: Option<&ModelName>) -> Result<Chosen, ModelError> {
        Ok(self.clone())
    }
}
