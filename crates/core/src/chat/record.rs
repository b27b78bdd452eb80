use super::limits::SubagentLimits;
use crate::id::{ChatId, Fence, MessageId, OwnerId, Step, Version, WorkerId, WorkspaceId};
use crate::invalid::{Invalid, check_text};
use crate::message::{Message, Model, NewMessage, Queued, Turn};
use crate::run::RunStatus;
use crate::timestamp::Timestamp;

/// Messages that one write of an owner may append.
pub const ANSWER_MESSAGES_MAX: usize = 256;

/// Bytes of a title, at most.
pub const TITLE_BYTES_MAX: usize = 400;

/// What a user calls a chat.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(transparent)]
pub struct Title(String);

impl Title {
    /// Takes a title of at most [`TITLE_BYTES_MAX`] bytes.
    ///
    /// # Errors
    /// Refuses an empty or overlong title, and NUL.
    pub fn new(title: impl Into<String>) -> Result<Self, Invalid> {
        let title = title.into();
        check_text("title", &title, TITLE_BYTES_MAX)?;
        Ok(Self(title))
    }

    /// Makes a title of the first words of what a chat was asked; without words it is a fixed one.
    pub fn of_question(question: &str) -> Self {
        const CHARS_MAX: usize = 80;
        let words: Vec<&str> = question.split_whitespace().take(6).collect();
        if words.is_empty() {
            return Self("New chat".to_owned());
        }
        Self(words.join(" ").chars().take(CHARS_MAX).collect())
    }

    /// Returns the title.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A chat to create; its first turn makes it pending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewChat {
    /// Names it; made by the caller, so the creation may be repeated.
    pub id: ChatId,
    /// Whose it is.
    pub owner: OwnerId,
    /// Of which chat it is a child; a child inherits its parent's owner.
    pub parent: Option<ChatId>,
    /// Which workspace it works in; by default its parent's.
    pub workspace: Option<WorkspaceId>,
    /// What it is called.
    pub title: Title,
    /// What precedes the first turn, such as terms that the system sets.
    pub preamble: Vec<NewMessage>,
    /// What is asked first; its model becomes the chat's, by default its parent's does.
    pub turn: Turn,
    /// What its family may spawn; a child has none of its own.
    pub limits: SubagentLimits,
    /// Where it comes from.
    pub origin: Origin,
}

impl NewChat {
    /// Makes a root of which nothing is known but whose it is and what is asked.
    pub fn new(id: ChatId, owner: OwnerId, title: Title, turn: Turn) -> Self {
        Self {
            id,
            owner,
            parent: None,
            workspace: None,
            title,
            preamble: vec![],
            turn,
            limits: SubagentLimits::default(),
            origin: Origin::Asked,
        }
    }
}

/// Where a chat comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Origin {
    /// A user asked for it.
    #[default]
    Asked,
    /// Its parent spawned it while at work: the limits of its family hold, and it does not wait
    /// behind what else its owner has pending.
    Spawned,
}

/// A chat as its readers see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chat {
    /// Names it.
    pub id: ChatId,
    /// Whose it is.
    pub owner: OwnerId,
    /// Of which chat it is a child.
    pub parent: Option<ChatId>,
    /// The first of its ancestors; `None` for a root.
    pub root: Option<ChatId>,
    /// Which workspace it works in.
    pub workspace: Option<WorkspaceId>,
    /// What it is called.
    pub title: String,
    /// The model of its next turn, unless that turn names another.
    pub model: Option<Model>,
    /// Whether it was put away.
    pub archived: bool,
    /// Up to which message its user has read it.
    pub last_read: Option<MessageId>,
    /// What its owner allows its family to spawn; nothing for a child, which its root's govern.
    pub limits: SubagentLimits,
    /// Where its run stands.
    pub status: RunStatus,
    /// Why it stands in `Error`.
    pub error: Option<String>,
    /// Counts its changes.
    pub version: Version,
    /// When it was created.
    pub created_at: Timestamp,
    /// When it last moved in its owner's list.
    pub updated_at: Timestamp,
}

/// What changed in a chat since a version; all of it from one snapshot of the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// The chat as it stands.
    pub chat: Chat,
    /// Messages that changed, oldest change first; a page of them.
    pub messages: Vec<Message>,
    /// The whole queue.
    pub queue: Vec<Queued>,
    /// Whether the reader's version was ahead of the stored one, so that these are all messages.
    ///
    /// It happens after a restore from backup or the promotion of a standby that was behind.
    pub reset: bool,
    /// Up to which version the reader has everything after this page.
    pub reached: Version,
    /// Who works on it.
    pub place: Option<Place>,
}

/// Where a chat's turn is being answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its owner.
    pub worker: WorkerId,
    /// Under which ownership.
    pub fence: Fence,
    /// Where other replicas reach that worker.
    pub advertise_url: Option<String>,
}

/// How a chat stands for somebody who waits for its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The chat.
    pub chat: ChatId,
    /// Where its run stands.
    pub status: RunStatus,
    /// Why it stands in `Error`.
    pub error: Option<String>,
    /// Its version.
    pub version: Version,
    /// The last that its assistant said to its user in words.
    pub text: Option<String>,
}

impl Report {
    /// Says whether the chat has nothing to do until somebody asks.
    pub const fn is_at_rest(&self) -> bool {
        self.status.is_at_rest()
    }
}

/// What to change of a chat that is not its history; what is `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChatPatch {
    /// What to call it.
    pub title: Option<Title>,
    /// Which workspace it works in; `Some(None)` is none.
    pub workspace: Option<Option<WorkspaceId>>,
    /// Up to which message its user has read it; it never moves back.
    pub last_read: Option<MessageId>,
    /// How many ancestors a chat that its family spawns may have; `Some(None)` leaves it to the
    /// deployment.
    pub subagent_depth_max: Option<Option<u32>>,
    /// How many subagents of its family may be at work at once; `Some(None)` as before.
    pub subagents_max: Option<Option<u32>>,
}

impl ChatPatch {
    /// Returns the limits that are set, those that stay among the others as if they were unset.
    pub fn limits(&self) -> SubagentLimits {
        SubagentLimits {
            depth_max: self.subagent_depth_max.flatten(),
            at_work_max: self.subagents_max.flatten(),
        }
    }

    /// Says whether limits of subagents change, which a child has none of.
    pub const fn moves_limits(&self) -> bool {
        self.subagent_depth_max.is_some() || self.subagents_max.is_some()
    }
}

/// What an applied event led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// The chat.
    pub chat: ChatId,
    /// Whose it is.
    pub owner: OwnerId,
    /// Its version now.
    pub version: Version,
    /// Where its run stands now.
    pub status: RunStatus,
    /// The step of the owner's next write.
    pub step: Step,
    /// Whether a sent turn waits in the queue.
    pub queued: bool,
    /// The user's message that it put into the history.
    pub message: Option<MessageId>,
    /// Whether its owner has to stop, or lost it.
    pub stops: bool,
    /// Other chats that changed with it: its family.
    pub family: Vec<ChatId>,
}
