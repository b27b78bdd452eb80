//! A request in the words of genai.

use std::sync::Arc;

use genai::chat::{
    ChatMessage, ChatOptions, ChatRequest, ChatRole, ContentPart, MessageContent, ReasoningEffort,
    Tool, ToolChoice, ToolName, ToolResponse,
};
use musterbeat_core::message::{Part, Role};
use musterbeat_core::model_config::{Effort, ModelConfig};
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::model::{Request, Said};
use crate::tool::ToolSpec;

use super::config::{Dialect, ProviderKind};
use super::seal;

/// Characters of the name of a call that Mistral takes, exactly.
const MISTRAL_ID_CHARS: usize = 9;

/// Translates a request for the provider `name`.
pub(super) fn prompt(
    request: &Request,
    kind: ProviderKind,
    name: &str,
) -> (ChatRequest, ChatOptions) {
    let translator = Translator { kind, dialect: kind.dialect(), name };
    let mut history = ChatRequest::new(translator.messages(&request.messages));
    if !request.tools.is_empty() {
        history.tools = Some(request.tools.iter().map(tool).collect());
    }
    let mut options = options(&request.config, kind.dialect());
    if !request.may_call && !request.tools.is_empty() {
        options.tool_choice = Some(ToolChoice::None);
    }
    (history, options)
}

/// Returns a name that genai sends as it is: it takes what stands before `::` off.
pub(super) fn model_name(name: &str) -> String {
    if name.contains("::") { format!("model::{name}") } else { name.to_owned() }
}

fn options(config: &ModelConfig, dialect: Dialect) -> ChatOptions {
    // Models that do not think refuse to be asked for thoughts in these dialects.
    let is_asked = matches!(dialect, Dialect::Responses | Dialect::Gemini);
    let mut options = ChatOptions::default()
        .with_capture_usage(true)
        .with_capture_tool_calls(true)
        .with_capture_reasoning_content(!is_asked || config.reasoning_effort.is_some());
    // Small models refuse more than they can.
    options.max_tokens = config.max_output_tokens;
    options.temperature = config.temperature;
    options.reasoning_effort = effort(config, dialect);
    options
}

fn effort(config: &ModelConfig, dialect: Dialect) -> Option<ReasoningEffort> {
    match config.reasoning_effort {
        Some(Effort::Minimal) => Some(ReasoningEffort::Minimal),
        Some(Effort::Low) => Some(ReasoningEffort::Low),
        Some(Effort::Medium) => Some(ReasoningEffort::Medium),
        Some(Effort::High) => Some(ReasoningEffort::High),
        // A name such as `qwen-max` would be taken for a model and an effort, and cut. A budget
        // keeps it whole, and is not sent in these dialects.
        None if matches!(dialect, Dialect::Completions | Dialect::Responses) => {
            let taken = ReasoningEffort::from_model_name(&config.model).0;
            taken.map(|_| ReasoningEffort::Budget(0))
        }
        None => None,
    }
}

fn tool(spec: &ToolSpec) -> Tool {
    Tool::new(ToolName::Custom(spec.name.clone()))
        .with_description(&spec.description)
        .with_schema(spec.input.clone())
}

struct Translator<'a> {
    kind: ProviderKind,
    dialect: Dialect,
    name: &'a str,
}

