use std::error::Error;
use std::time::Duration;

use async_trait::async_trait;

use crate::id::{Fence, OwnerId, RunId, WorkerId};
use crate::roster::RollEntry;
use crate::run::{NewRun, Run, RunEnd, RunKind, RunState};
use crate::sighting::{Overdue, SeenLease};
use crate::timestamp::Timestamp;

/// Says who works: one lease a worker, whatever it owns.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait LeaseStore: Send + Sync {
    /// Registers a worker; repeating it changes nothing.
    async fn register(&self, lease: &Lease) -> Result<(), StoreError>;

    /// Returns a batch of the runs of dead leases to pending, or to error after the
    /// `attempts_max`th time; returns what it requeued.
    ///
    /// Repeat it until nothing is returned. A run that somebody holds locked is left for later.
    async fn requeue(&self, attempts_max: u32) -> Result<Vec<Requeued>, StoreError>;

    /// Removes dead leases that own nothing any more; returns how many.
    async fn forget(&self) -> Result<u64, StoreError>;

    /// Gives runs whose owner has no lease a dead one in its name; returns for how many owners.
    async fn adopt(&self) -> Result<u64, StoreError>;

    /// Ends a worker's lease and returns its runs to pending; returns them, for their wakes.
    ///
    /// Several transactions: what it has done stays done when it fails, and it may be repeated.
    /// From the first on the worker claims nothing, not even by a claim that is on its way.
    async fn resign(&self, worker: WorkerId) -> Result<Vec<RunId>, StoreError>;

    /// Returns all leases with what their workers own, the oldest first.
    async fn workers(&self) -> Result<Vec<WorkerState>, StoreError>;
}

/// Keeps a worker's lease alive and watches those of others, on a connection of its own.
///
/// That connection does nothing else, so no load and no lock of a run holds a beat up. Each
/// call has its time, shorter than a beat's interval. After a call that failed the connection
/// is another one: forget what was seen on the former.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait BeatStore: Send + Sync {
    /// Beats for `worker`; returns its roll, and the leases of all others.
    ///
    /// Without a live lease nothing changes, and [`BeatAnswer::alive`] is false.
    async fn beat(&self, worker: WorkerId) -> Result<BeatAnswer, StoreError>;

    /// Returns the leases of all workers but `worker`.
    async fn look(&self, worker: WorkerId) -> Result<Vec<SeenLease>, StoreError>;

    /// Marks leases dead that still have the beat they were seen with, and that have expired
    /// after `ttl` on the database's clock; returns whose they are.
    ///
    /// A lease that somebody holds locked, as its worker's claim does, is passed over.
    async fn mark(&self, overdue: &[Overdue], ttl: Duration) -> Result<Vec<WorkerId>, StoreError>;
}

/// What a beat returns, read in the same statement.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BeatAnswer {
    /// Whether the worker has a live lease.
    pub alive: bool,
    /// Every run that the table gives to the worker, in no order.
    pub roll: Vec<RollEntry>,
    /// The leases of all others.
    pub leases: Vec<SeenLease>,
}

/// A run of a dead worker that was taken back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requeued {
    /// Which run.
    pub run: RunId,
    /// What sort of work it is.
    pub kind: RunKind,
    /// For whom it works.
    pub owner: OwnerId,
    /// Whether it is pending again; else it stands in error, since its workers keep dying.
    pub pending: bool,
}

/// A worker, as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerState {
    /// How it registered.
    pub lease: Lease,
    /// When it registered.
    pub started_at: Timestamp,
    /// Its last beat.
    pub heartbeat_at: Timestamp,
    /// Time since its last beat, on the database's clock.
    pub beat_age: Duration,
    /// Whether it was marked dead and its runs are being taken back.
    pub dead: bool,
    /// How many runs it owns.
    pub runs: u64,
}

/// A worker as others see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// This start of its process.
    pub worker: WorkerId,
    /// What an operator calls it, such as its host's name.
    pub name: String,
    /// Where other replicas reach it.
    pub advertise_url: Option<String>,
    /// The release that it runs.
    pub release: String,
    /// How many runs it takes.
    pub capacity: u32,
}

