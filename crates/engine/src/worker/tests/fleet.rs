//! Many workers over one table and one bus of notices, each call and notice taking its time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::MutexGuard;
use std::sync::atomic::AtomicBool;

use musterbeat_core::port::{Interest, PublishError, WatchError};
use musterbeat_core::sighting::{Overdue, SeenLease};
use musterbeat_core::timestamp::Timestamp;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::*;

/// Time that a notice takes, and each half of a call to storage.
pub(super) const LAG: Duration = Duration::from_millis(1);

/// Longer than every test: what happens is due to notices.
const NO_POLL: Duration = Duration::from_hours(10);

pub(super) struct Fleet {
    began: Instant,
    /// Who has a lease, whether or not it works.
    members: Vec<WorkerId>,
    table: Mutex<Table>,
    pub(super) confirmed: AtomicBool,
    /// Whether notices of claims are lost.
    pub(super) deaf: AtomicBool,
    bus: Mutex<Vec<(Topic, UnboundedSender<Notice>)>>,
}

#[derive(Default)]
struct Table {
    pending: BTreeSet<RunId>,
    /// Pending runs that somebody else holds locked.
    locked: BTreeSet<RunId>,
    owned: BTreeMap<RunId, WorkerId>,
    started: BTreeMap<RunId, u64>,
    claims: Vec<(u64, WorkerId)>,
    asked: usize,
}

/// How the workers of a fleet work.
#[derive(Clone, Copy)]
pub(super) struct Manners {
    pub(super) capacity: usize,
    /// How long a run takes.
    pub(super) time: Duration,
    pub(super) poll_interval: Duration,
}

impl Manners {
    /// Endless runs, and no poll.
    pub(super) const DEFAULT: Self =
        Self { capacity: 1_000, time: Duration::from_hours(1), poll_interval: NO_POLL };
}

impl Fleet {
    /// Has `count` workers at work, beside `dead` that have leases only, until all are idle and
    /// know each other.
    pub(super) async fn start(count: u128, dead: u128, manners: Manners) -> Arc<Self> {
        let fleet = Arc::new(Self {
            began: Instant::now(),
            members: (1..=count + dead).map(|id| WorkerId::new(Uuid::from_u128(id))).collect(),
            table: Mutex::default(),
            confirmed: AtomicBool::new(true),
            deaf: AtomicBool::new(false),
            bus: Mutex::default(),
        });
        for worker in fleet.living(count) {
            tokio::spawn(fleet.worker(*worker, manners).run());
        }
        // The first beat comes within an interval.
        sleep(LeaseTimes::DEFAULT.beat_interval() + Duration::from_secs(1)).await;
        fleet.table().claims.clear();
        fleet.table().asked = 0;
        fleet
    }

    pub(super) fn living(&self, count: u128) -> &[WorkerId] {
        &self.members[..usize::try_from(count).unwrap()]
    }

    pub(super) fn members(&self) -> &[WorkerId] {
        &self.members
    }

    fn worker(self: &Arc<Self>, worker: WorkerId, manners: Manners) -> Worker {
        let mut leases = MockLeaseStore::new();
        leases.expect_register().returning(|_| Ok(()));
        leases.expect_adopt().returning(|| Ok(0));
        let ports = Ports {
            leases: Arc::new(leases),
            beats: Arc::clone(self) as _,
            runs: Arc::clone(self) as _,
            queue: Arc::new(queue()),
            publish: Arc::clone(self) as _,
            watch: Arc::clone(self) as _,
            clock: Arc::new(RuntimeClock::new()),
        };
        let lease = Lease {
            worker,
            name: "test".to_owned(),
            advertise_url: None,
            release: "0".to_owned(),
            capacity: 1,
        };
        let runner = Arc::new(Timed { time: manners.time, fleet: Arc::clone(self) });
        let serving = vec![Serving { runner, capacity: manners.capacity }];
        let options =
            WorkerOptions { poll_interval: manners.poll_interval, ..WorkerOptions::new(lease) };
        Worker::new(ports, serving, PartStreams::default(), options, <_>::default())
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap()
    }

    /// Returns the time in milliseconds.
    pub(super) fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap()
    }

    /// Makes runs pending, each with a notice of its own.
    pub(super) fn submit(&self, runs: impl IntoIterator<Item = RunId>) {
        for run in runs {
            self.table().pending.insert(run);
            self.publish(Topic::Pending, run.uuid());
        }
    }

    /// Has somebody hold a pending run locked, and claim it after `time`.
    pub(super) fn lock(self: &Arc<Self>, run: RunId, time: Duration) {
        self.table().locked.insert(run);
        let fleet = Arc::clone(self);
        tokio::spawn(async move {
            sleep(time).await;
            let mut table = fleet.table();
            table.locked.remove(&run);
            table.pending.remove(&run);
        });
    }

    pub(super) fn notify(&self, topic: Topic, notice: &Notice) {
        let bus = self.bus.lock().unwrap();
        let reached: Vec<_> = bus
            .iter()
            .filter(|(watched, _)| *watched == topic)
            .map(|(_, watcher)| watcher.clone())
            .collect();
        let notice = notice.clone();
        tokio::spawn(async move {
            sleep(LAG).await;
            for watcher in reached {
                // A worker that has ended hears nothing.
                let _ = watcher.send(notice.clone());
            }
        });
    }

    /// Returns when each run started, in milliseconds, in the order of the runs.
    pub(super) fn started(&self) -> Vec<u64> {
        self.table().started.values().copied().collect()
    }

    pub(super) fn owner(&self, run: RunId) -> Option<WorkerId> {
        self.table().owned.get(&run).copied()
    }

    /// Returns when each claim reached the table, in milliseconds, and whose it was.
    pub(super) fn claims(&self) -> Vec<(u64, WorkerId)> {
        self.table().claims.clone()
    }

    /// Returns how often a worker asked for the next ready run.
    pub(super) fn asked(&self) -> usize {
        self.table().asked
    }
}

