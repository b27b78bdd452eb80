//! What callers send.

use musterbeat_core::chat::{self, SubagentLimits, Title};
use musterbeat_core::id::{ChatId, MessageId, OwnerId, WorkspaceId};
use musterbeat_core::invalid::Invalid;
use musterbeat_core::message::{Content, Model, Turn};
use serde::{Deserialize, Deserializer};
use utoipa::ToSchema;
use uuid::Uuid;

use super::content::ContentInput;

/// Characters of a title, at most; UTF-8 takes up to 4 bytes for one.
const TITLE_CHARS_MAX: usize = chat::TITLE_BYTES_MAX / 4;

/// A chat to create.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({ "content": "Who keeps the muster roll?" })))]
pub(crate) struct CreateChat {
    /// What is asked first.
    content: ContentInput,
    /// What to call it; by default the first words of what is asked.
    #[serde(default)]
    #[schema(pattern = r"^[^\x00]*[^\s\x00][^\x00]*$", max_length = 100)]
    title: Option<String>,
    /// The workspace that it works in; by default its parent's.
    #[serde(default)]
    workspace_id: Option<Uuid>,
    /// The chat of which it is a child; a child belongs to its parent's owner.
    #[serde(default)]
    parent_id: Option<Uuid>,
    /// The model to answer with; by default its parent's.
    #[serde(default)]
    #[schema(pattern = r"^[ -~]*[!-~][ -~]*$", max_length = 200)]
    model: Option<String>,
    /// How deep its family may be that runners make; by default as the server is set. Of a chat
    /// without a parent only.
    #[serde(default)]
    #[schema(maximum = 10)]
    subagent_depth_max: Option<u32>,
    /// How many children of its family may be at work at once; by default as the server is set.
    #[serde(default)]
    #[schema(maximum = 1_000)]
    subagents_max: Option<u32>,
}

impl CreateChat {
    pub(crate) fn checked(self, owner: OwnerId) -> Result<chat::NewChat, Invalid> {
        let turn = turn(self.content, self.model, owner)?;
        let title = match self.title {
            Some(title) => checked_title(title)?,
            None => Title::of_question(&turn.content.to_text()),
        };
        let workspace = self.workspace_id.map(WorkspaceId::new);
        let id = ChatId::new(Uuid::now_v7());
        let parent = self.parent_id.map(ChatId::new);
        let limits =
            SubagentLimits { depth_max: self.subagent_depth_max, at_work_max: self.subagents_max };
        limits.check()?;
        let new = chat::NewChat::new(id, owner, title, turn);
        Ok(chat::NewChat { parent, workspace, limits, ..new })
    }
}

/// A message to send.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({ "content": [{ "type": "text", "text": "And who reads it?" }] })))]
pub(crate) struct SendMessage {
    /// What is asked.
    content: ContentInput,
    /// The model for this turn; by default the chat's.
    #[serde(default)]
    #[schema(pattern = r"^[ -~]*[!-~][ -~]*$", max_length = 200)]
    model: Option<String>,
    #[serde(default)]
    #[schema(inline)]
    when_busy: WhenBusy,
}

/// What to do with a message while the chat is busy.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum WhenBusy {
    /// It waits for its turn.
    #[default]
    Queue,
    /// It waits for its turn, and the present one is stopped.
    Interrupt,
}

impl SendMessage {
    pub(crate) fn checked(self, sender: OwnerId) -> Result<chat::Event, Invalid> {
        let when_busy = match self.when_busy {
            WhenBusy::Queue => chat::WhenBusy::Queue,
            WhenBusy::Interrupt => chat::WhenBusy::Interrupt,
        };
        Ok(chat::Event::Send { turn: turn(self.content, self.model, sender)?, when_busy })
    }
}

/// What to say instead.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({ "content": "And who wrote it?" })))]
pub(crate) struct EditMessage {
    /// What is asked.
    content: ContentInput,
    /// The model for this turn; by default the chat's.
    #[serde(default)]
    #[schema(pattern = r"^[ -~]*[!-~][ -~]*$", max_length = 200)]
    model: Option<String>,
}

impl EditMessage {
    pub(crate) fn checked(self, sender: OwnerId) -> Result<Turn, Invalid> {
        turn(self.content, self.model, sender)
    }
}

/// What to change of a chat; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({ "title": "The muster roll" })))]
#[expect(clippy::option_option, reason = "left out, null and given are three things")]
pub(crate) struct PatchChat {
    /// What to call it.
    #[serde(default)]
    #[schema(nullable = false, pattern = r"^[^\x00]*[^\s\x00][^\x00]*$", max_length = 100)]
    title: Option<String>,
    /// The workspace that it works in; null for none.
    #[serde(default, deserialize_with = "given")]
    workspace_id: Option<Option<Uuid>>,
    /// The last message that its user has read; it never goes back.
    #[serde(default)]
    #[schema(nullable = false, minimum = 0)]
    last_read_message_id: Option<i64>,
    /// How deep its family may be that runners make; null for what the server is set to.
    #[serde(default, deserialize_with = "given")]
    #[schema(maximum = 10)]
    subagent_depth_max: Option<Option<u32>>,
    /// How many children of its family may be at work at once; null likewise.
    #[serde(default, deserialize_with = "given")]
    #[schema(maximum = 1_000)]
    subagents_max: Option<Option<u32>>,
}

/// Tells a null that was given from a field that was not.
#[expect(clippy::option_option, reason = "left out, null and given are three things")]
fn given<'de, T, D>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    Option::deserialize(deserializer).map(Some)
}

impl PatchChat {
    pub(crate) fn checked(self) -> Result<chat::ChatPatch, Invalid> {
        if let Some(negative) = self.last_read_message_id.filter(|id| *id < 0) {
            let reason = format!("is {negative}, 0 or more is allowed");
            return Err(Invalid::new("last_read_message_id", reason));
        }
        let patch = chat::ChatPatch {
            title: self.title.map(checked_title).transpose()?,
            workspace: self.workspace_id.map(|workspace| workspace.map(WorkspaceId::new)),
            last_read: self.last_read_message_id.map(MessageId),
            subagent_depth_max: self.subagent_depth_max,
            subagents_max: self.subagents_max,
        };
        patch.limits().check()?;
        Ok(patch)
    }
}

/// Takes a title that has room for its characters in every script.
fn checked_title(title: String) -> Result<Title, Invalid> {
    let chars = title.chars().count();
    if chars > TITLE_CHARS_MAX {
        let reason = format!("has {chars} characters, at most {TITLE_CHARS_MAX} are allowed");
        return Err(Invalid::new("title", reason));
    }
    Title::new(title)
}

fn turn(content: ContentInput, model: Option<String>, sender: OwnerId) -> Result<Turn, Invalid> {
    let content = Content::new(content.0)?;
    let model = model.map(checked_model).transpose()?;
    Ok(Turn { content, model, created_by: Some(sender) })
}

/// Takes a name in printable ASCII, whose bytes a description can limit as characters.
pub(crate) fn checked_model(name: String) -> Result<Model, Invalid> {
    if name.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        Model::new(name)
    } else {
        Err(Invalid::new("model", "has characters other than printable ASCII"))
    }
}
