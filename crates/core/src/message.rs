//! What is said in a chat.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::id::{ChatId, MessageId, OwnerId, QueuedId, Version};
use crate::invalid::{Invalid, check_text};
use crate::timestamp::Timestamp;

/// Parts of one content, at most.
pub const PARTS_MAX: usize = 64;

/// Bytes of text in one part, at most.
pub const TEXT_BYTES_MAX: usize = 256 * 1024;

/// Bytes of text in one content, at most.
pub const CONTENT_BYTES_MAX: usize = 512 * 1024;

/// Parts of one content that a runner produced, at most.
pub const PRODUCED_PARTS_MAX: usize = 1_024;

/// Bytes of one content that a runner produced, as JSON, at most.
pub const PRODUCED_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Bytes of a model's name, at most.
pub const MODEL_BYTES_MAX: usize = 200;

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Sets the terms.
    System,
    /// Asks.
    User,
    /// Answers.
    Assistant,
    /// Reports what a tool did.
    Tool,
}

/// For whom a message is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Visibility {
    /// Shown, but not part of the prompt.
    User,
    /// Part of the prompt, but not shown.
    Model,
    /// Shown and part of the prompt.
    Both,
}

/// A piece of content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Part {
    /// Plain text.
    Text {
        /// The text.
        text: String,
    },
    /// A call of a tool, by the assistant.
    ToolCall {
        /// Names the call within its chat.
        id: String,
        /// Which tool.
        name: String,
        /// With what.
        input: Value,
    },
    /// What a call came to.
    ToolResult {
        /// Which call.
        id: String,
        /// What the tool said.
        output: String,
        /// Whether the tool failed, or did not run to its end.
        #[serde(default)]
        is_error: bool,
    },
    /// What a newer release stored; it is kept as it is, and users cannot send it.
    #[serde(untagged)]
    Other(serde_json::Map<String, Value>),
}

impl Part {
    /// Returns the text of a text part.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text { text } => Some(text),
            Self::ToolCall { .. } | Self::ToolResult { .. } | Self::Other(_) => None,
        }
    }
}

impl Part {
    fn storable(self) -> Self {
        let mend =
            |text: String| if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text };
        match self {
            Self::Text { text } => Self::Text { text: mend(text) },
            Self::ToolCall { id, name, input } => {
                Self::ToolCall { id: mend(id), name: mend(name), input: without_nul(input) }
            }
            Self::ToolResult { id, output, is_error } => {
                Self::ToolResult { id: mend(id), output: mend(output), is_error }
            }
            Self::Other(fields) => match without_nul(Value::Object(fields)) {
                Value::Object(fields) => Self::Other(fields),
                _ => unreachable!("an object stays one"),
            },
        }
    }
}

