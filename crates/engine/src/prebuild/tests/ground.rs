//! Pools in memory, whose builds wait for ever, and what was done about them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex as StdMutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use async_trait::async_trait;
use musterbeat_core::port::{MockPublish, MockWatch, Prebuild};
use musterbeat_core::prebuild::{Failures, Health, PoolName, PresetSnapshot, Schedules};
use tokio::sync::{Notify, Semaphore};
use uuid::Uuid;

use super::super::*;

/// A preset that is active and healthy, and wants and has nothing.
pub(super) fn pool(number: u128) -> Pool {
    Pool {
        name: PoolName { template: "rust".to_owned(), preset: format!("{number}") },
        preset: PresetSnapshot {
            preset: PresetId::new(Uuid::from_u128(number)),
            is_active: true,
            desired: 0,
            schedules: Schedules::default(),
            health: Health::Healthy,
            running: 0,
            eligible: 0,
            expired: 0,
            starting: 0,
            pending: 0,
            deleting: 0,
            failed: 0,
            failures: Failures::default(),
        },
        oldest: None,
    }
}

/// A preset that wants `desired` more than it has.
pub(super) fn wanting(number: u128, desired: u32) -> Pool {
    let pool = pool(number);
    Pool { preset: PresetSnapshot { desired, ..pool.preset }, ..pool }
}

pub(super) fn away() -> StoreError {
    StoreError::Unavailable { operation: "test", source: "away".into() }
}

/// What all who supply have in common.
pub(super) struct Ground {
    began: Instant,
    pub(super) pools: StdMutex<BTreeMap<PresetId, Pool>>,
    pub(super) paused: AtomicBool,
    /// Snapshots that fail.
    pub(super) outages: AtomicUsize,
    /// Builds of deleted workspaces that are old, and how often somebody forgot some.
    pub(super) old_prebuilds: AtomicU64,
    pub(super) old_workspaces: AtomicU64,
    pub(super) forgets: AtomicUsize,
    leader: StdMutex<Option<usize>>,
    /// When somebody looked.
    looks: StdMutex<Vec<Duration>>,
    looked: Notify,
    done: StdMutex<Vec<String>>,
    /// Each step for it fails.
    fails: Option<u128>,
    /// Each step for it panics.
    panics: Option<u128>,
    pub(super) at_once: AtomicUsize,
    pub(super) at_once_max: AtomicUsize,
    /// Steps that may be done.
    pub(super) gate: Semaphore,
    pub(super) woken: StdMutex<Vec<Uuid>>,
    changed: Arc<Notify>,
}

impl Ground {
    pub(super) fn of(pools: impl IntoIterator<Item = Pool>) -> Self {
        let pools = pools.into_iter().map(|pool| (pool.preset.preset, pool)).collect();
        Self {
            began: Instant::now(),
            pools: StdMutex::new(pools),
            paused: AtomicBool::default(),
            outages: AtomicUsize::default(),
            old_prebuilds: AtomicU64::new(0),
            old_workspaces: AtomicU64::new(0),
            forgets: AtomicUsize::new(0),
            leader: StdMutex::default(),
            looks: StdMutex::default(),
            looked: Notify::default(),
            done: StdMutex::default(),
            fails: None,
            panics: None,
            at_once: AtomicUsize::default(),
            at_once_max: AtomicUsize::default(),
            gate: Semaphore::new(Semaphore::MAX_PERMITS),
            woken: StdMutex::default(),
            changed: Arc::default(),
        }
    }

    /// Has each step for one preset fail, and each for another panic.
    pub(super) fn with_faults(self, fails: u128, panics: u128) -> Self {
        Self { fails: Some(fails), panics: Some(panics), ..self }
    }

    /// Has each step wait until the gate lets it pass.
    pub(super) fn with_gate(self) -> Self {
        Self { gate: Semaphore::new(0), ..self }
    }

    /// Returns a process that supplies; `number` tells it from others.
    pub(super) fn reconciler(
        self: &Arc<Self>,
        number: usize,
        options: ReconcileOptions,
    ) -> Reconciler {
        let ports = ReconcilePorts {
            lead: Arc::new(Lead(number, Arc::clone(self))),
            prebuilds: Arc::new(Store(Arc::clone(self))),
            publish: Arc::new(self.publish()),
            watch: Arc::new(self.watch()),
        };
        Reconciler::new(ports, options)
    }

    /// The database's time.
    pub(super) fn now(&self) -> Timestamp {
        Timestamp::from_micros(1_800_000_000_000_000).unwrap().after(self.began.elapsed()).unwrap()
    }

    /// Tells all who watch that something changed.
    pub(super) fn tell(&self) {
        self.changed.notify_waiters();
        self.changed.notify_one();
    }

    /// Returns what was done, sorted.
    pub(super) fn done(&self) -> Vec<String> {
        let mut done = self.done.lock().unwrap().clone();
        done.sort();
        done
    }

    /// Returns when somebody looked, in milliseconds.
    pub(super) fn looks(&self) -> Vec<u128> {
        self.looks.lock().unwrap().iter().map(Duration::as_millis).collect()
    }

    /// Waits until somebody has looked `count` times, and has done what they could.
    pub(super) async fn looked(&self, count: usize) {
        while self.looks().len() < count {
            self.looked.notified().await;
        }
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
    }

    pub(super) fn change(&self, number: u128, change: impl FnOnce(&mut PresetSnapshot)) {
        let preset = PresetId::new(Uuid::from_u128(number));
        change(&mut self.pools.lock().unwrap().get_mut(&preset).unwrap().preset);
    }

