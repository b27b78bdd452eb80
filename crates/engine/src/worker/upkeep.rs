//! What a worker does for runs beside its own work: it takes back what nobody works on.
//!
//! Everything here goes through the pool and may fail: the next beat asks for it again.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use musterbeat_core::id::WorkerId;
use musterbeat_core::port::{Requeued, Runner, StoreError, Topic};
use musterbeat_core::roster::Holding;
use musterbeat_core::run::RunKind;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::{Ports, WorkerOptions};
use crate::metrics::{
    RUNS_GIVEN_UP, RUNS_PENDING, RUNS_PENDING_OLDEST_SECONDS, RUNS_RECOVERED, UPKEEP_FAILURES,
};

/// Time between searches for runs whose owner has no lease.
const ADOPT_INTERVAL: Duration = Duration::from_mins(1);

/// Time between counts of the backlog.
const BACKLOG_INTERVAL: Duration = Duration::from_secs(15);

/// What beats have found to be done.
#[derive(Default)]
pub(super) struct Wanted {
    todo: Mutex<Todo>,
    changed: Notify,
}

#[derive(Default)]
struct Todo {
    /// The orphans of the last roll call: it knows best.
    orphans: Vec<Holding>,
    recovery: bool,
    stamps: bool,
}

impl Wanted {
    /// A beat was answered; these runs nobody works on.
    pub(super) fn beaten(&self, orphans: Vec<Holding>) {
        self.add(|todo| {
            todo.orphans = orphans;
            todo.stamps = true;
        });
    }

    /// There are dead leases.
    pub(super) fn recovery(&self) {
        self.add(|todo| todo.recovery = true);
    }

    fn add(&self, what: impl FnOnce(&mut Todo)) {
        what(&mut self.todo.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.notify_one();
    }

    fn take(&self) -> Todo {
        std::mem::take(&mut *self.todo.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Does what is wanted, for one tenure.
pub(super) struct Upkeep<'a> {
    pub(super) worker: WorkerId,
    pub(super) former: Option<WorkerId>,
    pub(super) ports: &'a Ports,
    pub(super) options: &'a WorkerOptions,
    pub(super) runners: &'a BTreeMap<RunKind, Arc<dyn Runner>>,
    pub(super) wanted: &'a Wanted,
}

impl Upkeep<'_> {
    /// Works for ever.
    pub(super) async fn run(mut self) {
        if let Some(former) = self.former.take() {
            super::resign(self.ports, former).await;
        }
        let (mut adopt_at, mut count_at) = (soon(ADOPT_INTERVAL), Instant::now());
        loop {
            tokio::select! {
                () = self.wanted.changed.notified() => self.carry_out(self.wanted.take()).await,
                () = sleep_until(adopt_at) => {
                    self.adopt().await;
                    adopt_at = soon(ADOPT_INTERVAL);
                }
                () = sleep_until(count_at) => {
                    self.count_backlog().await;
                    count_at = soon(BACKLOG_INTERVAL);
                }
            }
        }
    }

    async fn carry_out(&self, todo: Todo) {
        if !todo.orphans.is_empty() {
            let released = self.release(&todo.orphans).await;
            self.noted("release orphans", released);
        }
        if todo.recovery {
            let recovered = self.recover().await;
            self.noted("recover the runs of dead workers", recovered);
        }
        if todo.stamps && self.options.stamp_runs {
            let stamped = self.ports.runs.touch_runs(self.worker).await;
            self.noted("stamp runs", stamped.map(drop));
        }
    }

    async fn release(&self, orphans: &[Holding]) -> Result<(), StoreError> {
        let released = self.ports.runs.release(self.worker, orphans, Duration::ZERO).await?;
        for run in released {
            tracing::warn!(run.id = %run, "a run was owned and not worked on; it is pending again");
            self.ports.publish.publish(Topic::Pending, run.uuid());
        }
        Ok(())
    }

    /// Takes back the runs of all dead leases, batch by batch, and then forgets the leases.
    async fn recover(&self) -> Result<(), StoreError> {
        loop {
            let requeued = self.ports.leases.requeue(self.options.attempts_max).await?;
            if requeued.is_empty() {
                break;
            }
            for run in requeued {
                self.recovered(&run);
            }
        }
        self.ports.leases.forget().await.map(drop)
    }

    fn recovered(&self, requeued: &Requeued) {
        let kind = requeued.kind.to_string();
        if let Some(runner) = self.runners.get(&requeued.kind) {
            runner.changed(requeued.run, requeued.owner);
        }
        if requeued.pending {
            metrics::counter!(RUNS_RECOVERED.name, "kind" => kind).increment(1);
            self.ports.publish.publish(Topic::Pending, requeued.run.uuid());
        } else {
            metrics::counter!(RUNS_GIVEN_UP.name, "kind" => kind).increment(1);
            tracing::error!(run.id = %requeued.run, "a run's workers keep dying; it stands in error");
        }
    }

    async fn adopt(&self) {
        let adopted = self.ports.leases.adopt().await;
        if matches!(adopted, Ok(1..)) {
            tracing::warn!("runs of workers without a lease were found");
            self.wanted.recovery();
        }
        self.noted("adopt runs without a lease", adopted.map(drop));
    }

    #[expect(clippy::cast_precision_loss, reason = "the count is bounded far below 2^52")]
    async fn count_backlog(&self) {
        for kind in self.runners.keys() {
            match self.ports.queue.backlog(kind).await {
                Ok(backlog) => {
                    let kind = kind.to_string();
                    metrics::gauge!(RUNS_PENDING.name, "kind" => kind.clone())
                        .set(backlog.pending as f64);
                    metrics::gauge!(RUNS_PENDING_OLDEST_SECONDS.name, "kind" => kind)
                        .set(backlog.oldest.as_secs_f64());
                }
                Err(error) => self.noted("count the backlog", Err(error)),
            }
        }
    }

    fn noted(&self, what: &'static str, done: Result<(), StoreError>) {
        if let Err(error) = done {
            metrics::counter!(UPKEEP_FAILURES.name).increment(1);
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, worker.id = %self.worker, "failed to {what}; it is tried again");
        }
    }
}

/// Returns a moment about `interval` from now: replicas spread their work.
fn soon(interval: Duration) -> Instant {
    Instant::now() + interval.mul_f64(0.5 + rand::random::<f64>())
}
