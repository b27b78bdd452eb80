//! What goes over the wire, as JSON.

mod agent;
mod content;
mod diff;
mod model;
mod page;
mod request;
mod response;
mod template;
mod workspace;

pub(crate) use agent::{
    AgentPage, CreateAgent, CreatedAgent, DefineMetadata, Defined, Metadata, ReportEntry, Reported,
    reported,
};
pub(crate) use diff::{DiffStatus, DiffStatuses, MarkDiff, Marked};
pub(crate) use model::{McpServer, ModelConfig, PutModel};
pub(crate) use page::PageQuery;
pub(crate) use request::{CreateChat, EditMessage, PatchChat, SendMessage, checked_model};
pub(crate) use response::{
    Changed, Chat, ChatPage, Edited, Message, MessagePage, Queue, Queued, Report, Sent, Status,
};
pub(crate) use template::{
    AddVersion, CreatePreset, CreateTemplate, PatchPreset, PatchTemplate, Preset, Template,
    TemplateVersion,
};
pub(crate) use workspace::{
    Build, BuildLog, Builds, ClaimPrebuild, CreateWorkspace, Given, Ordered, Pools, Prebuild,
    Workspace, WorkspacePage, log_place,
};
