//! What is to be asked of the server next, and when.

use std::time::Duration;

use musterbeat_core::backoff::Backoff;
use rand::RngExt;
use rand::rngs::StdRng;
use tokio::time::Instant;

use crate::schedule::jittered;

/// Waits after failures. The first is short, for a server that is started anew is soon back; the
/// longest bounds how long a value waits once the server is back.
const BACKOFF: Backoff =
    Backoff { delay_first: Duration::from_millis(500), delay_max: Duration::from_secs(30) };

/// Silence after which definitions are read again, whose change reports would have told of.
const LOOK_INTERVAL: Duration = Duration::from_mins(1);

/// Longest wait that a server is believed to want.
const WAIT_MAX: Duration = Duration::from_hours(1);

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Read the definitions.
    Look,
    /// Send what waits.
    Report,
}

/// The times of calls.
#[derive(Debug)]
pub(crate) struct Pace {
    report_interval: Duration,
    rng: StdRng,
    /// Whether the definitions that are known are not the server's.
    stale: bool,
    /// When to look although nothing says that definitions changed.
    look_at: Instant,
    report_at: Instant,
    /// No call begins before it.
    not_before: Instant,
    failures: u32,
}

impl Pace {
    /// Knows no definitions, and may call at once.
    pub(crate) fn new(report_interval: Duration, now: Instant, rng: StdRng) -> Self {
        Self {
            report_interval,
            rng,
            stale: true,
            look_at: now,
            report_at: now,
            not_before: now,
            failures: 0,
        }
    }

    /// Returns what is to be done next, and when.
    pub(crate) fn next(&self, something_waits: bool) -> (Step, Instant) {
        let look_at = if self.stale { self.not_before } else { self.look_at.max(self.not_before) };
        let report_at = self.report_at.max(self.not_before);
        if !self.stale && something_waits && report_at <= look_at {
            (Step::Report, report_at)
        } else {
            (Step::Look, look_at)
        }
    }

    /// Notes that a report begins.
    pub(crate) fn reporting(&mut self, now: Instant) {
        self.report_at = now + self.report_interval;
    }

    /// Notes that the definitions that are known are not the server's.
    pub(crate) fn outdated(&mut self) {
        self.stale = true;
    }

    /// Notes that the definitions were read.
    pub(crate) fn looked(&mut self) {
        self.stale = false;
    }

    /// Notes an answer; returns after how many failures it came.
    pub(crate) fn answered(&mut self, now: Instant) -> u32 {
        self.look_at = now + jittered(LOOK_INTERVAL, &mut self.rng);
        self.not_before = now;
        std::mem::take(&mut self.failures)
    }

    /// Notes a failure; the server may want to be left alone for `wait`. Returns how many there
    /// were in a row.
    pub(crate) fn failed(&mut self, wait: Option<Duration>, now: Instant) -> u32 {
        self.failures = self.failures.saturating_add(1);
        let floor = wait.unwrap_or_default().min(WAIT_MAX);
        // On top of what the server wants, so that those it sent away do not come back together.
        self.not_before = now + floor + BACKOFF.delay(self.failures, self.rng.random());
        self.failures
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn definitions_come_first_and_reports_keep_their_distance() {
        let now = Instant::now();
        let mut pace = pace(now);
        assert_eq!(pace.next(true), (Step::Look, now));
        pace.looked();
        pace.answered(now);
        assert_eq!(pace.next(true), (Step::Report, now));
        pace.reporting(now);
        pace.answered(now + SECOND / 10);
        assert_eq!(pace.next(true), (Step::Report, now + SECOND));
        pace.outdated();
        assert_eq!(pace.next(true), (Step::Look, now + SECOND / 10));
    }

    #[test]
    fn silence_ends_with_a_look() {
        let now = Instant::now();
        let mut pace = pace(now);
        pace.looked();
        pace.answered(now);
        let (step, at) = pace.next(false);
        assert_eq!(step, Step::Look);
        let wait = (at - now).as_secs_f64();
        assert!((54.0..=66.0).contains(&wait), "{wait}");
        // Nothing keeps it from being due, not even a report each second that is not answered.
        pace.reporting(at);
        assert_eq!(pace.next(true), (Step::Look, at));
    }

    #[test]
    fn waits_grow_to_their_bound_with_full_jitter() {
        let now = Instant::now();
        for seed in 0..200 {
            let mut pace = Pace::new(SECOND, now, StdRng::seed_from_u64(seed));
            for failure in 0..20 {
                pace.failed(None, now);
                let bound = (SECOND / 2 * (1 << failure.min(6))).min(30 * SECOND);
                let (_, at) = pace.next(true);
                assert!(at - now <= bound, "{failure}: {:?}", at - now);
            }
        }
        let waits: Vec<f64> = (0..200).map(|seed| wait_after(seed, 20, None)).collect();
        let mean = waits.iter().sum::<f64>() / 200.0;
        assert!((12.0..=18.0).contains(&mean), "{mean}");
    }

    #[test]
    fn what_the_server_wants_is_the_floor() {
        for seed in 0..200 {
            let wait = wait_after(seed, 1, Some(7 * SECOND));
            assert!((7.0..=7.5).contains(&wait), "{wait}");
        }
        assert!(wait_after(1, 1, Some(Duration::MAX)) <= WAIT_MAX.as_secs_f64() + 0.5);
    }

    #[test]
    fn an_answer_ends_the_waiting() {
        let now = Instant::now();
        let mut pace = pace(now);
        pace.looked();
        assert_eq!(pace.failed(Some(60 * SECOND), now), 1);
        assert_eq!(pace.failed(None, now), 2);
        assert_eq!(pace.answered(now), 2);
        assert_eq!(pace.next(true), (Step::Report, now));
        assert_eq!(pace.answered(now), 0);
    }

    fn pace(now: Instant) -> Pace {
        Pace::new(SECOND, now, StdRng::seed_from_u64(7))
    }

    fn wait_after(seed: u64, failures: u32, wait: Option<Duration>) -> f64 {
        let now = Instant::now();
        let mut pace = Pace::new(SECOND, now, StdRng::seed_from_u64(seed));
        for _ in 0..failures {
            pace.failed(wait, now);
        }
        (pace.next(true).1 - now).as_secs_f64()
    }
}
