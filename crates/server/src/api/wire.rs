//! What goes over the wire, as JSON.

use std::fmt;

use musterbeat_core::chat::{self, Title};
use musterbeat_core::id::{ChatId, MessageId, OwnerId, WorkspaceId};
use musterbeat_core::invalid::Invalid;
use musterbeat_core::message::{self, Content, Model, Part, Turn, Usage};
use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use time::OffsetDateTime;
use utoipa::openapi::schema::{
    AdditionalProperties, ArrayBuilder, ObjectBuilder, OneOfBuilder, Type,
};
use utoipa::openapi::{Ref, RefOr, Schema};
use utoipa::{PartialSchema, ToSchema};
use uuid::Uuid;

/// Something to say, no NUL in it.
const SAYS_SOMETHING: &str = r"^[^\x00]*[^\s\x00][^\x00]*$";

/// Characters of a title, at most; UTF-8 takes up to 4 bytes for one.
const TITLE_CHARS_MAX: usize = chat::TITLE_BYTES_MAX / 4;

/// A piece of content, as a caller sends it.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
enum PartInput {
    /// Plain text.
    Text { text: String },
}

impl PartialSchema for PartInput {
    fn schema() -> RefOr<Schema> {
        let kind = ObjectBuilder::new().schema_type(Type::String).enum_values(Some(["text"]));
        let text = said().description(Some("At most 262,144 bytes; not empty; no NUL."));
        ObjectBuilder::new()
            .description(Some("A piece of content: plain text."))
            .property("type", kind)
            .required("type")
            .property("text", text)
            .required("text")
            .additional_properties(Some(AdditionalProperties::FreeForm(false)))
            .into()
    }
}

impl ToSchema for PartInput {}

/// Describes a text that says something; its limit is in bytes, which a schema cannot count.
fn said() -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).pattern(Some(SAYS_SOMETHING))
}

/// A piece of content, as it is stored.
#[derive(ToSchema)]
#[schema(as = Part)]
#[expect(dead_code, reason = "describes `Part`, which knows nothing of OpenAPI")]
struct PartShown {
    /// `text`, `tool_call` or `tool_result`; others are of a newer release, with fields of their own.
    #[schema(rename = "type")]
    kind: String,
    /// What a part of the type `text` says.
    #[schema(nullable = false)]
    text: Option<String>,
    /// Names a call of a tool, in the call and in its result.
    #[schema(nullable = false)]
    id: Option<String>,
    /// Which tool is called.
    #[schema(nullable = false)]
    name: Option<String>,
    /// With what it is called.
    #[schema(nullable = false)]
    input: Option<serde_json::Value>,
    /// What the tool said.
    #[schema(nullable = false)]
    output: Option<String>,
    /// Whether the tool failed, or did not run to its end.
    #[schema(nullable = false)]
    is_error: Option<bool>,
}

/// Content as a caller sends it: a text, or an array of parts.
#[derive(Clone, Debug)]
pub(crate) struct ContentInput(Vec<Part>);

impl PartialSchema for ContentInput {
    fn schema() -> RefOr<Schema> {
        let text = said().description(Some("One text part; at most 262,144 bytes."));
        let parts = ArrayBuilder::new()
            .items(Ref::from_schema_name(PartInput::name()))
            .min_items(Some(1))
            .max_items(Some(message::PARTS_MAX))
            .description(Some("Parts; together at most 524,288 bytes of text."));
        OneOfBuilder::new().item(text).item(parts).into()
    }
}

impl ToSchema for ContentInput {
    fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
        schemas.push((PartInput::name().into_owned(), PartInput::schema()));
    }
}

impl<'de> Deserialize<'de> for ContentInput {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = ContentInput;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a text or an array of parts")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<ContentInput, E> {
        Ok(ContentInput(vec![Part::Text { text: text.to_owned() }]))
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, parts: A) -> Result<ContentInput, A::Error> {
        let parts = Vec::<PartInput>::deserialize(SeqAccessDeserializer::new(parts))?;
        let parts = parts.into_iter().map(|PartInput::Text { text }| Part::Text { text });
        Ok(ContentInput(parts.collect()))
    }

    /// A single part is easily meant; the message then says what to write.
    fn visit_map<A: de::MapAccess<'de>>(self, part: A) -> Result<ContentInput, A::Error> {
        PartInput::deserialize(MapAccessDeserializer::new(part))?;
        Err(de::Error::custom("a part stands in an array: write [{…}]"))
    }
}

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
        Ok(chat::NewChat { id, owner, parent, workspace, title, preamble: vec![], turn })
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

/// What stands in a message's place.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Edited {
    /// The new message.
    pub(crate) message_id: i64,
    /// The chat's version now; its changes come after it.
    #[schema(minimum = 0)]
    pub(crate) version: i64,
}

/// What to change of a chat; what is left out stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({ "title": "The muster roll" })))]
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
}

/// Tells a null that was given from a field that was not.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<Uuid>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl PatchChat {
    pub(crate) fn checked(self) -> Result<chat::ChatPatch, Invalid> {
        if let Some(negative) = self.last_read_message_id.filter(|id| *id < 0) {
            let reason = format!("is {negative}, 0 or more is allowed");
            return Err(Invalid::new("last_read_message_id", reason));
        }
        Ok(chat::ChatPatch {
            title: self.title.map(checked_title).transpose()?,
            workspace: self.workspace_id.map(|workspace| workspace.map(WorkspaceId::new)),
            last_read: self.last_read_message_id.map(MessageId),
        })
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
fn checked_model(name: String) -> Result<Model, Invalid> {
    if name.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        Model::new(name)
    } else {
        Err(Invalid::new("model", "has characters other than printable ASCII"))
    }
}

/// What became of a message.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Sent {
    /// Whether it waits in the queue.
    pub(crate) queued: bool,
    /// The chat's version now; its changes come after it.
    #[schema(minimum = 0)]
    pub(crate) version: i64,
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

impl Chat {
    pub(crate) fn status(&self) -> Status {
        self.status
    }

    pub(crate) fn version(&self) -> i64 {
        self.version
    }

    pub(crate) fn archived(&self) -> bool {
        self.archived
    }

    pub(crate) fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// Says whether the chat has nothing to do until somebody asks.
    pub(crate) fn is_at_rest(&self) -> bool {
        matches!(self.status, Status::Waiting | Status::Error)
    }
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
    pub(crate) chats: Vec<Chat>,
    /// Send it as `after` for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub(crate) next: Option<String>,
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
