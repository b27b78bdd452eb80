//! Supplies pools of prebuilds: counts them all in one statement, and does what is to be done for
//! each preset, a few at a time.
//!
//! Of all processes one leads, which is the one that the database's lock belongs to. Whoever leads
//! no more may still be at work for a moment; that does no harm, since each action looks again
//! under locks of its own.

mod gauges;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::iter;
use musterbeat_core::id::{BuildId, PresetId};
use musterbeat_core::port::{
    Deleted, DeletionOf, GlobalSnapshot, Notice, Pool, PrebuildLead, PrebuildStore, Publish,
    StoreError, Topic, Watch, Watcher,
};
use musterbeat_core::prebuild::{Action, Limits, Plan, State};
use musterbeat_core::timestamp::Timestamp;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use self::gauges::Gauges;
use crate::metrics::{
    PREBUILDS_CREATED, RECONCILE_ACTIONS, RECONCILE_FAILURES, RECONCILE_LEADS, RECONCILE_SECONDS,
};
use crate::notices::watch_all;
use crate::panic::caught;

/// Default time between two looks at all pools.
pub const INTERVAL: Duration = Duration::from_mins(1);

/// Default time after which failures are forgotten.
pub const LOOKBACK: Duration = Duration::from_hours(1);

/// Default time for which deleted prebuilds are remembered.
pub const PREBUILD_HISTORY: Duration = Duration::from_hours(7 * 24);

/// Default time for which deleted workspaces are remembered that were somebody's.
pub const WORKSPACE_HISTORY: Duration = Duration::from_hours(90 * 24);

/// Time between two times that old ones are forgotten.
const FORGET_INTERVAL: Duration = Duration::from_hours(1);

/// Builds that one statement forgets, at most.
const FORGET_BATCH: u32 = 500;

/// Longest time until one who does not lead tries again to.
const FOLLOW_INTERVAL: Duration = Duration::from_secs(10);

/// Shortest time between two looks, however much is claimed.
const LOOK_PAUSE: Duration = Duration::from_millis(200);

/// What supplying pools takes.
#[derive(Clone)]
pub struct ReconcilePorts {
    /// Says who leads, and how pools stand.
    pub lead: Arc<dyn PrebuildLead>,
    /// Orders what is to be built and deleted.
    pub prebuilds: Arc<dyn PrebuildStore>,
    /// Wakes those who build.
    pub publish: Arc<dyn Publish>,
    /// Tells what was claimed, failed or changed.
    pub watch: Arc<dyn Watch>,
}

/// How pools are supplied.
#[derive(Clone, Copy, Debug)]
pub struct ReconcileOptions {
    /// Longest time between two looks at all pools.
    pub interval: Duration,
    /// How failures are met.
    pub limits: Limits,
    /// After what time they are forgotten.
    pub lookback: Duration,
    /// How long prebuilds that were deleted are remembered, with their builds.
    pub prebuild_history: Duration,
    /// How long workspaces that were deleted and somebody's are remembered, with their builds.
    pub workspace_history: Duration,
    /// Presets that are worked on at once; see [`musterbeat_core::prebuild::concurrency`].
    pub concurrency: NonZeroU32,
}

/// What one look at all pools came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReconcileStats {
    /// Whether this process leads; the rest is zero if not.
    pub leads: bool,
    /// Time that it took.
    pub elapsed: Duration,
    /// Presets that there are.
    pub presets_total: u64,
    /// Of those, the ones for which something was done.
    pub presets_reconciled: u64,
    /// How long until a preset may be built that is held back after failures; the first of them.
    pub next: Option<Duration>,
}

/// Supplies pools. Clones share it.
#[derive(Clone)]
pub struct Reconciler(Arc<Shared>);

struct Shared {
    ports: ReconcilePorts,
    options: ReconcileOptions,
    gauges: Mutex<Gauges>,
}

impl Reconciler {
    /// Supplies through `ports`.
    pub fn new(ports: ReconcilePorts, options: ReconcileOptions) -> Self {
        Self(Arc::new(Shared { ports, options, gauges: Mutex::default() }))
    }

