//! What callers are shown.

use musterbeat_core::chat;
use musterbeat_core::id::{ChatId, OwnerId, WorkspaceId};
use musterbeat_core::message::{self, Content, Usage};
use musterbeat_core::page::{Cursor, Limit};
use musterbeat_core::timestamp::Timestamp;
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use utoipa::openapi::schema::{ObjectBuilder, Type};
use uuid::Uuid;

use super::content::PartShown;

/// What became of a message.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Sent {
    /// Whether it waits in the queue.
    queued: bool,
    /// The chat's version now; its changes come after it.
    #[schema(minimum = 0)]
    version: i64,
}

impl From<chat::Applied> for Sent {
    fn from(applied: chat::Applied) -> Self {
        Self { queued: applied.queued, version: applied.version.0 }
    }
}

/// Where a chat stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    /// Nothing to do until somebody asks.
    Waiting,
    /// Ready for a worker.
    Pending,
    /// A worker answers.
    Running,
    /// A worker was asked to stop.
    Interrupting,
    /// The last turn failed.
    Error,
}

impl From<musterbeat_core::run::RunStatus> for Status {
    fn from(status: musterbeat_core::run::RunStatus) -> Self {
        use musterbeat_core::run::RunStatus;
        match status {
            RunStatus::Waiting => Self::Waiting,
            RunStatus::Pending => Self::Pending,
            RunStatus::Running => Self::Running,
            RunStatus::Interrupting => Self::Interrupting,
            RunStatus::Error => Self::Error,
        }
    }
}

/// A chat.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Chat {
    id: Uuid,
    owner_id: Uuid,
    /// The chat of which it is a child.
    #[schema(required)]
    parent_id: Option<Uuid>,
    /// The first of its ancestors.
    #[schema(required)]
    root_id: Option<Uuid>,
    #[schema(required)]
    workspace_id: Option<Uuid>,
    title: String,
    #[schema(required)]
    model: Option<String>,
    archived: bool,
    /// The last message that its user has read.
    #[schema(required)]
    last_read_message_id: Option<i64>,
    /// How deep its family may be that runners make; null for what the server is set to.
    #[schema(required)]
    subagent_depth_max: Option<u32>,
    /// How many children of its family may be at work at once; null likewise.
    #[schema(required)]
    subagents_max: Option<u32>,
    status: Status,
    /// Why it stands in `error`.
    #[schema(required)]
    error: Option<String>,
    /// Counts its changes.
    #[schema(minimum = 0)]
    version: i64,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    /// When it last moved in the list.
    #[serde(with = "time::serde::rfc3339")]
    updated_at: OffsetDateTime,
}

impl From<chat::Chat> for Chat {
    fn from(chat: chat::Chat) -> Self {
        Self {
            id: chat.id.uuid(),
            owner_id: chat.owner.uuid(),
            parent_id: chat.parent.map(ChatId::uuid),
            root_id: chat.root.map(ChatId::uuid),
            workspace_id: chat.workspace.map(WorkspaceId::uuid),
            title: chat.title,
            model: chat.model.map(|model| model.as_str().to_owned()),
            archived: chat.archived,
            last_read_message_id: chat.last_read.map(|message| message.0),
            subagent_depth_max: chat.limits.depth_max,
            subagents_max: chat.limits.at_work_max,
            status: chat.status.into(),
            error: chat.error,
            version: chat.version.0,
            created_at: chat.created_at.time(),
            updated_at: chat.updated_at.time(),
        }
    }
}

/// How a chat stands for somebody who waits for it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Report {
    chat_id: Uuid,
    status: Status,
    /// Whether it has nothing to do; else the time was over.
    at_rest: bool,
    /// Why it stands in `error`.
    #[schema(required)]
    error: Option<String>,
    /// The chat's version.
    #[schema(minimum = 0)]
    version: i64,
    /// The last that its assistant said in words.
    #[schema(required)]
    text: Option<String>,
}

impl From<chat::Report> for Report {
    fn from(report: chat::Report) -> Self {
        Self {
            chat_id: report.chat.uuid(),
            at_rest: report.is_at_rest(),
            status: report.status.into(),
            error: report.error,
            version: report.version.0,
            text: report.text,
        }
    }
}

