//! An answer as it comes, in our words.

use std::collections::{HashMap, VecDeque};

use futures_util::{Stream, StreamExt, stream};
use genai::chat::{ChatStream, ChatStreamEvent, ContentPart, StopReason, StreamEnd, ToolCall};
use musterbeat_core::message::{PRODUCED_BYTES_MAX, Usage};
use serde_json::{Map, Value};
use tracing::instrument::WithSubscriber;
use tracing::subscriber::NoSubscriber;

use crate::error::{ErrorKind, ModelError};
use crate::model::{Call, Delta, End};

use super::Provider;
use super::config::Dialect;
use super::failure::{Failure, Phase};
use super::prompt::REDACTED;
use super::seal;

/// An answer under way.
pub(super) struct Answer {
    provider: Provider,
    events: ChatStream,
    context_limit: Option<u32>,
    /// What the last event brought, to be handed on one by one.
    ready: VecDeque<Delta>,
    has_ended: bool,
    thoughts: String,
    /// INVARIANT: bytes of everything that came, the calls' among them; never much more than
    /// [`PRODUCED_BYTES_MAX`].
    bytes: usize,
    /// Bytes of each call so far: their pieces come with all that came before them.
    calls: HashMap<String, usize>,
}

impl Answer {
    pub(super) fn new(provider: Provider, events: ChatStream, context_limit: Option<u32>) -> Self {
        Self {
            provider,
            events,
            context_limit,
            ready: VecDeque::new(),
            has_ended: false,
            thoughts: String::new(),
            bytes: 0,
            calls: HashMap::new(),
        }
    }

    pub(super) fn into_stream(self) -> impl Stream<Item = Result<Delta, ModelError>> {
        stream::unfold(self, |mut answer| async move {
            let delta = answer.next().await.transpose()?;
            answer.has_ended |= delta.is_err();
            Some((delta, answer))
        })
    }

    async fn next(&mut self) -> Result<Option<Delta>, ModelError> {
        while self.ready.is_empty() && !self.has_ended {
            // Dropping it in the middle loses nothing: it holds no event.
            let event = self.events.next().with_subscriber(NoSubscriber::new()).await;
            let Some(event) = event else { return Err(self.cut_off()) };
            let event =
                event.map_err(|error| self.provider.failed(Failure::of(error, Phase::Answer)))?;
            self.take(event)?;
        }
        Ok(self.ready.pop_front())
    }

    fn take(&mut self, event: ChatStreamEvent) -> Result<(), ModelError> {
        match event {
            ChatStreamEvent::Chunk(chunk) => {
                self.count(chunk.content.len())?;
                if !chunk.content.is_empty() {
                    self.ready.push_back(Delta::Text(chunk.content));
                }
            }
            ChatStreamEvent::ReasoningChunk(chunk) => {
                self.count(chunk.content.len())?;
                if !chunk.content.is_empty() {
                    self.thoughts.push_str(&chunk.content);
                    self.ready.push_back(Delta::Reasoning(chunk.content));
                }
            }
            ChatStreamEvent::ThoughtSignatureChunk(chunk) => self.count(chunk.content.len())?,
            ChatStreamEvent::ToolCallChunk(chunk) => {
                self.count_call(&chunk.tool_call)?;
                self.ready.push_back(Delta::Writing);
            }
            ChatStreamEvent::Start | ChatStreamEvent::Heartbeat => {}
            ChatStreamEvent::End(end) => self.finish(end)?,
        }
        Ok(())
    }

    fn count(&mut self, bytes: usize) -> Result<(), ModelError> {
        self.bytes += bytes;
        if self.bytes <= PRODUCED_BYTES_MAX {
            return Ok(());
        }
        Err(ModelError {
            kind: ErrorKind::Other,
            provider: self.provider.0.name.clone(),
            message: format!(
                "the answer has more than {PRODUCED_BYTES_MAX} bytes, which cannot be stored: ask for less at once"
            ),
            status: None,
            retry_after: None,
        })
    }

    fn count_call(&mut self, call: &ToolCall) -> Result<(), ModelError> {
        let input = call
            .fn_arguments
            .as_str()
            .map_or_else(|| call.fn_arguments.to_string().len(), str::len);
        let bytes = call.call_id.len() + call.fn_name.len() + input;
        let before = self.calls.insert(call.call_id.clone(), bytes).unwrap_or_default();
        self.count(bytes.saturating_sub(before))
    }