    pub(super) fn leader(&self) -> Option<usize> {
        *self.leader.lock().unwrap()
    }

    fn publish(self: &Arc<Self>) -> MockPublish {
        let mut publish = MockPublish::new();
        let ground = Arc::clone(self);
        publish.expect_publish_all().returning(move |topic, ids| {
            assert_eq!(topic, Topic::Pending);
            ground.woken.lock().unwrap().extend(ids);
        });
        publish
    }

    fn watch(self: &Arc<Self>) -> MockWatch {
        let mut watch = MockWatch::new();
        let changed = Arc::clone(&self.changed);
        watch.expect_watch().returning(move |topic, _| {
            assert_eq!(topic, Topic::Pool);
            Ok(Box::new(Changes(Arc::clone(&changed))))
        });
        watch
    }

    /// Does a step for a preset, when its turn comes.
    async fn step(
        &self,
        preset: PresetId,
        what: String,
        change: impl FnOnce(&mut PresetSnapshot),
    ) -> Result<Vec<BuildId>, StoreError> {
        let at_once = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        self.at_once_max.fetch_max(at_once, Ordering::SeqCst);
        self.gate.acquire().await.unwrap().forget();
        self.at_once.fetch_sub(1, Ordering::SeqCst);
        let number = preset.uuid().as_u128();
        self.done.lock().unwrap().push(format!("{number}: {what}"));
        assert!(self.panics != Some(number), "a fault of the test");
        if self.fails == Some(number) {
            return Err(away());
        }
        self.change(number, change);
        Ok(vec![BuildId::new(preset.uuid())])
    }
}

struct Changes(Arc<Notify>);

#[async_trait]
impl Watcher for Changes {
    async fn recv(&mut self) -> Notice {
        self.0.notified().await;
        Notice::Changed(BTreeSet::new())
    }
}

struct Lead(usize, Arc<Ground>);

#[async_trait]
impl PrebuildLead for Lead {
    async fn snapshot(&self, lookback: Duration) -> Result<Option<GlobalSnapshot>, StoreError> {
        let Self(number, ground) = self;
        assert_eq!(lookback, LOOKBACK);
        ground.looks.lock().unwrap().push(ground.began.elapsed());
        ground.looked.notify_one();
        let outage = |left: usize| left.checked_sub(1);
        if ground.outages.fetch_update(Ordering::SeqCst, Ordering::SeqCst, outage).is_ok() {
            return Err(away());
        }
        if *ground.leader.lock().unwrap().get_or_insert(*number) != *number {
            return Ok(None);
        }
        let paused = ground.paused.load(Ordering::SeqCst);
        let pools = ground.pools.lock().unwrap();
        Ok(Some(GlobalSnapshot {
            taken_at: ground.now(),
            paused,
            presets_total: pools.len() as u64 + 100,
            pools: if paused { vec![] } else { pools.values().cloned().collect() },
        }))
    }

    async fn resign(&self) {
        let mut leader = self.1.leader.lock().unwrap();
        if *leader == Some(self.0) {
            *leader = None;
        }
    }
}

struct Store(Arc<Ground>);

#[async_trait]
impl PrebuildStore for Store {
    async fn create(&self, preset: PresetId, wanted: u32) -> Result<Vec<BuildId>, StoreError> {
        let step = self.0.step(preset, format!("create {wanted}"), |pool| {
            pool.starting = wanted - pool.running;
        });
        step.await
    }

    async fn delete(
        &self,
        preset: PresetId,
        which: DeletionOf,
        limit: u32,
    ) -> Result<Vec<BuildId>, StoreError> {
        let step = self.0.step(preset, format!("delete {limit} {which:?}"), |pool| match which {
            DeletionOf::Outdated => (pool.running, pool.expired) = (0, 0),
            DeletionOf::Expired => pool.expired = 0,
            DeletionOf::Failed => pool.failed = 0,
            DeletionOf::Extraneous { wanted } => pool.running = wanted,
        });
        step.await
    }

    async fn cancel(&self, preset: PresetId, limit: u32) -> Result<u64, StoreError> {
        self.0.step(preset, format!("cancel {limit}"), |pool| pool.pending = 0).await?;
        Ok(limit.into())
    }

    async fn mark_hard_limited(
        &self,
        preset: PresetId,
        failures: NonZeroU32,
    ) -> Result<bool, StoreError> {
        let mark = |pool: &mut PresetSnapshot| pool.health = Health::HardLimited;
        self.0.step(preset, format!("mark after {failures}"), mark).await?;
        Ok(true)
    }

    async fn pools(&self, _: Option<PresetId>) -> Result<GlobalSnapshot, StoreError> {
        unreachable!("it is for people")
    }

    async fn prebuilds(&self, _: PresetId) -> Result<Vec<Prebuild>, StoreError> {
        unreachable!("it is for people")
    }

    async fn forget(
        &self,
        which: Deleted,
        history: Duration,
        limit: u32,
    ) -> Result<u64, StoreError> {
        let (old, of) = match which {
            Deleted::Prebuilds => (&self.0.old_prebuilds, PREBUILD_HISTORY),
            Deleted::Workspaces => (&self.0.old_workspaces, WORKSPACE_HISTORY),
        };
        assert_eq!(history, of);
        let forgotten = u64::from(limit).min(old.load(Ordering::SeqCst));
        old.fetch_sub(forgotten, Ordering::SeqCst);
        self.0.forgets.fetch_add(1, Ordering::SeqCst);
        Ok(forgotten)
    }

    async fn pause(&self, _: bool) -> Result<(), StoreError> {
        unreachable!("it is for people")
    }
}
