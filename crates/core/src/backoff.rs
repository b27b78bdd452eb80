//! Waiting longer after each failure, with full jitter.

use std::time::Duration;

/// How long to wait between attempts.
///
/// Full jitter draws each wait evenly between nothing and the exponential bound, so that
/// replicas which failed together do not come back together
/// (AWS Architecture Blog, "Exponential Backoff And Jitter", 2015).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backoff {
    /// Bound of the first wait.
    pub delay_first: Duration,
    /// Bound of every wait.
    pub delay_max: Duration,
}

impl Backoff {
    /// Returns the wait before attempt `attempt` (the first retry is 1).
    ///
    /// `jitter` is drawn evenly from 0 to 1 by the caller; what lies outside is clamped.
    pub fn delay(&self, attempt: u32, jitter: f64) -> Duration {
        let doublings = attempt.saturating_sub(1).min(31);
        let bound = self.delay_first.saturating_mul(1 << doublings).min(self.delay_max);
        // NaN fails the comparison and becomes 0.
        bound.mul_f64(if jitter > 0.0 { jitter.min(1.0) } else { 0.0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BACKOFF: Backoff =
        Backoff { delay_first: Duration::from_millis(100), delay_max: Duration::from_secs(5) };

    #[test]
    fn bound_doubles_up_to_its_maximum() {
        let bounds: Vec<_> =
            (1..9).map(|attempt| BACKOFF.delay(attempt, 1.0).as_millis()).collect();
        assert_eq!(bounds, [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
    }

    proptest! {
        #[test]
        fn wait_never_exceeds_the_maximum(attempt: u32, jitter: f64) {
            prop_assert!(BACKOFF.delay(attempt, jitter) <= BACKOFF.delay_max);
        }
    }
}
