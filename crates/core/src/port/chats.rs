use async_trait::async_trait;

use super::{Reach, StoreError};
use crate::chat::{Applied, Changes, Chat, ChatPatch, Event, NewChat, Refused, Report};
use crate::diff::ChatDiff;
use crate::id::{ChatId, OwnerId, RunId, Version};
use crate::lineage::Lineage;
use crate::message::{Message, Queued};
use crate::page::{Cursor, Limit};
use crate::run::Token;

/// Keeps chats, and changes them.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait ChatStore: Send + Sync {
    /// Creates a chat with its first turn, pending.
    ///
    /// A child's parent must be within `reach`, and the child inherits its owner. One that its
    /// parent spawns is refused when the limits of the family are met. Repeated with the same id
    /// it changes nothing and returns the chat as it stands, if that is within reach.
    async fn create(&self, chat: NewChat, reach: Reach) -> Result<Applied, ApplyError>;

    /// Applies `event` to a chat: locks its run, decides, writes, commits.
    ///
    /// For an owner a repeated write changes nothing and returns the chat as it stands.
    async fn apply(&self, chat: ChatId, by: By, event: Event) -> Result<Applied, ApplyError>;

    /// Changes what is no history; `None` when the chat is not there or out of reach.
    ///
    /// It neither locks the chat's run nor moves its version. Limits of a child are refused.
    async fn update(
        &self,
        chat: ChatId,
        reach: Reach,
        patch: ChatPatch,
    ) -> Result<Option<Chat>, ApplyError>;

    /// Returns the history as a model should see it, and where the chat stands in its family.
    async fn prompt(&self, chat: ChatId) -> Result<Prompt, StoreError>;

    /// Returns how a chat stands, for those who wait for its end.
    ///
    /// When it is not at rest, `waiter` is from then on no longer at work for the caps of chats,
    /// until its owner's next write; so what it waits for has room.
    async fn report(
        &self,
        chat: ChatId,
        reach: Reach,
        waiter: Option<Waiter>,
    ) -> Result<Option<Report>, StoreError>;

    /// Returns a chat's ancestors, in one statement that no cycle holds up.
    async fn ancestors(&self, chat: ChatId) -> Result<Lineage, StoreError>;
}

/// What a turn of a chat begins with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prompt {
    /// The history, oldest first.
    ///
    /// It begins at the newest summary, if there is one, with the system messages before it.
    pub messages: Vec<Message>,
    /// How many ancestors the chat has.
    pub depth: usize,
    /// Whether the limits of its family allow a chat of this depth to spawn others.
    pub may_spawn: bool,
}

/// A run that waits for a chat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiter {
    /// Which run.
    pub run: RunId,
    /// Names its owner; the step does not matter.
    pub token: Token,
}

/// Shows chats to those who may see them: what is out of reach is not there.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait ChatReader: Send + Sync {
    /// Returns a chat, `None` when it is not there or out of reach.
    async fn get(&self, chat: ChatId, reach: Reach) -> Result<Option<Chat>, StoreError>;

    /// Returns chats of one owner, the last updated first.
    async fn list(&self, filter: ChatFilter) -> Result<Vec<Chat>, StoreError>;

    /// Returns the children or descendants of a chat, the oldest first; `None` without the chat.
    async fn family(&self, filter: FamilyFilter) -> Result<Option<Vec<Chat>>, StoreError>;

    /// Returns what changed since a version, from the beginning when `since` is `None`.
    async fn changes(
        &self,
        chat: ChatId,
        reach: Reach,
        since: Option<Version>,
    ) -> Result<Option<Changes>, StoreError>;

    /// Returns the turns that wait, the next first; `None` without the chat.
    async fn queue(&self, chat: ChatId, reach: Reach) -> Result<Option<Vec<Queued>>, StoreError>;

    /// Returns the chats of `owner` that changed since `mark`, and those that have something to do.
    ///
    /// Chats of `seen` are returned, too: to rest is a change that is not marked.
    async fn feed(
        &self,
        owner: OwnerId,
        mark: Option<FeedMark>,
        seen: &[ChatId],
    ) -> Result<FeedPage, StoreError>;
}

/// Which relatives of a chat to list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FamilyFilter {
    /// Whose relatives.
    pub of: ChatId,
    /// Within what the caller reaches.
    pub reach: Reach,
    /// Which of them.
    pub kin: Kin,
    /// Where the page before ended.
    pub after: Option<Cursor>,
    /// How many.
    pub limit: Limit,
}

/// How chats are related to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kin {
    /// Its children.
    Children,
    /// All that descend from it, which must be a root.
    Descendants,
}

/// What an owner's feed has seen: every transaction that ended before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct FeedMark(pub i64);

/// What changed among an owner's chats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeedPage {
    /// Where the next page begins; some of what is here may be there again.
    pub mark: FeedMark,
    /// The chats, the last updated first; [`FeedPage::CHATS_MAX`] at most.
    pub chats: Vec<Chat>,
    /// Branches that changed since the mark; [`FeedPage::DIFFS_MAX`] at most.
    pub diffs: Vec<ChatDiff>,
}

impl FeedPage {
    /// Chats of one page, at most: with as many, there may be more.
    pub const CHATS_MAX: u32 = 1_000;

    /// Branches of one page, at most: with as many, there may be more.
    pub const DIFFS_MAX: u32 = 200;
}

/// Who changes a chat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// A user, within reach.
    User(Reach),
    /// A run of an ancestor of the chat, whose lineage was checked.
    ///
    /// What it makes pending does not wait behind what else the owner has pending.
    Ancestor,
    /// The worker that owns its run.
    Owner(Token),
}

/// Which chats to list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChatFilter {
    /// Whose.
    pub owner: OwnerId,
    /// Only archived ones, only others, or both.
    pub archived: Option<bool>,
    /// Where the page before ended.
    pub after: Option<Cursor>,
    /// How many.
    pub limit: Limit,
}

/// An event did not happen to a chat.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// There is no such chat within the caller's reach.
    #[error("there is no such chat")]
    NotFound,
    /// There is no such workspace of the chat's owner.
    #[error("the chat's owner has no such workspace")]
    NoWorkspace,
    /// Somebody else owns the chat's run, or nobody does.
    #[error("the chat's run is owned by somebody else")]
    Fenced,
    /// The chat's state does not allow it.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Storage failed; an owner's write may be sent again.
    #[error(transparent)]
    Store(#[from] StoreError),
}
