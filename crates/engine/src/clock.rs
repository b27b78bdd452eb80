//! The clocks of this process.

use musterbeat_core::lease::Moment;
use musterbeat_core::port::Clock;
use tokio::time::Instant;

/// The monotonic clock of the runtime, which tests can pause.
#[derive(Clone, Copy, Debug)]
pub struct RuntimeClock {
    start: Instant,
}

impl RuntimeClock {
    /// Begins to count.
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for RuntimeClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for RuntimeClock {
    fn now(&self) -> Moment {
        Moment::new(self.start.elapsed())
    }
}

/// The system's clock since its boot, which also counts time in which it was suspended.
///
/// A laptop that slept or a machine that was moved finds its leases passed, as others saw them.
#[cfg(target_os = "linux")]
#[derive(Clone, Copy, Debug, Default)]
pub struct BootClock;

#[cfg(target_os = "linux")]
impl Clock for BootClock {
    fn now(&self) -> Moment {
        let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME);
        // It fails only for a clock that the kernel lacks, and every kernel since 2.6.39 has it.
        Moment::new(time.expect("the kernel has CLOCK_BOOTTIME").into())
    }
}

/// The clock of this system that leases are believed by.
#[cfg(target_os = "linux")]
pub type SystemClock = BootClock;

/// The clock of this system that leases are believed by.
#[cfg(not(target_os = "linux"))]
pub type SystemClock = RuntimeClock;
