//! Hears that runs are to stop, so that the roll is called at once and not with the next beat.

use musterbeat_core::port::{Interest, Notice, Topic, Watch, Watcher};

use super::tenure::Tenure;

/// Waits for word of runs that are to stop, or were taken away.
///
/// A notice only makes things faster: what it would have told, the roll of the next beat does.
pub(super) struct Alarm(Option<Box<dyn Watcher>>);

impl Alarm {
    /// Begins to watch; without notices it never rings.
    pub(super) async fn open(watch: &dyn Watch) -> Self {
        let watcher = watch.watch(Topic::Stop, Interest::All).await;
        if let Err(error) = &watcher {
            tracing::warn!(
                error = error as &dyn std::error::Error,
                "a worker learns of stops by its beats alone"
            );
        }
        Self(watcher.ok())
    }

    /// Waits until a run of `tenure` may have to stop; dropping the future loses nothing.
    pub(super) async fn rung(&mut self, tenure: &Tenure) {
        let Some(watcher) = &mut self.0 else { return std::future::pending().await };
        loop {
            match watcher.recv().await {
                Notice::Resync(_) => return,
                Notice::Changed(runs) if tenure.owns_any(&runs) => return,
                Notice::Changed(_) => {}
            }
        }
    }
}
