//! What is said in a chat.

mod content;

use serde::{Deserialize, Serialize};

use crate::id::{ChatId, MessageId, OwnerId, QueuedId, Version};
use crate::invalid::{Invalid, check_text};
use crate::timestamp::Timestamp;

pub use self::content::{
    CONTENT_BYTES_MAX, Command, Content, PARTS_MAX, PRODUCED_BYTES_MAX, PRODUCED_PARTS_MAX, Part,
    TEXT_BYTES_MAX,
};

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
    /// Read, but for those of the cache.
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
