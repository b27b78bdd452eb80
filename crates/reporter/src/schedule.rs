//! When the values of a key are due.

use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use tokio::time::Instant;

/// A first value comes within this time, at a random moment: a fleet that starts together does
/// not report together.
const FIRST_MAX: Duration = Duration::from_secs(10);

/// How far an interval is stretched or shortened, as a part of it: a fleet drifts apart.
const JITTER: f64 = 0.1;

/// The moments at which a key is due.
#[derive(Debug)]
pub(crate) struct Schedule {
    interval: Duration,
    due: Instant,
    rng: StdRng,
}

impl Schedule {
    /// Begins at a random moment soon after `now`.
    pub(crate) fn new(interval: Duration, now: Instant, mut rng: StdRng) -> Self {
        let due = now + interval.min(FIRST_MAX).mul_f64(rng.random());
        Self { interval, due, rng }
    }

    /// Returns the moment that is due.
    pub(crate) fn due(&self) -> Instant {
        self.due
    }

    /// Goes on to the first moment after `now`; those that passed meanwhile are skipped.
    pub(crate) fn advance(&mut self, now: Instant) {
        while self.due <= now {
            self.due += jittered(self.interval, &mut self.rng);
        }
    }
}

/// Returns about `interval`.
pub(crate) fn jittered(interval: Duration, rng: &mut StdRng) -> Duration {
    interval.mul_f64(1.0 + JITTER * (2.0 * rng.random::<f64>() - 1.0))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    #[test]
    fn the_first_moment_is_within_the_interval_and_ten_seconds() {
        let now = Instant::now();
        for (interval, max) in [(1, 1), (10, 10), (3_600, 10)] {
            let interval = Duration::from_secs(interval);
            let offsets: Vec<Duration> = (0..500)
                .map(|seed| Schedule::new(interval, now, StdRng::seed_from_u64(seed)).due() - now)
                .collect();
            let max = Duration::from_secs(max);
            assert!(offsets.iter().all(|offset| *offset <= max), "{offsets:?}");
            assert!(offsets.iter().any(|offset| *offset < max / 10), "all are late");
            assert!(offsets.iter().any(|offset| max * 9 / 10 < *offset), "all are early");
        }
    }

    #[test]
    fn intervals_differ_by_a_tenth_at_most() {
        let interval = Duration::from_secs(100);
        let mut schedule = Schedule::new(interval, Instant::now(), StdRng::seed_from_u64(7));
        let mut steps = Vec::new();
        for _ in 0..1_000 {
            let before = schedule.due();
            schedule.advance(before);
            steps.push((schedule.due() - before).as_secs_f64());
        }
        assert!(steps.iter().all(|step| (90.0..=110.0).contains(step)), "{steps:?}");
        assert!(steps.iter().any(|step| *step < 91.0) && steps.iter().any(|step| 109.0 < *step));
        let mean = steps.iter().sum::<f64>() / 1_000.0;
        assert!((99.0..=101.0).contains(&mean), "{mean}");
    }

    #[test]
    fn moments_that_passed_are_skipped() {
        let interval = Duration::from_secs(1);
        let mut schedule = Schedule::new(interval, Instant::now(), StdRng::seed_from_u64(7));
        let late = schedule.due() + Duration::from_millis(2_500);
        schedule.advance(late);
        let wait = schedule.due() - late;
        assert!(Duration::ZERO < wait && wait <= interval.mul_f64(1.1), "{wait:?}");
    }
}
