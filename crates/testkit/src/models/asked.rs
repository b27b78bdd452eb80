//! What a client asked.

use serde_json::{Map, Value};

/// A request as it came.
#[derive(Clone, Debug, PartialEq)]
pub struct Asked {
    /// The model's name.
    pub model: String,
    /// The history, as JSON.
    pub messages: Vec<Value>,
    /// The tools on offer, as JSON.
    pub tools: Vec<Value>,
    /// Whether and what the model may call, if that was said.
    pub tool_choice: Option<Value>,
    /// The key, if one was brought.
    pub key: Option<String>,
    /// All other fields, such as `max_tokens`.
    pub options: Map<String, Value>,
    /// Bytes of the request.
    pub bytes: usize,
}

impl Asked {
    /// Reads a request; `None` when it is none.
    pub(super) fn read(body: &[u8], key: Option<&str>) -> Option<Self> {
        let Ok(Value::Object(mut options)) = serde_json::from_slice(body) else { return None };
        let list = |value: Option<Value>| match value {
            Some(Value::Array(values)) => Some(values),
            _ => None,
        };
        Some(Self {
            model: options.remove("model")?.as_str()?.to_owned(),
            messages: list(options.remove("messages"))?,
            tools: list(options.remove("tools")).unwrap_or_default(),
            tool_choice: options.remove("tool_choice"),
            key: key.map(str::to_owned),
            options,
            bytes: body.len(),
        })
    }

    /// Returns what was said last in this role, such as `user`; nothing is an empty text.
    pub fn last_said(&self, role: &str) -> String {
        let last = self.messages.iter().rev().find(|message| message["role"] == role);
        last.map(text_of).unwrap_or_default()
    }

    /// Returns what the tools said that were called last, if nothing was said since.
    pub fn results(&self) -> Vec<String> {
        let messages = self.messages.iter().rev();
        let mut results: Vec<String> =
            messages.take_while(|message| message["role"] == "tool").map(text_of).collect();
        results.reverse();
        results
    }

    /// Returns the names of the tools on offer.
    pub fn tool_names(&self) -> Vec<&str> {
        self.tools.iter().filter_map(|tool| tool["function"]["name"].as_str()).collect()
    }

    pub(super) fn is_streamed(&self) -> bool {
        self.options.get("stream") == Some(&Value::Bool(true))
    }

    pub(super) fn wants_usage(&self) -> bool {
        let options = self.options.get("stream_options");
        options.is_some_and(|options| options["include_usage"] == true)
    }
}

/// Returns a message's text, be it one or in parts.
fn text_of(message: &Value) -> String {
    match &message["content"] {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect(),
        _ => String::new(),
    }
}
