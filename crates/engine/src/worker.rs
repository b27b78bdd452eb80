//! The worker: it claims runs, has them run, and sees to their end.

mod pool;

use std::sync::Arc;
use std::time::Duration;

use musterbeat_core::id::WorkerId;
use musterbeat_core::port::{
    Interest, Lease, LeaseStore, Notice, Publish, RunStore, Runner, Topic, Watch, Watcher,
};
use musterbeat_core::run::StopCause;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::parts::PartStreams;
use crate::retry::BACKOFF;
use crate::shutdown::Shutdown;
use pool::Pool;

/// Where a worker meets the world.
#[derive(Clone)]
pub struct Ports {
    /// Says who works.
    pub leases: Arc<dyn LeaseStore>,
    /// Says who owns what.
    pub runs: Arc<dyn RunStore>,
    /// Wakes other workers.
    pub publish: Arc<dyn Publish>,
    /// Wakes this one.
    pub watch: Arc<dyn Watch>,
}

/// A kind of run that a worker takes.
pub struct Serving {
    /// Who does the work.
    pub runner: Arc<dyn Runner>,
    /// How many of its runs the worker owns at once, at most.
    pub capacity: usize,
}

/// How a worker behaves.
#[derive(Clone, Debug)]
pub struct WorkerOptions {
    /// How others see it; its id is fresh for each start of a process.
    pub lease: Lease,
    /// Runs that one claim takes, at most: more would hold their rows' locks for long.
    pub claim_batch: u32,
    /// Longest wait before it looks for work again, whatever notices say.
    pub poll_interval: Duration,
    /// How long runs may go on after the end was asked for.
    pub drain_timeout: Duration,
}

/// Runs claimed at once by default, where a batch costs little more than a single claim.
pub const CLAIM_BATCH: u32 = 100;

/// Default longest wait before looking for work.
pub const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Default time that runs get to finish.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Wait before a run is tried again that is ready but that somebody holds locked.
const LOCKED_RETRY: Duration = Duration::from_millis(25);

/// How long runs may take to stop when they are told to; then they are ended where they stand.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the last statement of a worker may take; its lease expires by itself later.
const RESIGN_TIMEOUT: Duration = Duration::from_secs(5);

/// Claims runs of the kinds that it serves and has them run, until it is asked to end.
///
/// It looks for work when it starts, when a notice says so, when a run ends while more was
/// pending, and after [`WorkerOptions::poll_interval`] at the latest: a notice is a hint,
/// the table is the truth.
pub struct Worker {
    ports: Ports,
    options: WorkerOptions,
    pool: Pool,
    shutdown: Shutdown,
}

impl Worker {
    /// Makes a worker that is not yet at work.
    pub fn new(
        ports: Ports,
        serving: Vec<Serving>,
        parts: PartStreams,
        options: WorkerOptions,
        shutdown: Shutdown,
    ) -> Self {
        let pool = Pool::new(serving, parts, ports.clone(), shutdown.clone());
        Self { ports, options, pool, shutdown }
    }

    /// Works until the end is asked for and everything is finished or handed over.
    ///
    /// Dropping the future leaves the runs to their lease's expiry; ask for the end instead.
    pub async fn run(mut self) {
        // Before the first look: what becomes pending after it leads to a notice.
        let mut watcher = self.watch().await;
        if !self.register().await {
            return;
        }
        self.work(watcher.as_mut()).await;
        self.drain().await;
        self.resign().await;
    }

    async fn watch(&self) -> Option<Box<dyn Watcher>> {
        match self.ports.watch.watch(Topic::Pending, Interest::All).await {
            Ok(watcher) => Some(watcher),
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "a worker gets no notices and polls only"
                );
                None
            }
        }
    }

    /// Registers the lease, however long the database is away; false when the end came first.
    async fn register(&self) -> bool {
        let mut attempt = 0;
        while let Err(error) = self.ports.leases.register(&self.options.lease).await {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "a worker could not register and tries again"
            );
            attempt += 1;
            tokio::select! {
                () = self.shutdown.requested() => return false,
                () = sleep(BACKOFF.delay(attempt, rand::random())) => {}
            }
        }
        true
    }

    async fn work(&mut self, mut watcher: Option<&mut Box<dyn Watcher>>) {
        let mut next_look = Instant::now();
        let mut look = true;
        loop {
            if look {
                next_look = Instant::now() + self.claim().await;
            }
            look = tokio::select! {
                biased;
                () = self.shutdown.requested() => return,
                () = self.pool.finished() => self.pool.has_backlog(),
                () = noticed(&mut watcher) => true,
                () = sleep_until(next_look) => true,
            };
        }
    }

    /// Claims until nothing is ready or nothing is free; returns how long to wait at most.
    async fn claim(&mut self) -> Duration {
        let worker = self.worker();
        let mut wait = self.options.poll_interval;
        for index in 0..self.pool.kinds() {
            wait = wait.min(self.claim_kind(worker, index).await);
        }
        wait
    }

    async fn claim_kind(&mut self, worker: WorkerId, index: usize) -> Duration {
        let kind = self.pool.kind(index);
        loop {
            let limit = self.pool.free(index).min(self.options.claim_batch);
            self.pool.set_backlog(index, limit == 0);
            if limit == 0 || self.shutdown.is_requested() {
                return self.options.poll_interval;
            }
            match self.ports.runs.claim(worker, &kind, limit).await {
                Ok(runs) => {
                    let short = runs.len() < limit as usize;
                    self.pool.start(index, runs);
                    if short {
                        break;
                    }
                }
                Err(error) => return self.pool.claim_failed(index, &error),
            }
        }
        match self.ports.runs.next_ready(&kind).await {
            Ok(Some(next)) => next.max(LOCKED_RETRY.mul_f64(1.0 + rand::random::<f64>())),
            Ok(None) => self.options.poll_interval,
            Err(error) => self.pool.claim_failed(index, &error),
        }
    }

    /// Waits for the runs; those that take too long, or all when urged, are stopped.
    async fn drain(&mut self) {
        let deadline = Instant::now() + self.options.drain_timeout;
        tokio::select! {
            () = self.pool.all_finished() => return,
            () = self.shutdown.urged() => {}
            () = sleep_until(deadline) => {}
        }
        self.pool.stop_all(StopCause::Shutdown);
        if timeout(STOP_TIMEOUT, self.pool.all_finished()).await.is_err() {
            self.pool.abort_all().await;
        }
    }

    /// Gives the lease up, so that what is left of its runs need not wait for its expiry.
    async fn resign(&self) {
        match timeout(RESIGN_TIMEOUT, self.ports.leases.resign(self.worker())).await {
            Ok(Ok(requeued)) => {
                for run in requeued {
                    self.ports.publish.publish(Topic::Pending, run.uuid());
                }
            }
            Ok(Err(error)) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "a worker could not resign; its lease expires by itself"
                );
            }
            Err(_) => {
                tracing::warn!("a worker could not resign in time; its lease expires by itself");
            }
        }
    }

    fn worker(&self) -> WorkerId {
        self.options.lease.worker
    }
}

/// Waits for a notice, for ever when there is no watcher.
async fn noticed(watcher: &mut Option<&mut Box<dyn Watcher>>) {
    match watcher {
        // Whatever it says, the answer is to look.
        Some(watcher) => match watcher.recv().await {
            Notice::Changed(_) | Notice::Resync(_) => {}
        },
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
