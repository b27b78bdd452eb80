//! The worker: it claims runs, has them run, and sees to their end.
//!
//! One lease at a time stands for all its runs. Beside the claims there are two loops: the
//! heart beats, calls the roll and watches the leases of others; the upkeep takes back what
//! nobody works on. When the lease lapses everything stops and the worker registers anew.

mod alarm;
mod heart;
mod lookout;
mod places;
mod pool;
mod tenure;
mod upkeep;
mod waits;

use std::sync::Arc;
use std::time::Duration;

use musterbeat_core::id::WorkerId;
use musterbeat_core::lease::LeaseTimes;
use musterbeat_core::port::{
    BeatStore, Clock, Lease, LeaseStore, Publish, Room, RunQueue, RunStore, Runner, Topic, Watch,
};
use musterbeat_core::run::{ATTEMPTS_MAX, Run, RunKind, StopCause};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use uuid::Uuid;

use crate::clock::SystemClock;
use crate::metrics::{CLAIM_TIMEOUTS, LEASES_LAPSED};
use crate::parts::PartStreams;
use crate::retry::BACKOFF;
use crate::shutdown::Shutdown;
use alarm::Alarm;
use heart::{Heart, Lapse};
use lookout::{Look, Lookout};
use pool::{Pool, WentBack};
pub(crate) use tenure::Tenure;
use upkeep::{Upkeep, Wanted};
pub(crate) use waits::RunWaits;

/// Where a worker meets the world.
#[derive(Clone)]
pub struct Ports {
    /// Says who works.
    pub leases: Arc<dyn LeaseStore>,
    /// Keeps the worker's lease alive, on a connection that nothing else holds up.
    pub beats: Arc<dyn BeatStore>,
    /// Says who owns what.
    pub runs: Arc<dyn RunStore>,
    /// Says how much waits.
    pub queue: Arc<dyn RunQueue>,
    /// Wakes other workers.
    pub publish: Arc<dyn Publish>,
    /// Wakes this one.
    pub watch: Arc<dyn Watch>,
    /// Says until when the lease may be believed in.
    pub clock: Arc<dyn Clock>,
}

impl Ports {
    /// Meets the world through one store and one transport, by the system's clock.
    pub fn new(
        store: Arc<impl LeaseStore + RunStore + RunQueue + 'static>,
        beats: Arc<dyn BeatStore>,
        notices: Arc<impl Publish + Watch + 'static>,
    ) -> Self {
        Self {
            leases: store.clone(),
            beats,
            runs: store.clone(),
            queue: store,
            publish: notices.clone(),
            watch: notices,
            clock: Arc::new(SystemClock::default()),
        }
    }
}

/// A kind of run that a worker takes.
pub struct Serving {
    /// Who does the work.
    pub runner: Arc<dyn Runner>,
    /// How many of its runs the worker has at work at once, beside those that wait for others.
    ///
    /// It owns four times as many and ten at most. More than it says are at work only when waits
    /// end.
    pub capacity: usize,
}

/// How a worker behaves.
#[derive(Clone, Debug)]
pub struct WorkerOptions {
    /// How others see it; its id is fresh for each start of a process.
    ///
    /// When this lease has lapsed, the worker goes on under ids that it makes itself.
    pub lease: Lease,
    /// How often it beats, and how long its lease lasts.
    pub times: LeaseTimes,
    /// Runs that one claim takes, at most: more would hold their rows' locks for long.
    pub claim_batch: u32,
    /// Longest wait before it looks for work again while notices of others do not arrive.
    ///
    /// While they do it is the shortest, and the longest is [`POLL_INTERVAL_MAX`] if that is more.
    pub poll_interval: Duration,
    /// How long runs may go on after the end was asked for.
    pub drain_timeout: Duration,
    /// Deaths of its workers after which a run goes to error.
    pub attempts_max: u32,
    /// Whether each beat also stamps each run, for readers of `run_heartbeats`.
    pub stamp_runs: bool,
}

impl WorkerOptions {
    /// Takes the defaults for a worker that operators know by `name`, with a fresh id.
    pub fn named(name: impl Into<String>) -> Self {
        Self::new(Lease {
            worker: WorkerId::new(Uuid::now_v7()),
            name: name.into(),
            advertise_url: None,
            release: env!("CARGO_PKG_VERSION").to_owned(),
            capacity: 0,
        })
    }

    /// Takes the defaults for everything but the lease.
    pub fn new(lease: Lease) -> Self {
        Self {
            lease,
            times: LeaseTimes::DEFAULT,
            claim_batch: CLAIM_BATCH,
            poll_interval: POLL_INTERVAL,
            drain_timeout: DRAIN_TIMEOUT,
            attempts_max: ATTEMPTS_MAX,
            stamp_runs: false,
        }
    }
}

/// Runs claimed at once by default, where a batch costs little more than a single claim.
pub const CLAIM_BATCH: u32 = 100;

/// Default longest wait before looking for work without notices.
pub const POLL_INTERVAL: Duration = Duration::from_secs(1);

