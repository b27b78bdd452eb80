//! Agents: a [`ChatRunner`](musterbeat_core::port::ChatRunner) that asks a model step by step.
//!
//! An [`Agent`](agent::Agent) is made of three things: who says which [`Model`](model::Model)
//! answers a turn ([`Models`](model::Models)), [`Toolkit`](tool::Toolkit)s that offer tools, and
//! options. It asks, makes the calls that the model wishes, all of a step at once, stores the
//! step, and asks again, until there is an answer without calls.
//!
//! ```
//! use std::sync::Arc;
//!
//! use async_trait::async_trait;
//! use musterbeat_agent::agent::{Agent, AgentOptions};
//! use musterbeat_agent::model::Chosen;
//! use musterbeat_agent::providers::{Provider, ProviderConfig, ProviderKind};
//! use musterbeat_agent::subagents::Subagents;
//! use musterbeat_agent::tool::{Tool, ToolCall, ToolContext, ToolError, ToolSpec, Toolkit};
//! use musterbeat_core::message::Model;
//! use musterbeat_core::model_config::ModelConfig;
//!
//! struct Shout;
//!
//! #[async_trait]
//! impl Tool for Shout {
//!     fn spec(&self) -> ToolSpec {
//!         ToolSpec {
//!             name: "shout".to_owned(),
//!             description: "Says it louder.".to_owned(),
//!             input: serde_json::json!({
//!                 "type": "object",
//!                 "properties": { "text": { "type": "string" } },
//!             }),
//!         }
//!     }
//!
//!     async fn call(&self, call: ToolCall, _: &ToolContext) -> Result<String, ToolError> {
//!         Ok(call.input["text"].as_str().unwrap_or_default().to_uppercase())
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let ollama = Provider::new(ProviderConfig {
//!     name: "local".to_owned(),
//!     kind: ProviderKind::default(),
//!     base_url: Some("http://127.0.0.1:11434/v1".to_owned()),
//!     key: None,
//! })?;
//! let config = ModelConfig::new(Model::new("qwen")?, "local", "qwen3");
//! let models = Chosen { model: Arc::new(ollama), config: Arc::new(config) };
//! let shout: Vec<Arc<dyn Tool>> = vec![Arc::new(Shout)];
//! let kits: Vec<Arc<dyn Toolkit>> = vec![Arc::new(shout), Arc::new(Subagents)];
//! let agent = Agent::new(Arc::new(models), kits, AgentOptions::default());
//! # let _ = agent;
//! # Ok(())
//! # }
//! ```
//!
//! What becomes of a call whose worker died is the tool's to say: see [`Repeat`](tool::Repeat).

pub mod agent;
pub mod catalog;
pub mod error;
pub mod guard;
pub mod mcp;
pub mod metrics;
pub mod model;
pub mod providers;
pub mod retry;
pub mod subagents;
pub mod tool;

mod answer;
mod ask;
mod calls;
mod compaction;
mod history;
mod turn;