fn without_nul(value: Value) -> Value {
    let mend = |text: String| text.replace('\0', "\u{fffd}");
    match value {
        Value::String(text) => Value::String(mend(text)),
        Value::Array(values) => Value::Array(values.into_iter().map(without_nul).collect()),
        Value::Object(fields) => {
            let fields = fields.into_iter().map(|(key, value)| (mend(key), without_nul(value)));
            Value::Object(fields.collect())
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => value,
    }
}

/// What a message says, in parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Content(Vec<Part>);

impl Content {
    /// Takes parts that a user sent.
    ///
    /// # Errors
    /// Refuses no part or more than [`PARTS_MAX`], empty text, text over [`TEXT_BYTES_MAX`],
    /// a sum over [`CONTENT_BYTES_MAX`], and NUL, which PostgreSQL cannot store.
    pub fn new(parts: Vec<Part>) -> Result<Self, Invalid> {
        if parts.is_empty() || parts.len() > PARTS_MAX {
            let reason = format!("has {} parts, 1 to {PARTS_MAX} are allowed", parts.len());
            return Err(Invalid::new("content", reason));
        }
        for (index, part) in parts.iter().enumerate() {
            let Some(text) = part.as_text() else {
                let field = format!("content[{index}]");
                return Err(Invalid::new(field, r#"is not {"type": "text", "text": "…"}"#));
            };
            check_text(&format!("content[{index}].text"), text, TEXT_BYTES_MAX)?;
        }
        let content = Self(parts);
        if content.bytes() > CONTENT_BYTES_MAX {
            let reason = format!(
                "has {} bytes of text, at most {CONTENT_BYTES_MAX} are allowed",
                content.bytes()
            );
            return Err(Invalid::new("content", reason));
        }
        Ok(content)
    }

    /// Takes one text part that a user sent.
    ///
    /// # Errors
    /// As [`Content::new`].
    pub fn text(text: impl Into<String>) -> Result<Self, Invalid> {
        Self::new(vec![Part::Text { text: text.into() }])
    }

    /// Takes text that a runner produced, whatever it is: it must be stored.
    ///
    /// NUL becomes U+FFFD, since PostgreSQL cannot store it, and text beyond
    /// [`CONTENT_BYTES_MAX`] is cut on a character boundary.
    pub fn produced(text: &str) -> Self {
        let mut text = text.replace('\0', "\u{fffd}");
        text.truncate(text.floor_char_boundary(CONTENT_BYTES_MAX));
        Self(vec![Part::Text { text }])
    }

    /// Takes parts that a runner produced, calls of tools and their results among them.
    ///
    /// NUL becomes U+FFFD in every text, since PostgreSQL cannot store it.
    ///
    /// # Errors
    /// Refuses more than [`PRODUCED_PARTS_MAX`] parts and more than [`PRODUCED_BYTES_MAX`].
    pub fn produced_parts(parts: Vec<Part>) -> Result<Self, Invalid> {
        if parts.len() > PRODUCED_PARTS_MAX {
            let reason =
                format!("has {} parts, at most {PRODUCED_PARTS_MAX} are allowed", parts.len());
            return Err(Invalid::new("content", reason));
        }
        let content = Self(parts.into_iter().map(Part::storable).collect());
        let bytes = serde_json::to_vec(&content).map_or(usize::MAX, |json| json.len());
        if bytes > PRODUCED_BYTES_MAX {
            let reason =
                format!("has {bytes} bytes as JSON, at most {PRODUCED_BYTES_MAX} are allowed");
            return Err(Invalid::new("content", reason));
        }
        Ok(content)
    }

    /// Takes parts as they are: they were checked, or made here.
    pub(crate) const fn stored(parts: Vec<Part>) -> Self {
        Self(parts)
    }

    /// Returns the parts, in order.
    pub fn parts(&self) -> &[Part] {
        &self.0
    }

    /// Returns all text, parts joined by a line break.
    pub fn to_text(&self) -> String {
        let texts: Vec<&str> = self.0.iter().filter_map(Part::as_text).collect();
        texts.join("\n")
    }

    fn bytes(&self) -> usize {
        self.0.iter().filter_map(Part::as_text).map(str::len).sum()
    }
}

/// Name of the model that a turn is meant for; free text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Model(String);

impl Model {
    /// Takes a name of at most [`MODEL_BYTES_MAX`] bytes.
    ///
    /// # Errors
    /// Refuses an empty or overlong name, and NUL.
    pub fn new(name: impl Into<String>) -> Result<Self, Invalid> {
        let name = name.into();
        check_text("model", &name, MODEL_BYTES_MAX)?;
        Ok(Self(name))
    }

    /// Returns the name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a user asks for: a message that starts a turn, now or from the queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    /// What is asked.
    pub content: Content,
    /// The model chosen for this turn; none keeps the chat's.
    pub model: Option<Model>,
    /// Who asks.
    pub created_by: Option<OwnerId>,
}

impl Turn {
    /// Returns the message that this turn puts into the history.
    pub fn into_message(self) -> NewMessage {
        NewMessage {
            role: Role::User,
            content: self.content,
            visibility: Visibility::Both,
            compressed: false,
            model: self.model,
            created_by: self.created_by,
            usage: Usage::default(),
        }
    }
}

/// Tokens that a message took, as far as its model told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Usage {
    /// Read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_tokens: Option<i64>,
    /// Written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_tokens: Option<i64>,
    /// Both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total_tokens: Option<i64>,
    /// Written to think, and not shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning_tokens: Option<i64>,
    /// Put into the provider's cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_creation_tokens: Option<i64>,
    /// Taken from the provider's cache.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cache_read_tokens: Option<i64>,
    /// How many the model's window holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context_limit: Option<i64>,
}

/// A message to append to a chat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewMessage {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: Content,
    /// For whom.
    pub visibility: Visibility,
    /// Whether it stands for older messages, as a summary does.
    pub compressed: bool,
    /// With which model.
    pub model: Option<Model>,
    /// By whom.
    pub created_by: Option<OwnerId>,
    /// What it cost.
    pub usage: Usage,
}

impl NewMessage {
    /// Returns an answer that everybody sees.
    pub fn answer(content: Content, model: Option<Model>) -> Self {
        Self {
            role: Role::Assistant,
            content,
            visibility: Visibility::Both,
            compressed: false,
            model,
            created_by: None,
            usage: Usage::default(),
        }
    }
}

/// A stored message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Message {
    /// Its place in the history.
    pub id: MessageId,
    /// The chat that it belongs to.
    pub chat_id: ChatId,
    /// The chat's version when this row last changed.
    pub version: Version,
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: Content,
    /// For whom.
    pub visibility: Visibility,
    /// Whether it stands for older messages, as a summary does.
    pub compressed: bool,
    /// Whether it was taken out of the history.
    pub deleted: bool,
    /// With which model.
    pub model: Option<Model>,
    /// By whom.
    pub created_by: Option<OwnerId>,
    /// What it cost.
    pub usage: Usage,
    /// When it was stored.
    pub created_at: Timestamp,
}

