//! Identifiers: a newtype for each, so that one is never taken for another.
//!
//! Ids are UUID v7, made by the caller, who therefore knows them before the write
//! and may repeat a write whose answer was lost.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Uuid);

        impl $name {
            /// Names the thing that bears `uuid`.
            pub const fn new(uuid: Uuid) -> Self {
                Self(uuid)
            }

            /// Returns the id as a plain UUID, for storage and the wire.
            pub const fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub i64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

uuid_id! {
    /// A run: the thing that a worker owns. A chat's run bears the chat's id.
    RunId
}
uuid_id! {
    /// A chat.
    ChatId
}
uuid_id! {
    /// One start of a worker process; never reused.
    WorkerId
}
uuid_id! {
    /// Whoever owns chats and tokens.
    OwnerId
}
uuid_id! {
    /// A workspace that a chat works in.
    WorkspaceId
}
uuid_id! {
    /// A build of a workspace; its run bears the same id.
    BuildId
}
uuid_id! {
    /// A template: what workspaces are built from.
    TemplateId
}
uuid_id! {
    /// A version of a template.
    TemplateVersionId
}
uuid_id! {
    /// A preset: parameters with which workspaces of a version of a template are built.
    PresetId
}
uuid_id! {
    /// An agent, who reports of a machine or a workspace.
    AgentId
}
uuid_id! {
    /// An API token, of which only a hash is stored.
    TokenId
}

number_id! {
    /// A stored message; later messages of a chat have higher ids.
    MessageId
}
number_id! {
    /// A message that waits in a chat's queue.
    QueuedId
}
number_id! {
    /// Counts how often a run changed hands; a writer with an old fence is refused.
    Fence
}
number_id! {
    /// Counts the owner's writes to a run; a repeated write is recognised by it.
    Step
}
number_id! {
    /// Counts the changes of a chat that its readers can see: their one cursor.
    Version
}
number_id! {
    /// Counts how often what an agent is to report was replaced.
    DefinitionsVersion
}

impl From<ChatId> for RunId {
    fn from(chat: ChatId) -> Self {
        Self(chat.0)
    }
}

impl From<BuildId> for RunId {
    fn from(build: BuildId) -> Self {
        Self(build.0)
    }
}

impl OwnerId {
    /// For whom prebuilds are built: nobody yet. Their builds take turns with those of people.
    pub const POOL: Self = Self(Uuid::nil());
}

impl Step {
    /// Returns the step that follows this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0 + 1)
    }
}
