//! Stops work that blocks.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::error::WorkError;

/// Stops whoever looks at it; its clones are one.
#[derive(Clone, Debug, Default)]
pub(super) struct Brake(Arc<AtomicBool>);

impl Brake {
    pub(super) fn pull(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Returns what pulls the brake when it is dropped.
    pub(super) fn pulled_on_drop(&self) -> PulledOnDrop {
        PulledOnDrop(self.clone())
    }

    /// Fails when the brake was pulled.
    pub(super) fn look(&self) -> Result<(), WorkError> {
        if self.0.load(Ordering::Relaxed) { Err(WorkError::Stopped) } else { Ok(()) }
    }
}

/// Pulls a brake when it is dropped.
pub(super) struct PulledOnDrop(Brake);

impl Drop for PulledOnDrop {
    fn drop(&mut self) {
        self.0.pull();
    }
}
