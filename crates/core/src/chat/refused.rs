use crate::run::RunStatus;

/// Why an event cannot happen to a chat as it stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The chat is archived.
    #[error("the chat is archived; unarchive it first")]
    Archived,
    /// The chat has a parent, and is archived with its root.
    #[error("the chat has a parent; archive or unarchive the root of its family")]
    IsChild,
    /// An ancestor of the chat to create is archived.
    #[error("the parent is archived; unarchive its family first")]
    ParentArchived,
    /// The chat to create would have too many ancestors.
    #[error("the parent has {depth_max} ancestors, more are not allowed")]
    TooDeep {
        /// The bound that was met.
        depth_max: usize,
    },
    /// The chat to spawn would be deeper in its family than its root allows.
    #[error(
        "subagents may have {depth_max} ancestors at most in this family, and this one would have \
         more; do the work without it, or have subagent_depth_max of the family's root raised"
    )]
    SubagentTooDeep {
        /// The bound that was met.
        depth_max: u32,
    },
    /// As many subagents of the family are at work as its root allows.
    #[error(
        "{at_work_max} subagents of this family may be at work at once, and as many are; wait for \
         one to end, or have subagents_max of the family's root raised"
    )]
    TooManySubagents {
        /// The bound that was met.
        at_work_max: u32,
    },
    /// A chat with a parent was to have limits of its own.
    #[error("the chat has a parent; set limits of subagents at the root of its family")]
    LimitsOfChild,
    /// The queue is full.
    #[error(
        "the chat's queue is full with {queue_max} turns; wait for one to finish or remove one"
    )]
    QueueFull {
        /// The bound that was met.
        queue_max: u32,
    },
    /// The history has no such message.
    #[error("the chat has no such message")]
    NoSuchMessage,
    /// The message is not a user's.
    #[error("only a user's message can be edited")]
    NotAUserMessage,
    /// The queue has no such turn.
    #[error("the chat's queue has no such turn; it may have begun")]
    NoSuchQueued,
    /// An owner's message would follow a call that nobody has answered.
    #[error("a call of a tool is open; answer it first")]
    CallOpen,
    /// An owner's message answers a call that is not open.
    #[error("the answered call of a tool is not open")]
    NoSuchCall,
    /// The chat's status does not allow the event.
    #[error("a chat that is {status} cannot {event}")]
    NotNow {
        /// Where the chat stands.
        status: RunStatus,
        /// What was to happen.
        event: &'static str,
    },
}