    /// Looks at all pools once, and does what is to be done.
    ///
    /// What fails for one preset is logged and counted, and stops no other.
    ///
    /// # Errors
    /// The pools could not be looked at.
    pub async fn reconcile_all(&self) -> Result<ReconcileStats, StoreError> {
        let Shared { ports, options, gauges } = &*self.0;
        let began = Instant::now();
        // Held for the whole of it: two looks of one process come one after the other.
        let mut gauges = gauges.lock().await;
        let Some(snapshot) = ports.lead.snapshot(options.lookback).await? else {
            gauges.follow();
            return Ok(ReconcileStats::default());
        };
        gauges.lead(&snapshot);
        let GlobalSnapshot { taken_at, presets_total, pools, .. } = snapshot;
        let planned = pools.into_iter().filter_map(|pool| {
            let plan = pool.preset.plan(taken_at, &options.limits);
            (!plan.is_empty() || plan.backoff_until.is_some()).then_some((pool, plan))
        });
        let planned: Vec<_> = planned.collect();
        let next = planned.iter().filter_map(|(_, plan)| plan.backoff_until).min();
        let planned = planned.into_iter().filter(|(_, plan)| !plan.is_empty());
        let done = iter(planned.map(|(pool, plan)| self.attend(pool, plan, taken_at)))
            .buffer_unordered(options.concurrency.get() as usize)
            .count()
            .await;
        let elapsed = began.elapsed();
        metrics::histogram!(RECONCILE_SECONDS.name).record(elapsed);
        Ok(ReconcileStats {
            leads: true,
            elapsed,
            presets_total,
            presets_reconciled: done as u64,
            next: next.map(|until| until.since(taken_at)),
        })
    }

    /// Looks each interval, and soon after something was claimed, failed or changed, until `end`.
    ///
    /// The end breaks off what is under way: each action is done as a whole or not at all.
    pub async fn run(self, end: CancellationToken) {
        let Shared { ports, options, .. } = &*self.0;
        let work = async {
            let mut changes = watch_all(&*ports.watch, Topic::Pool).await;
            let mut forgets_at = Instant::now();
            loop {
                let looked = self.looked().await;
                if looked.leads && forgets_at <= Instant::now() {
                    forgets_at = Instant::now() + FORGET_INTERVAL;
                    self.forget().await;
                }
                let interval = if looked.leads {
                    looked.next.map_or(options.interval, |next| next.min(options.interval))
                } else {
                    options.interval.min(FOLLOW_INTERVAL)
                };
                // A whole cycle's jitter would make refills after failures late for nothing.
                let until = Instant::now() + interval.max(LOOK_PAUSE);
                sleep(LOOK_PAUSE).await;
                wait(&mut *changes, until, looked.leads).await;
            }
        };
        tokio::select! {
            // The end first: nothing is begun after it.
            biased;
            () = end.cancelled() => {}
            () = work => {}
        }
        ports.lead.resign().await;
    }

    /// Forgets what was deleted long ago; what fails is tried again the next time.
    async fn forget(&self) {
        let options = &self.0.options;
        self.forget_those(Deleted::Prebuilds, options.prebuild_history).await;
        self.forget_those(Deleted::Workspaces, options.workspace_history).await;
    }

    async fn forget_those(&self, which: Deleted, history: Duration) {
        loop {
            match self.0.ports.prebuilds.forget(which, history, FORGET_BATCH).await {
                Ok(forgotten) => {
                    metrics::counter!(RECONCILE_ACTIONS.name, "action" => "forget")
                        .increment(forgotten);
                    if forgotten < FORGET_BATCH.into() {
                        return;
                    }
                }
                Err(error) => {
                    metrics::counter!(RECONCILE_FAILURES.name, "step" => "forget").increment(1);
                    tracing::warn!(
                        error = &error as &dyn std::error::Error,
                        "deleted workspaces cannot be forgotten for now"
                    );
                    return;
                }
            }
        }
    }