    fn finish(&mut self, end: StreamEnd) -> Result<(), ModelError> {
        let reason = end.captured_stop_reason;
        if reason.is_none() && self.makes_ends_up() {
            return Err(self.cut_off());
        }
        let is_cut = reason.as_ref().is_some_and(StopReason::is_max_tokens);
        let (mut calls, mut thoughts) = (Vec::new(), Vec::new());
        for part in end.captured_content.into_iter().flatten() {
            match part {
                ContentPart::ToolCall(call) => calls.push(call),
                part => thoughts.push(part),
            }
        }
        let is_mute = self.bytes == 0 && calls.is_empty();
        if let Some(StopReason::ContentFilter(reason)) = reason
            && is_mute
        {
            let text = format!("its filter withheld the answer: {reason}");
            return Err(self.provider.failed(Failure::said(text)));
        }
        self.has_ended = true;
        self.ready.extend(whole(&calls, is_cut).into_iter().map(Delta::Call));
        let usage = end.captured_usage.map(|told| usage(&told)).unwrap_or_default();
        let usage = Usage { context_limit: self.context_limit.map(i64::from), ..usage };
        let signed = self.signed(thoughts);
        self.ready.push_back(Delta::End(End { usage, is_cut, signed }));
        Ok(())
    }

    /// Says whether genai tells of an end in these dialects when the connection just ends.
    fn makes_ends_up(&self) -> bool {
        let dialect = self.provider.0.kind.dialect();
        matches!(dialect, Dialect::Gemini | Dialect::Ollama | Dialect::Responses)
    }

    /// Returns the thoughts that the provider wants back.
    fn signed(&mut self, parts: Vec<ContentPart>) -> Vec<(String, String)> {
        let (name, kind) = (self.provider.0.name.as_str(), self.provider.0.kind);
        let mut signed: Vec<(String, String)> = Vec::new();
        for part in parts {
            match part {
                ContentPart::ThoughtSignature(signature) => {
                    signed.push((String::new(), seal::seal(name, &signature)));
                }
                // It follows its signature.
                ContentPart::ReasoningContent(text) => {
                    if let Some((told, _)) = signed.last_mut() {
                        *told = text;
                    }
                }
                ContentPart::Custom(block) if block.typ() == Some(REDACTED) => {
                    signed.push((String::new(), seal::seal(name, &block.data.to_string())));
                }
                _ => {}
            }
        }
        let thoughts = std::mem::take(&mut self.thoughts);
        match kind.dialect() {
            // Their signatures do not say which thought they are of.
            Dialect::Gemini | Dialect::Responses => {
                if let Some((told, _)) = signed.first_mut() {
                    *told = thoughts;
                }
            }
            _ if kind.wants_thoughts() && !thoughts.is_empty() => {
                signed.push((thoughts, seal::seal(name, "")));
            }
            _ => {}
        }
        signed
    }

    fn cut_off(&self) -> ModelError {
        self.provider.failed(Failure::cut_off())
    }
}

/// Returns calls whose input is read, or a text where it is no JSON.
fn whole(calls: &[ToolCall], is_cut: bool) -> Vec<Call> {
    let count = calls.len();
    let mut whole = Vec::with_capacity(count);
    for (index, call) in calls.iter().enumerate() {
        // Where a provider counts its calls from 1, genai fills the gap with a copy of the first.
        let is_filler = call.fn_arguments.is_string()
            && !call.call_id.is_empty()
            && calls[index + 1..].iter().any(|later| later.call_id == call.call_id);
        if is_filler {
            continue;
        }
        let is_last = index + 1 == count;
        let input = match &call.fn_arguments {
            Value::Null => Value::Object(Map::new()),
            // The last call of an answer that was cut may have lost its input.
            Value::String(text) if text.trim().is_empty() && !(is_cut && is_last) => {
                Value::Object(Map::new())
            }
            input => input.clone(),
        };
        whole.push(Call { name: call.fn_name.clone(), input });
    }
    whole
}

/// Counts what was read from the cache, or put into it, apart from the rest of what was read.
fn usage(told: &genai::chat::Usage) -> Usage {
    let tokens = |tokens: Option<i32>| tokens.map(i64::from);
    let read = told.prompt_tokens_details.as_ref();
    let cache_read_tokens = tokens(read.and_then(|read| read.cached_tokens));
    let cache_creation_tokens = tokens(read.and_then(|read| read.cache_creation_tokens));
    let cached = cache_read_tokens.unwrap_or_default() + cache_creation_tokens.unwrap_or_default();
    let written = told.completion_tokens_details.as_ref();
    Usage {
        input_tokens: tokens(told.prompt_tokens).map(|read| (read - cached).max(0)),
        output_tokens: tokens(told.completion_tokens),
        total_tokens: tokens(told.total_tokens),
        reasoning_tokens: tokens(written.and_then(|written| written.reasoning_tokens)),
        cache_creation_tokens,
        cache_read_tokens,
        context_limit: None,
    }
}
