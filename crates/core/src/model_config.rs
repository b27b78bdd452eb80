//! How models are asked: what a chat names, and what its provider is told.

use serde::{Deserialize, Serialize};

use crate::invalid::{Invalid, check_text};
use crate::message::Model;

/// Bytes of a provider's name, and of what it calls a model, at most.
pub const NAME_BYTES_MAX: usize = 200;

/// Tokens that a limit may be, at most.
pub const TOKENS_MAX: u32 = 100_000_000;

/// Share of the context limit at which a history is summarised when nobody sets another, in
/// percent.
pub const COMPACT_AT: u8 = 70;

/// One way to ask a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// What chats call it.
    pub name: Model,
    /// Whom to ask: a provider of the settings.
    pub provider: String,
    /// What the provider calls it.
    pub model: String,
    /// How many tokens its window holds; without it nothing is summarised by itself.
    #[serde(default)]
    pub context_limit: Option<u32>,
    /// How many tokens an answer may have; the provider's choice by default.
    #[serde(default)]
    pub max_output_tokens: Option<u32>,
    /// How freely it speaks, from 0 to 2; the provider's choice by default.
    #[serde(default)]
    pub temperature: Option<f64>,
    /// How much it thinks first; the provider's choice by default.
    #[serde(default)]
    pub reasoning_effort: Option<Effort>,
    /// Share of the window, in percent, from which a history is summarised; [`COMPACT_AT`] by
    /// default, and 100 for never.
    #[serde(default)]
    pub compact_at: Option<u8>,
    /// Whether chats that name no model get this one.
    #[serde(default)]
    pub is_default: bool,
}

/// How much a model thinks before it speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effort {
    /// As little as it can.
    Minimal,
    /// Little.
    Low,
    /// Some.
    Medium,
    /// Much.
    High,
}

impl Effort {
    /// Every effort, the least first.
    pub const ALL: [Self; 4] = [Self::Minimal, Self::Low, Self::Medium, Self::High];

    /// Returns the word that storage and the wire use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Minimal => "minimal",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

impl ModelConfig {
    /// Makes one of which nothing is known but whom to ask for what.
    pub fn new(name: Model, provider: impl Into<String>, model: impl Into<String>) -> Self {
        Self {
            name,
            provider: provider.into(),
            model: model.into(),
            context_limit: None,
            max_output_tokens: None,
            temperature: None,
            reasoning_effort: None,
            compact_at: None,
            is_default: false,
        }
    }

    /// Says whether each field is within its limits.
    ///
    /// # Errors
    /// Names the first field that is not.
    pub fn check(&self) -> Result<(), Invalid> {
        check_text("provider", &self.provider, NAME_BYTES_MAX)?;
        check_text("model", &self.model, NAME_BYTES_MAX)?;
        for (field, tokens) in
            [("context_limit", self.context_limit), ("max_output_tokens", self.max_output_tokens)]
        {
            if tokens.is_some_and(|tokens| tokens == 0 || tokens > TOKENS_MAX) {
                return Err(Invalid::new(field, format!("is not from 1 to {TOKENS_MAX}")));
            }
        }
        if self.temperature.is_some_and(|temperature| !(0.0..=2.0).contains(&temperature)) {
            return Err(Invalid::new("temperature", "is not from 0 to 2"));
        }
        if self.compact_at.is_some_and(|percent| percent > 100) {
            return Err(Invalid::new("compact_at", "is not from 0 to 100"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> ModelConfig {
        ModelConfig::new(Model::new("big").unwrap(), "local", "big-1")
    }

    #[test]
    fn field_out_of_range_is_named_with_its_limits() {
        let check = |config: ModelConfig, expected: &str| {
            assert_eq!(config.check().unwrap_err().to_string(), expected);
        };
        check(ModelConfig { provider: " ".into(), ..config() }, "provider: is empty");
        check(
            ModelConfig { provider: "p".repeat(201), ..config() },
            "provider: has 201 bytes, at most 200 are allowed",
        );
        check(ModelConfig { model: "a\0b".into(), ..config() }, "model: contains a NUL character");
        for tokens in [0, TOKENS_MAX + 1] {
            check(
                ModelConfig { context_limit: Some(tokens), ..config() },
                "context_limit: is not from 1 to 100000000",
            );
            check(
                ModelConfig { max_output_tokens: Some(tokens), ..config() },
                "max_output_tokens: is not from 1 to 100000000",
            );
        }
        for temperature in [-0.1, 2.1, f64::NAN, f64::INFINITY] {
            check(
                ModelConfig { temperature: Some(temperature), ..config() },
                "temperature: is not from 0 to 2",
            );
        }
        check(
            ModelConfig { compact_at: Some(101), ..config() },
            "compact_at: is not from 0 to 100",
        );
    }

    #[test]
    fn field_at_its_limit_is_taken() {
        assert_eq!(config().check(), Ok(()));
        for (tokens, temperature, percent) in [(1, 0.0, 0), (TOKENS_MAX, 2.0, 100)] {
            let config = ModelConfig {
                provider: "p".repeat(NAME_BYTES_MAX),
                context_limit: Some(tokens),
                max_output_tokens: Some(tokens),
                temperature: Some(temperature),
                compact_at: Some(percent),
                ..config()
            };
            assert_eq!(config.check(), Ok(()));
        }
    }

    #[test]
    fn what_is_left_out_is_left_to_the_provider_and_what_is_unknown_is_refused() {
        let config: ModelConfig =
            serde_json::from_str(r#"{"name":"big","provider":"local","model":"big-1"}"#).unwrap();
        assert_eq!(config, self::config());
        let unknown = r#"{"name":"big","provider":"local","model":"big-1","temprature":1}"#;
        assert!(serde_json::from_str::<ModelConfig>(unknown).is_err());
    }

    #[test]
    fn words_of_efforts_are_those_of_the_wire() {
        for effort in Effort::ALL {
            assert_eq!(serde_json::to_value(effort).unwrap(), effort.as_str());
        }
    }
}