/// Says which worker owns which run.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait RunStore: Send + Sync {
    /// Makes `worker` the owner of pending runs of `kind` that it has `room` for; fair between
    /// owners.
    ///
    /// Nothing is claimed for a worker without a lease. No run is given to two workers.
    async fn claim(
        &self,
        worker: WorkerId,
        kind: &RunKind,
        room: Room,
    ) -> Result<Vec<Run>, StoreError>;

    /// Returns how long until a run of `kind` is ready, zero when one is; none is pending: `None`.
    async fn next_ready(&self, kind: &RunKind) -> Result<Option<Duration>, StoreError>;

    /// Writes the end of a run that its runner did not settle.
    async fn finish(&self, run: &Run, end: RunEnd) -> Result<(), WriteError>;

    /// Returns runs of `worker` to pending, each only under its fence; returns those it released.
    ///
    /// They are ready again after `pause`.
    async fn release(
        &self,
        worker: WorkerId,
        runs: &[(RunId, Fence)],
        pause: Duration,
    ) -> Result<Vec<RunId>, StoreError>;

    /// Stamps every run of `worker` with the database's time; returns the same roll as a beat.
    ///
    /// For readers who want a time stamp a run; whether a worker lives its lease says.
    async fn touch_runs(&self, worker: WorkerId) -> Result<Vec<RollEntry>, StoreError>;

    /// Returns owned runs whose stamp is older than `before`, or that have none; 1,000 at most.
    async fn stale_runs(&self, before: Timestamp) -> Result<Vec<RunId>, StoreError>;
}

/// What a worker has room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// How many runs.
    pub runs: u32,
    /// How many ancestors each has at least.
    ///
    /// Who has none may wait for all that descend from it, so the last places are for these.
    pub depth_min: u32,
}

impl Room {
    /// Returns room for so many runs, whatever they descend from.
    pub const fn of(runs: u32) -> Self {
        Self { runs, depth_min: 0 }
    }
}

/// Takes runs in, for those who ask for work of a kind of their own.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait RunQueue: Send + Sync {
    /// Adds a pending run; repeated with the same id it changes nothing and returns false.
    async fn submit(&self, run: &NewRun) -> Result<bool, StoreError>;

    /// Returns a run, `None` when it is not there or out of reach.
    async fn get(&self, run: RunId, reach: Reach) -> Result<Option<RunState>, StoreError>;

    /// Asks for a run to be stopped: by its owner, or by the next when it is pending.
    ///
    /// What is neither owned nor pending stays as it is. Returns the run as it stands then,
    /// `None` when it is not there or out of reach.
    async fn interrupt(&self, run: RunId, reach: Reach) -> Result<Option<RunState>, StoreError>;

    /// Returns how much of a kind waits for a worker.
    async fn backlog(&self, kind: &RunKind) -> Result<Backlog, StoreError>;
}

/// Pending runs of a kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// How many are pending, counted up to [`Backlog::COUNT_MAX`].
    pub pending: u64,
    /// For how long the one that was ready first has been.
    pub oldest: Duration,
}

impl Backlog {
    /// Where counting ends: an exact count of more would cost more than it tells.
    pub const COUNT_MAX: u64 = 10_000;
}

/// Which objects a caller reaches; the rest is not there for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// All.
    Everything,
    /// What this owner owns.
    Of(OwnerId),
}

/// Storage could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached or is overloaded; the same call may succeed later.
    #[error("failed to {operation}: the database is not available")]
    Unavailable {
        /// What was asked.
        operation: &'static str,
        /// What went wrong.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// It refused; the same call fails again.
    #[error("failed to {operation}")]
    Broken {
        /// What was asked.
        operation: &'static str,
        /// What went wrong.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
}

/// An owner's write to a run did not happen.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// Somebody else owns the run, or nobody does.
    #[error("the run is owned by somebody else")]
    Fenced,
    /// Storage failed; the write may or may not have happened and may be sent again.
    #[error(transparent)]
    Store(#[from] StoreError),
}
