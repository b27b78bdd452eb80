//! The clock of this process.

use std::time::Instant;

use musterbeat_core::port::Clock;

/// The monotonic clock of the runtime, which tests can pause.
#[derive(Clone, Copy, Debug, Default)]
pub struct RuntimeClock;

impl Clock for RuntimeClock {
    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }
}
