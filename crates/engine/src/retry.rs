//! Sends a write again until it is answered.

use std::time::Duration;

use musterbeat_core::backoff::Backoff;
use musterbeat_core::port::StoreError;
use tokio::time::{Instant, sleep};

/// Waits between attempts to reach storage.
pub(crate) const BACKOFF: Backoff =
    Backoff { delay_first: Duration::from_millis(50), delay_max: Duration::from_secs(2) };

/// How long a write is sent again before it is given up.
///
/// Longer is of no use: a worker that cannot write for so long is about to lose its runs.
const TIME_MAX: Duration = Duration::from_secs(10);

/// Says after a failed attempt whether and when to try again.
pub(crate) struct Retry {
    attempt: u32,
    deadline: Instant,
}

impl Retry {
    /// Begins with the first attempt.
    pub(crate) fn new() -> Self {
        Self { attempt: 0, deadline: Instant::now() + TIME_MAX }
    }

    /// Waits before the next attempt, or returns the error that ends them.
    pub(crate) async fn wait(&mut self, error: StoreError) -> Result<(), StoreError> {
        self.attempt += 1;
        let delay = BACKOFF.delay(self.attempt, rand::random());
        let passing = matches!(error, StoreError::Unavailable { .. });
        if !passing || self.deadline < Instant::now() + delay {
            return Err(error);
        }
        sleep(delay).await;
        Ok(())
    }
}
