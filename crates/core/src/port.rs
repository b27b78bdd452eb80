//! The ports: where the engine meets storage, notices and those who bring work.
//!
//! A method of a store is one transaction, unless it says otherwise. No type of a runtime or a driver appears here.
//! The feature `mock` gives each port a mockall mock, for tests of loops under paused time.

mod clock;
mod notice;
mod runner;
mod store;

pub use clock::Clock;
pub use notice::{
    Interest, Notice, Publish, PublishError, Resync, ResyncCause, Topic, Watch, WatchError, Watcher,
};
pub use runner::{ChatRunner, ChatTurn, RunContext, Runner, TurnEnd};
pub use store::{
    ApplyError, Backlog, BeatAnswer, BeatStore, By, ChatFilter, ChatStore, Lease, LeaseStore,
    Reach, Requeued, RunQueue, RunStore, StoreError, WorkerState, WriteError,
};

#[cfg(feature = "mock")]
pub use self::{
    clock::MockClock,
    notice::{MockPublish, MockWatch, MockWatcher},
    runner::{MockChatRunner, MockRunContext, MockRunner},
    store::{MockBeatStore, MockChatStore, MockLeaseStore, MockRunQueue, MockRunStore},
};
