//! Finds values, each key at its own times.

use std::collections::BTreeMap;
use std::sync::Arc;

use musterbeat_core::metadata::Key;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::{Instant, sleep_until};
use tokio_util::task::AbortOnDropHandle;

use crate::backlog::Backlog;
use crate::duty::Duty;
use crate::schedule::Schedule;
use crate::source::Source;

/// A task for each key; dropping this ends them.
pub(crate) struct Collectors {
    source: Arc<dyn Source>,
    backlog: Arc<Backlog>,
    rng: StdRng,
    running: BTreeMap<Key, (Duty, AbortOnDropHandle<()>)>,
}

impl Collectors {
    pub(crate) fn new(source: Arc<dyn Source>, backlog: Arc<Backlog>, rng: StdRng) -> Self {
        Self { source, backlog, rng, running: BTreeMap::new() }
    }

    /// Finds the values of `duties` and no others; a duty that did not change keeps its times.
    ///
    /// What waits of a duty that changed or is gone is forgotten. The same keys are returned.
    pub(crate) async fn redefine(&mut self, duties: Vec<Duty>) -> Vec<Key> {
        let mut running = std::mem::take(&mut self.running);
        let mut added = Vec::new();
        for duty in duties {
            match running.remove(&duty.key) {
                Some((same, task)) if same == duty => {
                    self.running.insert(duty.key.clone(), (same, task));
                }
                other => {
                    // Back among those that end.
                    running.extend(other.map(|other| (duty.key.clone(), other)));
                    added.push(duty);
                }
            }
        }
        // All have ended before one begins, so that no key is read twice at once.
        let gone = end(running).await;
        for key in &gone {
            self.backlog.forget(key);
        }
        for duty in added {
            let schedule = Schedule::new(duty.interval, Instant::now(), self.fork_rng());
            let (source, backlog) = (Arc::clone(&self.source), Arc::clone(&self.backlog));
            let task = tokio::spawn(collect(duty.clone(), schedule, source, backlog));
            self.running.insert(duty.key.clone(), (duty, AbortOnDropHandle::new(task)));
        }
        gone
    }

    /// Ends all tasks, and what they started.
    pub(crate) async fn end(&mut self) {
        end(std::mem::take(&mut self.running)).await;
    }

    fn fork_rng(&mut self) -> StdRng {
        StdRng::seed_from_u64(self.rng.random())
    }
}

/// Ends tasks, and returns their keys.
async fn end(running: BTreeMap<Key, (Duty, AbortOnDropHandle<()>)>) -> Vec<Key> {
    for (_, task) in running.values() {
        task.abort();
    }
    let mut keys = Vec::new();
    for (key, (_, task)) in running {
        // An error is that it was aborted, or its panic, which was printed.
        let _ = task.await;
        keys.push(key);
    }
    keys
}

/// Finds a value at each moment that is due.
async fn collect(
    duty: Duty,
    mut schedule: Schedule,
    source: Arc<dyn Source>,
    backlog: Arc<Backlog>,
) {
    loop {
        sleep_until(schedule.due()).await;
        let reading = source.read(&duty).await;
        if !reading.error.is_empty() {
            tracing::debug!(key = %duty.key, error = reading.error, "a value was not found well");
        }
        backlog.put(duty.key.clone(), reading);
        schedule.advance(Instant::now());
    }
}

#[cfg(test)]
mod tests;
