//! What a message says.

use std::fmt;
use std::sync::{Arc, OnceLock};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use serde_json::value::{RawValue, to_raw_value};

use crate::invalid::{Invalid, check_text};

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

/// A piece of content.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Part {
    /// Plain text.
    Text {
        /// The text.
        text: String,
    },
    /// What the assistant thought before it spoke.
    Reasoning {
        /// The thought, perhaps in short.
        text: String,
        /// What the provider wants back with it, for nobody else to read.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signature: Option<String>,
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
    /// What a user asks of the runner itself, and no model.
    Command {
        /// What.
        command: Command,
    },
    /// What a newer release stored; it is kept as it is, and users cannot send it.
    #[serde(untagged)]
    Other(serde_json::Map<String, Value>),
}

/// What a user may ask of a runner itself; one that does not know it ignores it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Command {
    /// To put a summary in the place of the history so far.
    Compact,
}

impl Part {
    /// Returns the text of a text part.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Self::Text { text } => Some(text),
            _ => None,
        }
    }

    fn storable(self) -> Self {
        let mend =
            |text: String| if text.contains('\0') { text.replace('\0', "\u{fffd}") } else { text };
        match self {
            Self::Text { text } => Self::Text { text: mend(text) },
            Self::Reasoning { text, signature } => {
                Self::Reasoning { text: mend(text), signature: signature.map(mend) }
            }
            Self::Command { command } => Self::Command { command },
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
#[derive(Clone)]
pub struct Content {
    parts: Vec<Part>,
    /// The parts as JSON, once somebody has asked for it.
    encoded: OnceLock<Arc<RawValue>>,
}

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
        let content = Self::stored(parts);
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

    /// Takes a wish that is for the runner itself.
    pub fn command(command: Command) -> Self {
        Self::stored(vec![Part::Command { command }])
    }

    /// Takes text that a runner produced, whatever it is: it must be stored.
    ///
    /// NUL becomes U+FFFD, since PostgreSQL cannot store it, and text beyond
    /// [`CONTENT_BYTES_MAX`] is cut on a character boundary.
    pub fn produced(text: &str) -> Self {
        let mut text = text.replace('\0', "\u{fffd}");
        text.truncate(text.floor_char_boundary(CONTENT_BYTES_MAX));
        Self::stored(vec![Part::Text { text }])
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
        let content = Self::stored(parts.into_iter().map(Part::storable).collect());
        let bytes = content.encoded().get().len();
        if bytes > PRODUCED_BYTES_MAX {
            let reason =
                format!("has {bytes} bytes as JSON, at most {PRODUCED_BYTES_MAX} are allowed");
            return Err(Invalid::new("content", reason));
        }
        Ok(content)
    }

    /// Takes parts as they are: they were checked, or made here.
    pub(crate) const fn stored(parts: Vec<Part>) -> Self {
        Self { parts, encoded: OnceLock::new() }
    }

    /// Returns the parts as JSON; it is made once.
    ///
    /// Who stores them asks before a transaction begins, since encoding takes time.
    pub fn encoded(&self) -> &RawValue {
        self.encoded.get_or_init(|| {
            to_raw_value(&self.parts).expect("parts have no keys that JSON lacks").into()
        })
    }

    /// Returns the parts, in order.
    pub fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Returns all text, parts joined by a line break.
    pub fn to_text(&self) -> String {
        let texts: Vec<&str> = self.parts.iter().filter_map(Part::as_text).collect();
        texts.join("\n")
    }

    fn bytes(&self) -> usize {
        self.parts.iter().filter_map(Part::as_text).map(str::len).sum()
    }
}

impl PartialEq for Content {
    fn eq(&self, other: &Self) -> bool {
        self.parts == other.parts
    }
}

impl Eq for Content {}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Content").field(&self.parts).finish()
    }
}

impl Serialize for Content {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.parts.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Vec::deserialize(deserializer).map(Self::stored)
    }
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
    fn thoughts_and_wishes_to_the_runner_are_stored_and_not_accepted() {
        let thought = Part::Reasoning { text: "hm\0".into(), signature: Some("s\0".into()) };
        let content = Content::produced_parts(vec![thought]).unwrap();
        let json = r#"[{"type":"reasoning","text":"hm\ufffd","signature":"s\ufffd"}]"#;
        assert_eq!(
            serde_json::to_value(&content).unwrap(),
            serde_json::from_str::<Value>(json).unwrap()
        );
        let wish = Content::command(Command::Compact);
        let json = r#"[{"type":"command","command":"compact"}]"#;
        assert_eq!(serde_json::to_string(&wish).unwrap(), json);
        assert_eq!(serde_json::from_str::<Content>(json).unwrap(), wish);
        for content in [content, wish] {
            assert_eq!(content.to_text(), "", "nothing that a user reads as words");
            assert!(Content::new(content.parts().to_vec()).is_err());
        }
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

    #[test]
    fn content_is_encoded_once_and_its_copies_share_it() {
        let content = Content::text("hi").unwrap();
        assert_eq!(content.encoded().get(), r#"[{"type":"text","text":"hi"}]"#);
        let copy = content.clone();
        assert!(std::ptr::eq(content.encoded(), copy.encoded()));
        assert_eq!(content, Content::text("hi").unwrap(), "encoded or not");
    }
}
