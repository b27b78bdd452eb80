//! Summaries: what stands for a history that has grown too long for its model.
//!
//! A summary is three rows. One is for the model only and marked as compressed: prompts begin at
//! the newest such row. The other two show the user that there was a summary, and what it says.

use std::sync::Arc;
use std::time::Duration;

use musterbeat_core::message::{
    Content, Model as ModelName, NewMessage, Part, Role, Usage, Visibility,
};
use musterbeat_core::model_config::{COMPACT_AT, ModelConfig};
use musterbeat_core::port::RunContext;
use serde_json::{Value, json};

use crate::answer::call_id;
use crate::ask::{Manner, Unanswered, ask};
use crate::error::{ErrorKind, ModelError};
use crate::history::History;
use crate::model::{Chosen, Request, Said};

/// What followers see called when a history is summarised; no model can call it.
pub(crate) const SUMMARISED: &str = "chat_summarized";

/// How often a history that is too long to be summarised is cut in half.
const HALVINGS_MAX: usize = 4;

/// Bytes of an open question that are kept word for word, at most.
const QUESTION_BYTES_MAX: usize = 32 * 1024;

const INSTRUCTION: &str = "Summarise this conversation, so that it can be continued from your \
    summary alone. Keep what the user wants, what was decided and why, what was done and what \
    came of it, names, numbers, paths and identifiers that matter, and what is still to be done. \
    Answer with the summary only and call no tools.";

const INTRODUCTION: &str = "Summary of the conversation so far:";

const OPEN_QUESTION: &str = "The user's last request, word for word, which is being worked on:";

/// Why a history is summarised.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Occasion {
    /// Its user wishes it.
    ByHand,
    /// The model refused it for its length.
    TooLong,
    /// It takes a large share of the model's window.
    Grown {
        /// Tokens that it takes.
        tokens: i64,
        /// Tokens that the window holds.
        limit: u32,
    },
}

impl Occasion {
    /// Says whether a history that took `usage` is to be summarised.
    pub(crate) fn of(config: &ModelConfig, usage: Usage) -> Option<Self> {
        let limit = config.context_limit?;
        let threshold = config.compact_at.unwrap_or(COMPACT_AT);
        let cached = [usage.cache_read_tokens, usage.cache_creation_tokens];
        let cached: i64 = cached.into_iter().flatten().sum();
        let tokens = usage.input_tokens.map(|read| read + cached).or(usage.total_tokens)?;
        let grown = tokens.saturating_mul(100) >= i64::from(limit) * i64::from(threshold);
        (threshold < 100 && grown).then_some(Self::Grown { tokens, limit })
    }

    fn described(self, config: &ModelConfig) -> Value {
        match self {
            Self::ByHand => json!({ "occasion": "by_hand" }),
            Self::TooLong => {
                json!({ "occasion": "too_long", "context_limit": config.context_limit })
            }
            Self::Grown { tokens, limit } => json!({
                "occasion": "grown",
                "context_tokens": tokens,
                "context_limit": limit,
                "percent": percent(tokens, limit),
                "threshold_percent": config.compact_at.unwrap_or(COMPACT_AT),
            }),
        }
    }
}

/// Returns a share in percent, to one decimal.
fn percent(tokens: i64, limit: u32) -> f64 {
    let tenths = tokens.saturating_mul(1_000) / i64::from(limit.max(1));
    f64::from(i32::try_from(tenths).unwrap_or(i32::MAX)) / 10.0
}

/// There is no summary.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unsummarised {
    /// The run has to stop.
    #[error("the run was stopped")]
    Stopped,
    /// The model failed.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// It said nothing.
    #[error("the model answered with no summary")]
    Empty,
    /// It took too long.
    #[error("the summary took longer than {0:?}")]
    TimedOut(Duration),
}