/// A message that waits for its turn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Queued {
    /// Names it for its chat's user.
    pub id: QueuedId,
    /// What is asked.
    pub content: Content,
    /// The model chosen when it was queued.
    pub model: Option<Model>,
    /// Who asks.
    pub created_by: Option<OwnerId>,
    /// When it was queued.
    pub created_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(text: &str) -> Part {
        Part::Text { text: text.to_owned() }
    }

    #[test]
    fn refused_content_names_field_and_limit() {
        let check = |parts: Vec<Part>, expected: &str| {
            assert_eq!(Content::new(parts).unwrap_err().to_string(), expected);
        };
        check(vec![], "content: has 0 parts, 1 to 64 are allowed");
        check(vec![part("ok"), part(" \n")], "content[1].text: is empty");
        check(vec![part("a\0b")], "content[0].text: contains a NUL character");
        check(
            vec![part(&"x".repeat(TEXT_BYTES_MAX + 1))],
            "content[0].text: has 262145 bytes, at most 262144 are allowed",
        );
        check(
            vec![part(&"x".repeat(TEXT_BYTES_MAX)), part(&"y".repeat(TEXT_BYTES_MAX)), part("z")],
            "content: has 524289 bytes of text, at most 524288 are allowed",
        );
    }

    #[test]
    fn part_of_a_newer_release_survives_but_is_not_accepted() {
        let stored = r#"[{"type":"image","url":"x"},{"type":"text","text":"hi"}]"#;
        let content: Content = serde_json::from_str(stored).unwrap();
        assert_eq!(content.to_text(), "hi");
        assert_eq!(serde_json::to_string(&content).unwrap(), stored);
        let refused = Content::new(content.parts().to_vec()).unwrap_err();
        assert_eq!(refused.field, "content[0]");
    }

    #[test]
    fn produced_parts_are_storable_at_any_depth() {
        let input = serde_json::json!({ "a\0": ["b\0", { "c": "d\0" }] });
        let call = Part::ToolCall { id: "1".into(), name: "read".into(), input };
        let result =
            Part::ToolResult { id: "1".into(), output: "\0binary".into(), is_error: false };
        let content = Content::produced_parts(vec![call, result]).unwrap();
        assert!(!serde_json::to_string(&content).unwrap().contains("\\u0000"));
        let large = part(&"x".repeat(PRODUCED_BYTES_MAX));
        let refused = Content::produced_parts(vec![large]).unwrap_err().to_string();
        assert!(refused.contains("at most 4194304 are allowed"), "{refused}");
    }

    #[test]
    fn produced_text_is_always_storable() {
        let content = Content::produced(&"é\0".repeat(CONTENT_BYTES_MAX));
        assert!(content.bytes() <= CONTENT_BYTES_MAX);
        assert!(!content.to_text().contains('\0'));
        assert_eq!(Content::produced("kept as it is").to_text(), "kept as it is");
    }
}
