//! What a program is told and what it may say.

use musterbeat_core::id::{ChatId, MessageId, OwnerId};
use musterbeat_core::invalid::Invalid;
use musterbeat_core::message::{Content, Model, Part, Role};
use musterbeat_core::port::ChatTurn;
use musterbeat_core::timestamp::Timestamp;
use serde::{Deserialize, Serialize};

/// Returns the document that a program reads, with a line break at its end.
pub(super) fn prompt(turn: &ChatTurn) -> Vec<u8> {
    let messages = turn.prompt.iter().map(|message| MessageWire {
        id: message.id,
        role: message.role,
        content: &message.content,
        model: message.model.as_ref(),
        created_at: message.created_at,
    });
    let prompt = PromptWire {
        chat_id: turn.chat,
        owner_id: turn.owner,
        model: turn.model.as_ref(),
        messages: messages.collect(),
    };
    let mut text = serde_json::to_vec(&prompt).expect("a prompt has no keys that JSON lacks");
    text.push(b'\n');
    text
}

#[derive(Serialize)]
struct PromptWire<'a> {
    chat_id: ChatId,
    owner_id: OwnerId,
    model: Option<&'a Model>,
    messages: Vec<MessageWire<'a>>,
}

#[derive(Serialize)]
struct MessageWire<'a> {
    id: MessageId,
    role: Role,
    content: &'a Content,
    model: Option<&'a Model>,
    created_at: Timestamp,
}

/// One line of a program's output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// A piece for those who follow the answer.
    Piece(String),
    /// The answer.
    Message(Content),
}

/// What is wrong with a line of a program's output; completes "line 7 of its output".
#[derive(Debug, thiserror::Error)]
pub(super) enum Flaw {
    #[error("has more than {bytes_max} bytes")]
    TooLong { bytes_max: usize },
    #[error("is not UTF-8")]
    NotUtf8,
    #[error("is not understood: {0}")]
    Unknown(String),
    #[error("has text with a NUL character, which cannot be stored")]
    Nul,
    #[error("is refused: {0}")]
    Refused(Invalid),
    #[error("comes after the final message")]
    AfterMessage,
}

/// Reads one line of a program's output.
pub(super) fn said(line: &[u8]) -> Result<Said, Flaw> {
    let line = str::from_utf8(line).map_err(|_| Flaw::NotUtf8)?;
    let line = serde_json::from_str(line).map_err(|error| Flaw::Unknown(described(&error)))?;
    match line {
        LineWire::Part { part: PartWire::Text { text } } if text.contains('\0') => Err(Flaw::Nul),
        LineWire::Part { part: PartWire::Text { text } } => Ok(Said::Piece(text)),
        LineWire::Message { content } => {
            let content = match content {
                ContentWire::Text(text) => Content::text(text),
                ContentWire::Parts(parts) => {
                    Content::new(parts.into_iter().map(Part::from).collect())
                }
            };
            content.map(Said::Message).map_err(Flaw::Refused)
        }
    }
}

/// Says what `error` found, without its line, which is always the first.
fn described(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    match text.strip_suffix(&place) {
        Some(what) => format!("{what} at column {}", error.column()),
        None => text,
    }
}

#[derive(Deserialize)]
#[serde(
    tag = "type",
    rename_all = "snake_case",
    deny_unknown_fields,
    expecting = "an object with a `type`"
)]
enum LineWire {
    Part { part: PartWire },
    Message { content: ContentWire },
}

#[derive(Deserialize)]
#[serde(
    tag = "type",
    rename_all = "snake_case",
    deny_unknown_fields,
    expecting = "an object with a `type`"
)]
enum PartWire {
    Text { text: String },
}

impl From<PartWire> for Part {
    fn from(PartWire::Text { text }: PartWire) -> Self {
        Self::Text { text }
    }
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = r#"`content` is neither a text nor a list of {"type": "text", "text": "…"}"#
)]
enum ContentWire {
    Text(String),
    Parts(Vec<PartWire>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn part_and_message_are_understood() {
        let piece = said(br#"{"type":"part","part":{"type":"text","text":"a\n"}}"#).unwrap();
        assert_eq!(piece, Said::Piece("a\n".to_owned()));
        let message = Said::Message(Content::text("ab").unwrap());
        assert_eq!(said(br#" {"content":"ab","type":"message"}"#).unwrap(), message);
        let parts = br#"{"type":"message","content":[{"type":"text","text":"ab"}]}"#;
        assert_eq!(said(parts).unwrap(), message);
    }

    #[test]
    fn flaw_is_named() {
        let check = |line: &[u8], expected: &str| {
            assert_eq!(said(line).unwrap_err().to_string(), expected);
        };
        check(b"\"\xff\"", "is not UTF-8");
        check(b"hello", "is not understood: expected value at column 1");
        check(b"{}", "is not understood: missing field `type` at column 2");
        check(
            b"[1]",
            "is not understood: invalid type: integer `1`, expected variant identifier at column 2",
        );
        check(
            br#"{"type":"tool"}"#,
            "is not understood: unknown variant `tool`, expected `part` or `message` at column 14",
        );
        check(
            br#"{"type":"part","part":{"type":"text","text":5}}"#,
            "is not understood: invalid type: integer `5`, expected a string",
        );
        check(
            br#"{"type":"message","content":"a","usage":1}"#,
            "is not understood: unknown field `usage`, expected `content`",
        );
        check(
            br#"{"type":"message","content":7}"#,
            "is not understood: `content` is neither a text nor a list of \
             {\"type\": \"text\", \"text\": \"…\"}",
        );
        check(br#"{"type":"message","content":" "}"#, "is refused: content[0].text: is empty");
        check(
            br#"{"type":"part","part":{"type":"text","text":"\u0000"}}"#,
            "has text with a NUL character, which cannot be stored",
        );
    }
}