/// Asks for a summary; of a history that is too long even for that, its later part is summarised.
pub(crate) async fn summarise(
    chosen: &Chosen,
    request: Request,
    history: &History,
    manner: Manner<'_>,
    run: &dyn RunContext,
) -> Result<String, Unsummarised> {
    let instruction = Arc::new(Said { role: Role::User, content: Content::produced(INSTRUCTION) });
    let mut history = history.clone();
    let mut halvings = 0;
    loop {
        let messages = history.messages().iter().cloned().chain([Arc::clone(&instruction)]);
        let request = Request { messages: messages.collect(), ..request.clone() };
        match ask(chosen, request, manner, run).await {
            Ok(answer) if answer.text().trim().is_empty() => return Err(Unsummarised::Empty),
            Ok(answer) => return Ok(answer.text().to_owned()),
            Err(Unanswered::Stopped(_)) => return Err(Unsummarised::Stopped),
            Err(Unanswered::Failed(error))
                if error.kind == ErrorKind::ContextLength && halvings < HALVINGS_MAX =>
            {
                halvings += 1;
                history = history.later_half();
            }
            Err(Unanswered::Failed(error)) => return Err(error.into()),
        }
    }
}

/// A summary on its way into the history.
pub(crate) struct Summary {
    id: String,
    input: Value,
}

impl Summary {
    pub(crate) fn begin(occasion: Occasion, config: &ModelConfig) -> Self {
        Self { id: call_id(), input: occasion.described(config) }
    }

    /// Returns what followers see when it begins.
    pub(crate) fn call(&self) -> Part {
        let (id, input) = (self.id.clone(), self.input.clone());
        Part::ToolCall { id, name: SUMMARISED.to_owned(), input }
    }

    /// Returns what followers see when it is done.
    pub(crate) fn result(&self, text: &str) -> Part {
        Part::ToolResult { id: self.id.clone(), output: text.to_owned(), is_error: false }
    }

    /// Returns what followers see when there is none.
    pub(crate) fn failed(&self, error: &Unsummarised) -> Part {
        let output = format!("the history was not summarised: {error}");
        Part::ToolResult { id: self.id.clone(), output, is_error: true }
    }

    /// Returns the rows that store it; `open` is what the user asked and has no answer to.
    ///
    /// The first is the one that the model sees.
    pub(crate) fn rows(
        &self,
        text: &str,
        open: Option<&str>,
        model: Option<&ModelName>,
    ) -> Vec<NewMessage> {
        let row = |role, visibility, content| NewMessage {
            role,
            visibility,
            compressed: true,
            ..NewMessage::answer(content, model.cloned())
        };
        let shown = |part| Content::produced_parts(vec![part]).unwrap_or_else(|_| empty());
        vec![
            row(Role::User, Visibility::Model, content(text, open)),
            row(Role::Assistant, Visibility::User, shown(self.call())),
            row(Role::Tool, Visibility::Both, shown(self.result(text))),
        ]
    }

    /// Returns the rows that tell the user, and nobody else, that there is none.
    pub(crate) fn failed_rows(&self, error: &Unsummarised) -> Vec<NewMessage> {
        let row = |role, part| NewMessage {
            role,
            visibility: Visibility::User,
            ..NewMessage::answer(
                Content::produced_parts(vec![part]).unwrap_or_else(|_| empty()),
                None,
            )
        };
        vec![row(Role::Assistant, self.call()), row(Role::Tool, self.failed(error))]
    }
}

/// Returns what the model is told in the place of the history.
fn content(text: &str, open: Option<&str>) -> Content {
    let told = match open {
        None => format!("{INTRODUCTION}\n\n{text}"),
        Some(question) => {
            let kept = &question[..question.floor_char_boundary(QUESTION_BYTES_MAX)];
            format!("{INTRODUCTION}\n\n{text}\n\n{OPEN_QUESTION}\n\n{kept}")
        }
    };
    Content::produced(&told)
}

fn empty() -> Content {
    Content::produced("")
}
