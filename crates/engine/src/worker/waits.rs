//! Runs that wait for others take no room of their worker.
//!
//! Or a worker full of parents would never claim the children that they wait for.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use musterbeat_core::port::Waiting;
use musterbeat_core::run::RunKind;
use tokio::sync::Notify;

use crate::metrics::RUNS_WAITING;

/// How many runs of a kind wait, and who is told when one begins to.
pub(crate) struct KindWaits {
    kind: RunKind,
    count: AtomicUsize,
    freed: Arc<Notify>,
}

impl KindWaits {
    /// Begins with none; whoever listens to `freed` learns that there is room.
    pub(crate) fn new(kind: RunKind, freed: &Arc<Notify>) -> Arc<Self> {
        Arc::new(Self { kind, count: AtomicUsize::new(0), freed: Arc::clone(freed) })
    }

    /// Returns how many runs wait.
    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    fn began(&self) {
        self.count.fetch_add(1, Ordering::AcqRel);
        metrics::gauge!(RUNS_WAITING.name, "kind" => self.kind.to_string()).increment(1.0);
        self.freed.notify_one();
    }

    fn ended(&self) {
        self.count.fetch_sub(1, Ordering::AcqRel);
        metrics::gauge!(RUNS_WAITING.name, "kind" => self.kind.to_string()).decrement(1.0);
    }
}

/// What one run waits for.
pub(crate) struct RunWaits {
    kind: Arc<KindWaits>,
    state: Mutex<State>,
}

/// INVARIANT: the run is counted among those of its kind when it has waits and has not ended.
#[derive(Default)]
struct State {
    waits: usize,
    ended: bool,
}

impl RunWaits {
    pub(crate) fn new(kind: &Arc<KindWaits>) -> Arc<Self> {
        Arc::new(Self { kind: Arc::clone(kind), state: Mutex::default() })
    }

    /// Counts the run until what is returned is dropped, or the run has ended.
    pub(crate) fn begin(self: &Arc<Self>) -> Waiting {
        self.change(|state| state.waits += 1);
        Waiting::new(Wait(Arc::clone(self)))
    }

    /// Counts the run no more, whatever a forgotten task of it still waits for.
    pub(super) fn end(&self) {
        self.change(|state| state.ended = true);
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let before = state.is_counted();
        change(&mut state);
        match (before, state.is_counted()) {
            (false, true) => self.kind.began(),
            (true, false) => self.kind.ended(),
            _ => {}
        }
    }
}

impl State {
    fn is_counted(&self) -> bool {
        0 < self.waits && !self.ended
    }
}

/// One wait of a run.
struct Wait(Arc<RunWaits>);

impl Drop for Wait {
    fn drop(&mut self) {
        self.0.change(|state| state.waits -= 1);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn run_is_counted_once_while_it_waits_and_never_after_its_end() {
        let freed = Arc::default();
        let kind = KindWaits::new(RunKind::CHAT, &freed);
        let run = RunWaits::new(&kind);
        assert_eq!(kind.count(), 0);
        let [one, two] = [run.begin(), run.begin()];
        assert_eq!(kind.count(), 1);
        assert!(freed.notified().now_or_never().is_some(), "there is room");
        drop(one);
        assert_eq!(kind.count(), 1);
        drop(two);
        assert_eq!(kind.count(), 0);
        let late = run.begin();
        run.end();
        assert_eq!(kind.count(), 0);
        let later = run.begin();
        drop((late, later));
        assert_eq!(kind.count(), 0);
    }
}
