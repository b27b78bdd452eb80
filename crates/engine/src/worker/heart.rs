//! Beats: they keep the lease, call the roll, and watch the leases of others.

use std::sync::Arc;
use std::time::Duration;

use musterbeat_core::backoff::Backoff;
use musterbeat_core::lease::LeaseTimes;
use musterbeat_core::port::{BeatAnswer, BeatStore, StoreError};
use musterbeat_core::sighting::{SeenLease, Sightings};
use tokio::time::{Instant, sleep, sleep_until};

use super::alarm::Alarm;
use super::tenure::Tenure;
use super::upkeep::Wanted;
use crate::metrics::{
    BEAT_SECONDS, BEATS, LEASES_LIVE, LEASES_MARKED, ROLL_RUNS, RUNS_INTERRUPTED, RUNS_LOST,
    RUNS_ORPHANED,
};

/// Longest time between looks while another worker's lease misses a beat.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// Shortest time between two beats, when runs are to stop one after the other.
const BEAT_PAUSE: Duration = Duration::from_millis(50);

/// Why a lease is held no longer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lapse {
    /// No beat succeeded in time.
    Expired,
    /// A reaper has marked it.
    Dead,
    /// The database has lost commits: what it says of fences is of no use.
    WentBack,
}

impl Lapse {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::Dead => "dead",
            Self::WentBack => "went_back",
        }
    }
}

/// Beats for one tenure.
pub(super) struct Heart<'a> {
    tenure: &'a Tenure,
    beats: Arc<dyn BeatStore>,
    times: LeaseTimes,
    wanted: &'a Wanted,
    alarm: &'a mut Alarm,
    sightings: Sightings,
    failures: u32,
}

impl<'a> Heart<'a> {
    pub(super) fn new(
        tenure: &'a Tenure,
        beats: Arc<dyn BeatStore>,
        times: LeaseTimes,
        wanted: &'a Wanted,
        alarm: &'a mut Alarm,
    ) -> Self {
        Self { tenure, beats, times, wanted, alarm, sightings: Sightings::default(), failures: 0 }
    }

    /// Beats until the lease lapses.
    pub(super) async fn run(mut self) -> Lapse {
        let tenure = self.tenure;
        tokio::select! {
            biased;
            () = tenure.lapsed() => Lapse::Expired,
            () = self.beat_until_dead() => Lapse::Dead,
        }
    }

    async fn beat_until_dead(&mut self) {
        // Replicas that start together do not beat together.
        let start = Instant::now();
        let first = start + self.times.beat_interval().mul_f64(rand::random());
        self.is_called_before(first, start).await;
        loop {
            let began = Instant::now();
            match self.beat().await {
                Ok(true) => self.rest(began).await,
                Ok(false) => return,
                Err(error) => {
                    // A beat that fails interrupts nobody: belief ends by itself.
                    self.failed(&error, "a beat failed and is tried again");
                    sleep(self.backoff()).await;
                }
            }
        }
    }

    /// Beats once; returns whether the lease lives.
    async fn beat(&mut self) -> Result<bool, StoreError> {
        let beat = self.tenure.beat_sent();
        let (sent, began) = (self.tenure.now(), Instant::now());
        let answer = self.beats.beat(self.tenure.worker()).await;
        metrics::histogram!(BEAT_SECONDS.name).record(began.elapsed());
        let outcome = if answer.is_ok() { "answered" } else { "failed" };
        metrics::counter!(BEATS.name, "outcome" => outcome).increment(1);
        let BeatAnswer { alive, roll, leases } = answer?;
        if !alive {
            return Ok(false);
        }
        self.failures = 0;
        self.tenure.renew(sent);
        #[expect(clippy::cast_precision_loss, reason = "a worker owns far less than 2^52 runs")]
        metrics::gauge!(ROLL_RUNS.name).set(roll.len() as f64);
        let called = self.tenure.call_roll(beat, roll);
        metrics::counter!(RUNS_LOST.name).increment(called.lost);
        metrics::counter!(RUNS_INTERRUPTED.name).increment(called.interrupted);
        metrics::counter!(RUNS_ORPHANED.name).increment(called.muster.orphaned.len() as u64);
        self.wanted.beaten(called.muster.orphaned);
        self.sightings.look(sent, self.tenure.now(), &leases);
        self.reap(&leases).await?;
        Ok(true)
    }

    /// Waits for the beat after the one that began at `began`; it comes at once when a run of this
    /// worker may have to stop. While a lease is late it looks more often.
    async fn rest(&mut self, began: Instant) {
        let next = began + self.times.beat_interval();
        while self.sightings.is_any_late(&self.times) {
            let look = Instant::now() + LOOK_INTERVAL.min(self.times.beat_interval() / 4);
            if look >= next {
                break;
            }
            if self.is_called_before(look, began).await {
                return;
            }
            if let Err(error) = self.look().await {
                self.failed(&error, "a look at the leases failed");
            }
        }
        self.is_called_before(next, began).await;
    }

    /// Waits until `until`; true when the roll is to be called before.
    async fn is_called_before(&mut self, until: Instant, began: Instant) -> bool {
        tokio::select! {
            () = sleep_until(until) => return false,
            () = self.alarm.rung(self.tenure) => {}
        }
        // Whoever stops runs by the thousand costs so many beats a second, and no more.
        sleep_until((began + BEAT_PAUSE).min(until)).await;
        true
    }

    async fn look(&mut self) -> Result<(), StoreError> {
        let sent = self.tenure.now();
        let leases = self.beats.look(self.tenure.worker()).await?;
        self.sightings.look(sent, self.tenure.now(), &leases);
        self.reap(&leases).await
    }

    /// Says who else works, marks what is overdue, and has the runs of the dead taken back.
    async fn reap(&mut self, leases: &[SeenLease]) -> Result<(), StoreError> {
        let live = leases.iter().filter(|lease| !lease.dead).map(|lease| lease.worker);
        let others: Arc<[_]> = live.collect();
        #[expect(clippy::cast_precision_loss, reason = "there are far less than 2^52 workers")]
        metrics::gauge!(LEASES_LIVE.name).set(others.len() as f64 + 1.0);
        let mut dead = others.len() < leases.len();
        self.tenure.set_others(others);
        let overdue = self.sightings.overdue(&self.times);
        if !overdue.is_empty() {
            for worker in self.beats.mark(&overdue, self.times.ttl()).await? {
                tracing::warn!(worker.id = %worker, "a worker is dead; its runs are taken back");
                metrics::counter!(LEASES_MARKED.name).increment(1);
                dead = true;
            }
        }
        if dead {
            self.wanted.recovery();
        }
        Ok(())
    }

    fn failed(&mut self, error: &StoreError, what: &'static str) {
        self.failures += 1;
        // The next call has another connection, and what was seen on this one may be undone.
        self.sightings.forget();
        tracing::warn!(error = error as &dyn std::error::Error, "{what}");
    }

    fn backoff(&self) -> Duration {
        let delay_max = self.times.beat_interval() / 6;
        let backoff = Backoff { delay_first: delay_max / 8, delay_max };
        backoff.delay(self.failures, rand::random())
    }
}