/// Longest wait before looking for work with notices.
///
/// So long a run may wait whose publisher died between its commit and its notice.
pub const POLL_INTERVAL_MAX: Duration = Duration::from_secs(30);

/// Default time that runs get to finish.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Wait before a run is tried again that is ready but that somebody holds locked.
const LOCKED_RETRY: Duration = Duration::from_millis(25);

/// How long a claim may take; then its connection is dropped and its answer never used.
///
/// What it took all the same comes back as orphans of a roll call.
const CLAIM_TIMEOUT: Duration = Duration::from_secs(5);

/// How long runs may take to stop when they are told to; then they are ended where they stand.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the last statement of a worker may take; its lease expires by itself later.
const RESIGN_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest wait, by jitter, before a worker whose lease lapsed registers anew.
const REGISTER_PAUSE: Duration = Duration::from_secs(1);

/// Claims runs of the kinds that it serves and has them run, until it is asked to end.
///
/// It looks for work when it starts, when a run is pending for which it is [its
/// turn](musterbeat_core::summons), when a run ends while more was pending, and by itself after
/// some time: a notice is a hint, the table is the truth.
///
/// It owns its runs while it believes in its lease: for [`LeaseTimes::belief`] after the sending
/// of its last beat that succeeded. Then it stops them all and registers anew.
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
        let mut lookout = Lookout::open(&self.ports, self.options.poll_interval).await;
        let mut alarm = Alarm::open(&*self.ports.watch).await;
        let mut former = None;
        let mut worker = self.options.lease.worker;
        while let Some(tenure) = self.register(worker).await {
            let tenure = Arc::new(tenure);
            let lapse = self.serve(&tenure, former.take(), &mut lookout, &mut alarm).await;
            former = Some(worker);
            if let Some(lapse) = lapse {
                self.stop(&tenure, lapse).await;
            }
            if self.shutdown.is_requested() {
                break;
            }
            sleep(REGISTER_PAUSE.mul_f64(rand::random())).await;
            worker = WorkerId::new(Uuid::now_v7());
        }
        if let Some(former) = former {
            resign(&self.ports, former).await;
        }
    }

    /// Registers a lease, however long the database is away; `None` when the end came first.
    async fn register(&self, worker: WorkerId) -> Option<Tenure> {
        let lease = Lease { worker, ..self.options.lease.clone() };
        let clock = &self.ports.clock;
        let mut attempt = 0;
        loop {
            let sent = clock.now();
            let registered = tokio::select! {
                biased;
                () = self.shutdown.requested() => return None,
                registered = self.ports.leases.register(&lease) => registered,
            };
            let Err(error) = registered else {
                let times = self.options.times;
                return Some(Tenure::new(worker, sent, times, Arc::clone(clock)));
            };
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "a worker could not register and tries again"
            );
            attempt += 1;
            tokio::select! {
                () = self.shutdown.requested() => return None,
                () = sleep(BACKOFF.delay(attempt, rand::random())) => {}
            }
        }
    }

    /// Works under one lease; returns why it was lost, `None` when the work is over.
    async fn serve(
        &mut self,
        tenure: &Arc<Tenure>,
        former: Option<WorkerId>,
        lookout: &mut Lookout,
        alarm: &mut Alarm,
    ) -> Option<Lapse> {
        let (ports, options) = (self.ports.clone(), self.options.clone());
        let (runners, wanted) = (self.pool.runners(), Wanted::default());
        let heart = Heart::new(tenure, Arc::clone(&ports.beats), options.times, &wanted, alarm);
        let upkeep = Upkeep {
            worker: tenure.worker(),
            former,
            ports: &ports,
            options: &options,
            runners: &runners,
            wanted: &wanted,
        };
        tokio::select! {
            // Beats come first, and go on until the last run has ended.
            biased;
            lapse = heart.run() => Some(lapse),
            () = upkeep.run() => None,
            worked = self.work(tenure, lookout) => worked.err().map(|WentBack| Lapse::WentBack),
        }
    }

    /// Claims until the end is asked for, then drains.
    async fn work(&mut self, tenure: &Arc<Tenure>, lookout: &mut Lookout) -> Result<(), WentBack> {
        let mut look = true;
        while !self.shutdown.is_requested() {
            if look {
                lookout.looked(self.claim(tenure).await?);
            }
            look = tokio::select! {
                biased;
                () = self.shutdown.requested() => false,
                () = self.pool.freed() => self.pool.has_backlog(),
                () = lookout.due(tenure) => true,
            };
        }
        self.drain(tenure).await;
        Ok(())
    }

    /// Claims until nothing is ready or nothing is free.
    async fn claim(&mut self, tenure: &Arc<Tenure>) -> Result<Look, WentBack> {
        // A dead replica's ten thousand runs are all claimed before the first reads its prompt.
        let _closed = self.pool.close_gate().await;
        let mut look = Look::default();
        for index in 0..self.pool.kinds() {
            look = look.and(self.claim_kind(tenure, index).await?);
        }
        Ok(look)
    }

    async fn claim_kind(&mut self, tenure: &Arc<Tenure>, index: usize) -> Result<Look, WentBack> {
        let kind = self.pool.kind(index);
        let mut found = false;
        loop {
            let room = self.pool.room(index, self.options.claim_batch);
            self.pool.set_backlog(index, room.runs == 0);
            if room.runs == 0 || self.shutdown.is_requested() {
                return Ok(Look { found, wait: None });
            }
            // What was locked has most likely been claimed since: to ask costs less than to claim.
            if self.pool.take_locked(index) {
                let wait = self.next_ready(index, &kind).await;
                if wait != Some(Duration::ZERO) {
                    return Ok(Look { found, wait });
                }
            }
            match self.claim_batch(tenure, index, &kind, room).await? {
                Claimed::Full => found = true,
                Claimed::Short(count) => {
                    found |= 0 < count;
                    if 0 < room.depth_min {
                        // What else is ready is not for it, until it has other places.
                        self.pool.set_backlog(index, true);
                        return Ok(Look { found, wait: None });
                    }
                    break;
                }
                Claimed::Nothing(wait) => return Ok(Look { found, wait: Some(wait) }),
            }
        }
        let next = self.next_ready(index, &kind).await;
        self.pool.set_locked(index, !found && next == Some(Duration::ZERO));
        let pause = LOCKED_RETRY.mul_f64(1.0 + rand::random::<f64>());
        Ok(Look { found, wait: next.map(|next| next.max(pause)) })
    }

    /// Returns how long until a run is ready, or until it is worth asking again.
    async fn next_ready(&mut self, index: usize, kind: &RunKind) -> Option<Duration> {
        match self.ports.runs.next_ready(kind).await {
            Ok(next) => next,
            Err(error) => Some(self.pool.claim_failed(index, &error)),
        }
    }

    /// Claims once, and starts what it took.
    async fn claim_batch(
        &mut self,
        tenure: &Arc<Tenure>,
        index: usize,
        kind: &RunKind,
        room: Room,
    ) -> Result<Claimed, WentBack> {
        let claim = tenure.claim_sent();
        let answer = self.ports.runs.claim(tenure.worker(), kind, room);
        let Ok(answer) = timeout(CLAIM_TIMEOUT, answer).await else {
            metrics::counter!(CLAIM_TIMEOUTS.name, "kind" => kind.to_string()).increment(1);
            tracing::warn!(run.kind = %kind, "a claim was not answered in time");
            return Ok(Claimed::Nothing(LOCKED_RETRY + BACKOFF.delay_max.mul_f64(rand::random())));
        };
        let runs = match answer {
            Ok(runs) => runs,
            Err(error) => return Ok(Claimed::Nothing(self.pool.claim_failed(index, &error))),
        };
        for run in &runs {
            self.ports.publish.publish(Topic::Claimed, run.id.uuid());
        }
        // An answer that comes too late counts no more: the runs are somebody else's to take.
        if !tenure.is_believed() {
            return Ok(Claimed::Nothing(self.options.poll_interval));
        }
        let alone = runs.first().is_some_and(Run::is_suspect);
        let count = runs.len();
        self.pool.start(index, runs, tenure)?;
        drop(claim);
        Ok(if alone || count == room.runs as usize { Claimed::Full } else { Claimed::Short(count) })
    }

    /// Waits for the runs; those that take too long, or all when urged, are stopped.
    async fn drain(&mut self, tenure: &Tenure) {
        let deadline = Instant::now() + self.options.drain_timeout;
        tokio::select! {
            () = self.pool.all_finished() => return,
            () = self.shutdown.urged() => {}
            () = sleep_until(deadline) => {}
        }
        tenure.stop_all(StopCause::Shutdown);
        self.end_all().await;
    }

    /// Stops everything that was owned under a lease that lapsed.
    async fn stop(&mut self, tenure: &Tenure, lapse: Lapse) {
        tracing::error!(
            worker.id = %tenure.worker(),
            lapse = lapse.as_str(),
            "a lease lapsed; its runs are stopped and the worker registers anew"
        );
        metrics::counter!(LEASES_LAPSED.name, "cause" => lapse.as_str()).increment(1);
        tenure.stop_all(StopCause::Fenced);
        self.end_all().await;
    }

    /// Waits for runs that were told to stop, and ends them when they take too long.
    async fn end_all(&mut self) {
        if timeout(STOP_TIMEOUT, self.pool.all_finished()).await.is_err() {
            self.pool.abort_all().await;
        }
    }
}

/// What a claim came to.
enum Claimed {
    /// There may be more.
    Full,
    /// So many, and nothing more was ready, or somebody held it locked.
    Short(usize),
    /// It failed; the next one waits so long.
    Nothing(Duration),
}

/// Gives a lease up, so that what is left of its runs need not wait for its expiry.
async fn resign(ports: &Ports, worker: WorkerId) {
    match timeout(RESIGN_TIMEOUT, ports.leases.resign(worker)).await {
        Ok(Ok(requeued)) => {
            for run in requeued {
                ports.publish.publish(Topic::Pending, run.uuid());
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

#[cfg(test)]
mod tests;
