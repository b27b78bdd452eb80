//! The ports: where the engine meets storage, notices and those who bring work.
//!
//! A method of a store is one transaction, unless it says otherwise. No type of a runtime or a driver appears here.
//! The feature `mock` gives each port a mockall mock, for tests of loops under paused time.

mod chats;
mod clock;
mod diff;
mod git;
mod metadata;
mod notice;
mod provision;
mod runner;
mod store;

pub use chats::{
    ApplyError, By, ChatFilter, ChatReader, ChatStore, FamilyFilter, FeedMark, FeedPage, Kin,
};
pub use clock::Clock;
pub use diff::{DiffStore, DiffTarget, Select};
pub use git::{FetchError, GitHosts, GitProvider};
pub use metadata::{Agent, AgentFacts, AgentStore, KeyedSample, MetadataStore, NewAgent};
pub use notice::{
    Interest, Notice, Publish, PublishError, Resync, ResyncCause, Topic, Watch, WatchError, Watcher,
};
pub use provision::{BuildContext, ProvisionError, Provisioner};
pub use runner::{
    AwaitError, ChatContext, ChatRunner, ChatTurn, RunContext, Runner, StepError, TurnEnd,
};
pub use store::{
    Backlog, BeatAnswer, BeatStore, Lease, LeaseStore, Reach, Requeued, RunQueue, RunStore,
    StoreError, WorkerState, WriteError,
};

#[cfg(feature = "mock")]
pub use self::{
    chats::{MockChatReader, MockChatStore},
    clock::MockClock,
    diff::MockDiffStore,
    git::{MockGitHosts, MockGitProvider},
    metadata::{MockAgentStore, MockMetadataStore},
    notice::{MockPublish, MockWatch, MockWatcher},
    provision::{MockBuildContext, MockProvisioner},
    runner::{MockChatRunner, MockRunContext, MockRunner},
    store::{MockBeatStore, MockLeaseStore, MockRunQueue, MockRunStore},
};
