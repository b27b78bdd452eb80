//! The ports: where the engine meets storage, notices and those who bring work.
//!
//! A method of a store is one transaction, unless it says otherwise. No type of a runtime or a driver appears here.
//! The feature `mock` gives each port a mockall mock, for tests of loops under paused time.

mod activity;
mod builds;
mod chats;
mod clock;
mod diff;
mod git;
mod metadata;
mod models;
mod notice;
mod prebuilds;
mod provision;
mod runner;
mod store;
mod templates;
mod turn;
mod workspaces;

pub use activity::ActivityStore;
pub use builds::{BuildStore, Ended};
pub use chats::{
    ApplyError, By, ChatFilter, ChatReader, ChatStore, FamilyFilter, FeedMark, FeedPage, Kin,
    Prompt, Waiter,
};
pub use clock::Clock;
pub use diff::{DiffStore, DiffTarget, Select};
pub use git::{FetchError, GitHosts, GitProvider};
pub use metadata::{Agent, AgentFacts, AgentStore, KeyedSample, MetadataStore, NewAgent};
pub use models::{MODELS_MAX, ModelConfigStore};
pub use notice::{
    Interest, Notice, Publish, PublishError, Resync, ResyncCause, Topic, Watch, WatchError, Watcher,
};
pub use prebuilds::{
    Deleted, DeletionOf, GlobalSnapshot, Pool, Prebuild, PrebuildLead, PrebuildStatus,
    PrebuildStore,
};
pub use provision::{BuildContext, ProvisionError, Provisioner};
pub use runner::{RunContext, Runner, Waiting};
pub use store::{
    Backlog, BeatAnswer, BeatStore, Lease, LeaseStore, Reach, Requeued, Room, RunQueue, RunStore,
    StoreError, WorkerState, WriteError,
};
pub use templates::{NewTemplate, TemplateError, TemplateStore};
pub use turn::{
    AwaitError, CHILDREN_MAX, ChatContext, ChatRunner, ChatTurn, Halt, KinError, NewChild,
    StepError, TurnEnd,
};
pub use workspaces::{Claimed, WorkspaceError, WorkspaceStore};

#[cfg(feature = "mock")]
pub use self::{
    activity::MockActivityStore,
    builds::MockBuildStore,
    chats::{MockChatReader, MockChatStore},
    clock::MockClock,
    diff::MockDiffStore,
    git::{MockGitHosts, MockGitProvider},
    metadata::{MockAgentStore, MockMetadataStore},
    models::MockModelConfigStore,
    notice::{MockPublish, MockWatch, MockWatcher},
    prebuilds::{MockPrebuildLead, MockPrebuildStore},
    provision::{MockBuildContext, MockProvisioner},
    runner::{MockRunContext, MockRunner},
    store::{MockBeatStore, MockLeaseStore, MockRunQueue, MockRunStore},
    templates::MockTemplateStore,
    turn::MockChatRunner,
    workspaces::MockWorkspaceStore,
};