struct Timed {
    time: Duration,
    fleet: Arc<Fleet>,
}

#[async_trait]
impl Runner for Timed {
    fn kind(&self) -> RunKind {
        RunKind::new("timed").unwrap()
    }

    async fn run(&self, run: Run, _: Arc<dyn RunContext>) -> Outcome {
        let now = self.fleet.now();
        self.fleet.table().started.insert(run.id, now);
        sleep(self.time).await;
        Outcome::Done
    }
}

#[async_trait]
impl Publish for Fleet {
    fn publish(&self, topic: Topic, id: Uuid) {
        if topic == Topic::Pending || !self.deaf.load(Ordering::Relaxed) {
            self.notify(topic, &Notice::Changed([id].into()));
        }
    }

    fn publish_all(&self, topic: Topic, ids: &[Uuid]) {
        for id in ids {
            self.publish(topic, *id);
        }
    }

    async fn flush(&self) -> Result<(), PublishError> {
        Ok(())
    }
}

struct Ear(UnboundedReceiver<Notice>);

#[async_trait]
impl Watcher for Ear {
    async fn recv(&mut self) -> Notice {
        let mut marks = BTreeSet::new();
        let mut notice = Some(self.0.recv().await.unwrap());
        while let Some(next) = notice {
            match next {
                Notice::Changed(ids) => marks.extend(ids),
                Notice::Resync(_) => return next,
            }
            notice = self.0.try_recv().ok();
        }
        Notice::Changed(marks)
    }
}

#[async_trait]
impl Watch for Fleet {
    async fn watch(&self, topic: Topic, _: Interest) -> Result<Box<dyn Watcher>, WatchError> {
        let (sender, receiver) = unbounded_channel();
        self.bus.lock().unwrap().push((topic, sender));
        Ok(Box::new(Ear(receiver)))
    }

    fn is_confirmed(&self) -> bool {
        self.confirmed.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl BeatStore for Fleet {
    async fn beat(&self, worker: WorkerId) -> Result<BeatAnswer, StoreError> {
        let table = self.table();
        let mine = table.owned.iter().filter(|(_, owner)| **owner == worker);
        let roll = mine.map(|(run, _)| RollEntry { run: *run, fence: Fence(1), stop: false });
        let heartbeat_at = Timestamp::from_micros(self.now().cast_signed()).unwrap();
        let others = self.members.iter().filter(|member| **member != worker);
        let leases = others.map(|other| SeenLease { worker: *other, heartbeat_at, dead: false });
        Ok(BeatAnswer { alive: true, roll: roll.collect(), leases: leases.collect() })
    }

    async fn look(&self, _: WorkerId) -> Result<Vec<SeenLease>, StoreError> {
        unreachable!("no lease is late")
    }

    async fn mark(&self, _: &[Overdue], _: Duration) -> Result<Vec<WorkerId>, StoreError> {
        unreachable!("no lease is overdue")
    }
}

#[async_trait]
impl RunStore for Fleet {
    async fn claim(
        &self,
        worker: WorkerId,
        kind: &RunKind,
        room: Room,
    ) -> Result<Vec<Run>, StoreError> {
        sleep(LAG).await;
        let claimed: Vec<_> = {
            let mut table = self.table();
            table.claims.push((self.now(), worker));
            let free = table.pending.difference(&table.locked);
            let claimed: Vec<_> = free.copied().take(room.runs as usize).collect();
            for run in &claimed {
                table.pending.remove(run);
                table.owned.insert(*run, worker);
            }
            claimed
        };
        sleep(LAG).await;
        Ok(claimed.into_iter().map(|id| run(id.uuid().as_u128(), worker, kind)).collect())
    }

    async fn next_ready(&self, _: &RunKind) -> Result<Option<Duration>, StoreError> {
        let mut table = self.table();
        table.asked += 1;
        Ok((!table.pending.is_empty()).then_some(Duration::ZERO))
    }

    async fn finish(&self, run: &Run, _: RunEnd) -> Result<(), WriteError> {
        self.table().owned.remove(&run.id);
        Ok(())
    }

    async fn release(
        &self,
        _: WorkerId,
        _: &[(RunId, Fence)],
        _: Duration,
    ) -> Result<Vec<RunId>, StoreError> {
        unreachable!("nothing is given back")
    }

    async fn touch_runs(&self, _: WorkerId) -> Result<Vec<RollEntry>, StoreError> {
        unreachable!("no run is stamped")
    }

    async fn stale_runs(&self, _: Timestamp) -> Result<Vec<RunId>, StoreError> {
        unreachable!("nobody asks")
    }
}
