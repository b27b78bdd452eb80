//! A worker's lease: how long it lasts, and how long its worker may believe in it.
//!
//! Belief is a comparison, not a timer: a process that was frozen finds out by asking,
//! before it acts, that its time has passed.

use std::time::Duration;

use crate::invalid::Invalid;

/// A point on the clock of one process, as the time since some start.
///
/// The clock counts time in which the machine was suspended, where there is one that does.
/// Moments of two processes are never compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(Duration);

impl Moment {
    /// Takes the time since the clock's start.
    pub const fn new(since_start: Duration) -> Self {
        Self(since_start)
    }

    /// Returns the time since the clock's start.
    pub const fn since_start(self) -> Duration {
        self.0
    }

    /// Returns the moment `time` later.
    #[must_use]
    pub const fn after(self, time: Duration) -> Self {
        Self(self.0.saturating_add(time))
    }

    /// Returns the time since `earlier`, zero if that is later.
    pub const fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// How often a worker beats and how long its lease outlives a beat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTimes {
    beat_interval: Duration,
    ttl: Duration,
    fence_margin: Duration,
}

impl LeaseTimes {
    /// A beat each 3 s, a lease of 12 s, a margin of 3 s: an outage of 6 s changes no owner.
    pub const DEFAULT: Self = Self {
        beat_interval: Duration::from_secs(3),
        ttl: Duration::from_secs(12),
        fence_margin: Duration::from_secs(3),
    };

    /// Shortest time between beats: a shorter one would only load the database.
    pub const BEAT_INTERVAL_MIN: Duration = Duration::from_millis(50);

    /// Takes times that leave room for at least one beat that fails.
    ///
    /// # Errors
    /// Refuses a lease shorter than two beats and the margin, and times that are no time.
    pub fn new(
        beat_interval: Duration,
        ttl: Duration,
        fence_margin: Duration,
    ) -> Result<Self, Invalid> {
        if beat_interval < Self::BEAT_INTERVAL_MIN {
            let reason =
                format!("is {beat_interval:?}, at least {:?} is allowed", Self::BEAT_INTERVAL_MIN);
            return Err(Invalid::new("beat_interval", reason));
        }
        if fence_margin.is_zero() {
            return Err(Invalid::new("fence_margin", "is zero: clocks are never read at once"));
        }
        let least = beat_interval.saturating_mul(2).saturating_add(fence_margin);
        if ttl < least {
            let reason = format!(
                "is {ttl:?}, at least {least:?} is needed: two of `beat_interval` and `fence_margin`"
            );
            return Err(Invalid::new("lease_ttl", reason));
        }
        Ok(Self { beat_interval, ttl, fence_margin })
    }

    /// Time from one beat to the next.
    pub const fn beat_interval(&self) -> Duration {
        self.beat_interval
    }

    /// How long a lease lasts after its last beat, on the database's clock.
    pub const fn ttl(&self) -> Duration {
        self.ttl
    }

    /// How long before its end a worker stops to believe in a lease that it could not renew.
    pub const fn fence_margin(&self) -> Duration {
        self.fence_margin
    }

    /// How long its worker believes in a lease after sending its last beat, on its own clock.
    ///
    /// A reaper has seen a lease unchanged for at least as long before it marks it dead.
    pub const fn belief(&self) -> Duration {
        self.ttl.saturating_sub(self.fence_margin)
    }

    /// How long a lease may stay unchanged before it is watched closely.
    pub fn late(&self) -> Duration {
        self.beat_interval.mul_f64(1.5)
    }
}

impl Default for LeaseTimes {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Until when a worker may act as the owner of its runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Belief {
    until: Moment,
}

impl Belief {
    /// Begins with a registration or beat that was sent at `sent` and succeeded.
    pub const fn new(sent: Moment, times: &LeaseTimes) -> Self {
        Self { until: sent.after(times.belief()) }
    }

    /// Goes on with a later beat that was sent at `sent` and succeeded; it never shrinks.
    #[must_use]
    pub fn renewed(self, sent: Moment, times: &LeaseTimes) -> Self {
        Self { until: self.until.max(sent.after(times.belief())) }
    }

    /// Says whether the worker may act at `now`.
    pub fn holds(&self, now: Moment) -> bool {
        now < self.until
    }

    /// Returns when it ends.
    pub const fn until(&self) -> Moment {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn belief_is_counted_from_the_sending_of_the_last_beat_that_succeeded() {
        let times = LeaseTimes::DEFAULT;
        let at = |seconds| Moment::new(SECOND * seconds);
        let belief = Belief::new(at(100), &times);
        assert!(belief.holds(at(108)));
        assert!(!belief.holds(at(109)), "before the lease ends at 112");
        let renewed = belief.renewed(at(103), &times);
        assert_eq!(renewed.until(), at(112));
        assert_eq!(renewed.renewed(at(101), &times), renewed, "answers may come out of order");
    }

    #[test]
    fn lease_outlives_two_beats_and_the_margin() {
        let times = |beat, ttl, margin| {
            LeaseTimes::new(SECOND * beat, SECOND * ttl, SECOND * margin)
                .map_err(|error| error.to_string())
        };
        assert_eq!(times(3, 12, 3), Ok(LeaseTimes::DEFAULT));
        assert!(times(3, 9, 3).is_ok());
        assert!(times(3, 8, 3).unwrap_err().contains("lease_ttl"));
        assert!(times(0, 9, 3).unwrap_err().contains("beat_interval"));
        assert!(times(3, 9, 0).unwrap_err().contains("fence_margin"));
    }
}