/// What became of a change that a chat's readers see.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Changed {
    /// Where the chat stands now.
    status: Status,
    /// Its version now; its changes come after it.
    #[schema(minimum = 0)]
    version: i64,
}

impl From<chat::Applied> for Changed {
    fn from(applied: chat::Applied) -> Self {
        Self { status: applied.status.into(), version: applied.version.0 }
    }
}

/// The turns that wait, the next first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Queue {
    pub(crate) queue: Vec<Queued>,
}

/// A page of chats, in the order of the list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ChatPage {
    chats: Vec<Chat>,
    /// Send it as `after` for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    next: Option<String>,
}

impl ChatPage {
    /// Shows a page of a list that is sorted by `at`; one with as many chats as allowed goes on.
    pub(crate) fn of(
        chats: Vec<chat::Chat>,
        limit: Limit,
        at: impl Fn(&chat::Chat) -> Timestamp,
    ) -> Self {
        let next = limit.end_of(&chats);
        let next = next.map(|last| Cursor { at: at(last), chat: last.id }.to_string());
        Self { chats: chats.into_iter().map(Chat::from).collect(), next }
    }
}

/// A message of a chat.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Message {
    id: i64,
    /// The chat's version when this message last changed.
    version: i64,
    #[schema(schema_with = roles)]
    role: message::Role,
    #[schema(value_type = Vec<PartShown>)]
    content: Content,
    /// Whether it was taken out of the history.
    deleted: bool,
    #[schema(required)]
    model: Option<String>,
    #[schema(required)]
    created_by: Option<Uuid>,
    /// Tokens that it took, as far as its model told.
    #[schema(value_type = UsageShown)]
    usage: Usage,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
}

/// Tokens that a message took, as far as its model told.
#[derive(ToSchema)]
#[schema(as = Usage)]
#[expect(dead_code, reason = "describes `Usage`, which knows nothing of OpenAPI")]
struct UsageShown {
    #[schema(nullable = false)]
    input_tokens: Option<i64>,
    #[schema(nullable = false)]
    output_tokens: Option<i64>,
    #[schema(nullable = false)]
    total_tokens: Option<i64>,
    #[schema(nullable = false)]
    reasoning_tokens: Option<i64>,
    #[schema(nullable = false)]
    cache_creation_tokens: Option<i64>,
    #[schema(nullable = false)]
    cache_read_tokens: Option<i64>,
    #[schema(nullable = false)]
    context_limit: Option<i64>,
}

fn roles() -> ObjectBuilder {
    let roles = ["system", "user", "assistant", "tool"];
    ObjectBuilder::new().schema_type(Type::String).enum_values(Some(roles))
}

impl From<message::Message> for Message {
    fn from(message: message::Message) -> Self {
        Self {
            id: message.id.0,
            version: message.version.0,
            role: message.role,
            content: message.content,
            deleted: message.deleted,
            model: message.model.map(|model| model.as_str().to_owned()),
            created_by: message.created_by.map(OwnerId::uuid),
            usage: message.usage,
            created_at: message.created_at.time(),
        }
    }
}

/// A message that waits for its turn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Queued {
    id: i64,
    #[schema(value_type = Vec<PartShown>)]
    content: Content,
    #[schema(required)]
    model: Option<String>,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
}

impl From<message::Queued> for Queued {
    fn from(queued: message::Queued) -> Self {
        Self {
            id: queued.id.0,
            content: queued.content,
            model: queued.model.map(|model| model.as_str().to_owned()),
            created_at: queued.created_at.time(),
        }
    }
}

/// Messages that changed, oldest change first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MessagePage {
    pub(crate) messages: Vec<Message>,
    /// Send it as `after_version` for what changes later, and for the next page.
    #[schema(minimum = 0)]
    pub(crate) version: i64,
    /// Whether there is a next page already.
    pub(crate) more: bool,
    /// Whether the caller's version was ahead of the stored one, so that these are all messages.
    pub(crate) reset: bool,
}

/// What stands in a message's place.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Edited {
    /// The new message.
    pub(crate) message_id: i64,
    /// The chat's version now; its changes come after it.
    #[schema(minimum = 0)]
    pub(crate) version: i64,
}
