//! Sends a call to storage again until it is answered.

use std::time::Duration;

use musterbeat_core::backoff::Backoff;
use musterbeat_core::port::{RunContext, StoreError};
use musterbeat_core::run::StopCause;
use tokio::time::sleep;

/// Waits between attempts to reach storage.
pub(crate) const BACKOFF: Backoff =
    Backoff { delay_first: Duration::from_millis(50), delay_max: Duration::from_secs(2) };

/// Says after a failed attempt whether and when to try again.
///
/// It goes on for as long as the worker may write for the run. While its beats are answered
/// storage is only slow, and to give the run back would cost a whole turn.
pub(crate) struct Retry<'a> {
    attempt: u32,
    context: &'a dyn RunContext,
}

impl<'a> Retry<'a> {
    /// Begins with the first attempt for the run of `context`.
    pub(crate) fn new(context: &'a dyn RunContext) -> Self {
        Self { attempt: 0, context }
    }

    /// Waits before the next attempt, or returns the error that ends them.
    pub(crate) async fn wait(&mut self, error: StoreError) -> Result<(), StoreError> {
        self.attempt += 1;
        if !matches!(error, StoreError::Unavailable { .. }) {
            return Err(error);
        }
        sleep(BACKOFF.delay(self.attempt, rand::random())).await;
        if self.context.stop_cause().is_none_or(StopCause::allows_writes) {
            return Ok(());
        }
        Err(error)
    }
}
