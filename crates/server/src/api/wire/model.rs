//! Configurations of models.

use musterbeat_core::invalid::Invalid;
use musterbeat_core::message::Model;
use musterbeat_core::model_config::{self, NAME_BYTES_MAX, TOKENS_MAX};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How a model is to be asked.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({ "provider": "default", "model": "qwen3", "context_limit": 32_768 })))]
pub(crate) struct PutModel {
    /// Whom to ask: a provider of the server's settings.
    #[schema(pattern = r"^[ -~]*[!-~][ -~]*$", max_length = 200)]
    provider: String,
    /// What the provider calls it.
    #[schema(pattern = r"^[ -~]*[!-~][ -~]*$", max_length = 200)]
    model: String,
    /// How many tokens its window holds; without it no history is summarised by itself.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 100_000_000)]
    context_limit: Option<u32>,
    /// How many tokens an answer may have; the provider's choice by default.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 100_000_000)]
    max_output_tokens: Option<u32>,
    /// How freely it speaks; the provider's choice by default.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 2)]
    temperature: Option<f64>,
    /// How much it thinks first; the provider's choice by default.
    #[serde(default)]
    #[schema(inline)]
    reasoning_effort: Option<Effort>,
    /// Share of the window, in percent, from which a history is summarised; 70 by default, and
    /// 100 for never.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 100)]
    compact_at: Option<u8>,
    /// Whether chats that name no model get this one; the last one that says so is the only one.
    #[serde(default)]
    is_default: bool,
}

const _: () = assert!(NAME_BYTES_MAX == 200 && TOKENS_MAX == 100_000_000);

/// How much a model thinks before it speaks.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Effort {
    /// As little as it can.
    Minimal,
    /// Little.
    Low,
    /// Some.
    Medium,
    /// Much.
    High,
}

impl From<Effort> for model_config::Effort {
    fn from(effort: Effort) -> Self {
        match effort {
            Effort::Minimal => Self::Minimal,
            Effort::Low => Self::Low,
            Effort::Medium => Self::Medium,
            Effort::High => Self::High,
        }
    }
}

impl From<model_config::Effort> for Effort {
    fn from(effort: model_config::Effort) -> Self {
        match effort {
            model_config::Effort::Minimal => Self::Minimal,
            model_config::Effort::Low => Self::Low,
            model_config::Effort::Medium => Self::Medium,
            model_config::Effort::High => Self::High,
        }
    }
}

impl PutModel {
    pub(crate) fn checked(self, name: Model) -> Result<model_config::ModelConfig, Invalid> {
        let config = model_config::ModelConfig {
            name,
            provider: self.provider,
            model: self.model,
            context_limit: self.context_limit,
            max_output_tokens: self.max_output_tokens,
            temperature: self.temperature,
            reasoning_effort: self.reasoning_effort.map(Effort::into),
            compact_at: self.compact_at,
            is_default: self.is_default,
        };
        config.check()?;
        Ok(config)
    }
}

/// How a model is asked.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ModelConfig {
    /// What chats call it.
    name: String,
    /// Whom the server asks.
    provider: String,
    /// What the provider calls it.
    model: String,
    /// How many tokens its window holds.
    context_limit: Option<u32>,
    /// How many tokens an answer may have.
    max_output_tokens: Option<u32>,
    /// How freely it speaks.
    temperature: Option<f64>,
    /// How much it thinks first.
    #[schema(inline)]
    reasoning_effort: Option<Effort>,
    /// Share of the window, in percent, from which a history is summarised; null for 70.
    compact_at: Option<u8>,
    /// Whether chats that name no model get this one.
    is_default: bool,
}

impl From<model_config::ModelConfig> for ModelConfig {
    fn from(config: model_config::ModelConfig) -> Self {
        Self {
            name: config.name.as_str().to_owned(),
            provider: config.provider,
            model: config.model,
            context_limit: config.context_limit,
            max_output_tokens: config.max_output_tokens,
            temperature: config.temperature,
            reasoning_effort: config.reasoning_effort.map(Effort::from),
            compact_at: config.compact_at,
            is_default: config.is_default,
        }
    }
}

/// How a server of tools stands.
#[derive(ToSchema)]
#[expect(dead_code, reason = "describes `McpHealth`, which knows nothing of OpenAPI")]
pub(crate) struct McpServer {
    /// What the settings call it.
    name: String,
    /// Whether it is connected.
    #[schema(inline)]
    state: McpState,
    /// How many of its tools are offered, while it is connected.
    #[schema(nullable = false)]
    tools: Option<u64>,
    /// For how many seconds it has been connected.
    #[schema(nullable = false)]
    for_seconds: Option<u64>,
    /// Why it is away.
    #[schema(nullable = false)]
    error: Option<String>,
    /// In how many seconds it is tried again.
    #[schema(nullable = false)]
    retry_in_seconds: Option<u64>,
    /// Calls of its tools since this replica's start.
    calls: u64,
    /// Those of them that got no answer.
    failures: u64,
    /// Connections that were made since this replica's start.
    connections: u64,
    /// What is wrong with its list of tools, or with what `allow` says of it.
    notes: Vec<String>,
}

/// Whether a server of tools is connected.
#[derive(ToSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "describes `McpState`, which knows nothing of OpenAPI")]
enum McpState {
    /// No turn has asked for it.
    Idle,
    /// It is there.
    Connected,
    /// It is away; turns go on without it.
    Failed,
}
