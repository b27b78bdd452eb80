//! What goes over the wire, as JSON.

mod content;
mod diff;
mod request;
mod response;

pub(crate) use diff::{DiffStatus, DiffStatuses, MarkDiff, Marked};
pub(crate) use request::{CreateChat, EditMessage, PatchChat, SendMessage};
pub(crate) use response::{
    Changed, Chat, ChatPage, Edited, Message, MessagePage, Queue, Queued, Report, Sent, Status,
};