impl Translator<'_> {
    fn messages(&self, history: &[Arc<Said>]) -> Vec<ChatMessage> {
        let mut messages: Vec<ChatMessage> = Vec::with_capacity(history.len());
        for said in history {
            let parts = self.parts(said);
            match said.role {
                _ if parts.is_empty() => {}
                Role::System => messages.push(message(ChatRole::System, parts)),
                Role::User => messages.push(message(ChatRole::User, parts)),
                Role::Assistant => messages.push(message(ChatRole::Assistant, parts)),
                // It keeps one result of a message.
                Role::Tool if self.dialect == Dialect::Ollama => messages
                    .extend(parts.into_iter().map(|part| message(ChatRole::Tool, vec![part]))),
                // Some want all results of a step in one message.
                Role::Tool => match messages.last_mut() {
                    Some(last) if last.role == ChatRole::Tool => last.content.extend(parts),
                    _ => messages.push(message(ChatRole::Tool, parts)),
                },
            }
        }
        messages
    }

    fn parts(&self, said: &Said) -> Vec<ContentPart> {
        let parts = said.content.parts().iter();
        let parts: Vec<ContentPart> = match said.role {
            Role::System | Role::User => parts.filter_map(|part| self.text(part)).collect(),
            Role::Assistant => parts.flat_map(|part| self.spoken(part)).collect(),
            Role::Tool => parts.filter_map(|part| self.result(part)).collect(),
        };
        // A message of nothing but thoughts says nothing, and is refused.
        let is_word = |part: &ContentPart| !is_thought(part);
        if parts.iter().any(is_word) { parts } else { Vec::new() }
    }

    fn text(&self, part: &Part) -> Option<ContentPart> {
        let text = part.as_text().filter(|text| !text.is_empty())?;
        // It refuses blank texts.
        let is_refused = self.dialect == Dialect::Anthropic && text.trim().is_empty();
        (!is_refused).then(|| ContentPart::Text(text.to_owned()))
    }

    fn spoken(&self, part: &Part) -> Vec<ContentPart> {
        match part {
            Part::Reasoning { text, signature: Some(signature) } => {
                let signature = seal::open(self.name, signature);
                signature.map(|signature| self.thought(text, signature)).unwrap_or_default()
            }
            Part::ToolCall { id, name, input } => {
                vec![ContentPart::ToolCall(genai::chat::ToolCall {
                    call_id: self.id(id),
                    fn_name: name.clone(),
                    fn_arguments: object(input),
                    thought_signatures: None,
                })]
            }
            part => self.text(part).into_iter().collect(),
        }
    }

    /// Returns a thought as the provider wants it back.
    fn thought(&self, text: &str, signature: &str) -> Vec<ContentPart> {
        match self.dialect {
            Dialect::Anthropic => match redacted(text, signature) {
                Some(block) => vec![ContentPart::from_custom(block, None)],
                None => vec![
                    ContentPart::ThoughtSignature(signature.to_owned()),
                    ContentPart::ReasoningContent(text.to_owned()),
                ],
            },
            Dialect::Gemini | Dialect::Responses => {
                vec![ContentPart::ThoughtSignature(signature.to_owned())]
            }
            Dialect::Completions if self.kind.wants_thoughts() => {
                vec![ContentPart::ReasoningContent(text.to_owned())]
            }
            Dialect::Completions | Dialect::Ollama => Vec::new(),
        }
    }

    fn result(&self, part: &Part) -> Option<ContentPart> {
        let Part::ToolResult { id, output, is_error } = part else { return None };
        let id = self.id(id);
        if *is_error && self.dialect == Dialect::Anthropic {
            let block = json!({
                "type": "tool_result",
                "tool_use_id": id,
                "content": output,
                "is_error": true,
            });
            return Some(ContentPart::from_custom(block, None));
        }
        let output = if *is_error { format!("Error: {output}") } else { output.clone() };
        Some(ContentPart::ToolResponse(ToolResponse::new(id, output)))
    }

    /// Returns the name of a call as the provider takes it.
    fn id(&self, id: &str) -> String {
        if self.kind != ProviderKind::Mistral {
            return id.to_owned();
        }
        let mut digest = Uuid::new_v5(&Uuid::NAMESPACE_OID, id.as_bytes()).simple().to_string();
        digest.truncate(MISTRAL_ID_CHARS);
        digest
    }
}

fn message(role: ChatRole, parts: Vec<ContentPart>) -> ChatMessage {
    ChatMessage::new(role, MessageContent::from_parts(parts))
}

fn is_thought(part: &ContentPart) -> bool {
    match part {
        ContentPart::ThoughtSignature(_) | ContentPart::ReasoningContent(_) => true,
        ContentPart::Custom(custom) => custom.typ() == Some(REDACTED),
        _ => false,
    }
}

/// The type of a thought that nobody but its provider can read.
pub(super) const REDACTED: &str = "redacted_thinking";

/// Returns the block that a signature without a text is, if it is one.
fn redacted(text: &str, signature: &str) -> Option<Value> {
    if !text.is_empty() {
        return None;
    }
    let block: Value = serde_json::from_str(signature).ok()?;
    (block["type"] == REDACTED).then_some(block)
}

/// Returns the input of a call as an object: other inputs, which models make by mistake, are
/// refused when they come back.
fn object(input: &Value) -> Value {
    match input {
        Value::Object(_) => input.clone(),
        Value::Null => Value::Object(Map::new()),
        other => json!({ "input": other }),
    }
}