    /// Looks once, whatever goes wrong.
    async fn looked(&self) -> ReconcileStats {
        match self.reconcile_all().await {
            Ok(stats) => stats,
            Err(error) => {
                metrics::counter!(RECONCILE_FAILURES.name, "step" => "snapshot").increment(1);
                metrics::gauge!(RECONCILE_LEADS.name).set(0.0);
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the pools of prebuilds cannot be looked at for now"
                );
                ReconcileStats::default()
            }
        }
    }

    /// Does what is planned for one preset, step by step; what fails is tried again at the next
    /// look.
    async fn attend(&self, pool: Pool, plan: Plan, now: Timestamp) {
        let work = async {
            if plan.marks_hard_limited {
                self.mark_hard_limited(&pool).await;
            }
            let state = pool.preset.state(now);
            for action in &plan.actions {
                if let Err(error) = self.carry_out(&pool, *action, &state).await {
                    metrics::counter!(RECONCILE_FAILURES.name, "step" => name(*action))
                        .increment(1);
                    tracing::warn!(
                        preset.id = %pool.preset.preset,
                        action = name(*action),
                        error = &error as &dyn std::error::Error,
                        "a pool of prebuilds could not be supplied"
                    );
                }
            }
        };
        if let Err(panicked) = caught("the supply of a pool", work).await {
            metrics::counter!(RECONCILE_FAILURES.name, "step" => "panic").increment(1);
            tracing::error!(preset.id = %pool.preset.preset, panicked, "a pool met a fault");
        }
    }

    async fn carry_out(
        &self,
        pool: &Pool,
        action: Action,
        state: &State,
    ) -> Result<(), StoreError> {
        let (prebuilds, preset) = (&self.0.ports.prebuilds, pool.preset.preset);
        let delete = async |which, limit| {
            let builds = prebuilds.delete(preset, which, limit).await?;
            Ok::<_, StoreError>(self.ordered(&builds))
        };
        let done = match action {
            Action::CancelPending(limit) => prebuilds.cancel(preset, limit).await?,
            Action::DeleteOutdated(limit) => delete(DeletionOf::Outdated, limit).await?,
            Action::DeleteExpired(limit) => delete(DeletionOf::Expired, limit).await?,
            Action::DeleteFailed(limit) => delete(DeletionOf::Failed, limit).await?,
            Action::DeleteExtraneous(limit) => {
                delete(DeletionOf::Extraneous { wanted: state.desired }, limit).await?
            }
            Action::Create(_) => {
                let created = self.ordered(&prebuilds.create(preset, state.desired).await?);
                let labels = [
                    ("template_name", pool.name.template.clone()),
                    ("preset_name", pool.name.preset.clone()),
                ];
                metrics::counter!(PREBUILDS_CREATED.name, &labels).increment(created);
                created
            }
        };
        metrics::counter!(RECONCILE_ACTIONS.name, "action" => name(action)).increment(done);
        Ok(())
    }

    async fn mark_hard_limited(&self, pool: &Pool) {
        let Shared { ports, options, .. } = &*self.0;
        let Some(limit) = options.limits.failure_hard_limit else { return };
        let preset: PresetId = pool.preset.preset;
        match ports.prebuilds.mark_hard_limited(preset, limit).await {
            Ok(true) => tracing::error!(
                preset.id = %preset,
                template = pool.name.template,
                preset.name = pool.name.preset,
                failures = pool.preset.failures.in_a_row,
                "builds of a preset keep failing; no prebuild of it is made until it is edited or \
                 a new version is active"
            ),
            Ok(false) => {}
            Err(error) => tracing::warn!(
                preset.id = %preset,
                error = &error as &dyn std::error::Error,
                "a preset could not be marked as hard limited"
            ),
        }
    }

    /// Wakes those who build; returns how many builds there are.
    fn ordered(&self, builds: &[BuildId]) -> u64 {
        let runs: Vec<_> = builds.iter().map(|build| build.uuid()).collect();
        self.0.ports.publish.publish_all(Topic::Pending, &runs);
        runs.len() as u64
    }
}

/// Waits until it is time, or something happened that the leader should look at.
async fn wait(changes: &mut dyn Watcher, until: Instant, leads: bool) {
    if !leads {
        return sleep_until(until).await;
    }
    tokio::select! {
        () = sleep_until(until) => {}
        Notice::Changed(_) | Notice::Resync(_) = changes.recv() => {}
    }
}

/// Returns the word that metrics use for an action.
const fn name(action: Action) -> &'static str {
    match action {
        Action::CancelPending(_) => "cancel_pending",
        Action::DeleteOutdated(_) => "delete_outdated",
        Action::DeleteExpired(_) => "delete_expired",
        Action::DeleteFailed(_) => "delete_failed",
        Action::DeleteExtraneous(_) => "delete_extraneous",
        Action::Create(_) => "create",
    }
}

#[cfg(test)]
mod tests;
