//! What goes over the wire, as JSON.

mod agent;
mod content;
mod diff;
mod request;
mod response;

pub(crate) use agent::{
    AgentPage, CreateAgent, CreatedAgent, DefineMetadata, Defined, Metadata, ReportEntry, Reported,
    reported,
};
pub(crate) use diff::{DiffStatus, DiffStatuses, MarkDiff, Marked};
pub(crate) use request::{CreateChat, EditMessage, PatchChat, SendMessage};
pub(crate) use response::{
    Changed, Chat, ChatPage, Edited, Message, MessagePage, Queue, Queued, Report, Sent, Status,
};
