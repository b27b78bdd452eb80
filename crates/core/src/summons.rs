//! Who looks for a pending run, and when: a few workers at once, more of them later.
//!
//! Every replica hears of every pending run. If all looked, fifty would ask for what one can
//! have; if one looked, it might be dead, full, or serve other kinds. So each run ranks the
//! workers by rendezvous hashing (Thaler and Ravishankar, "Using Name-Based Mappings to
//! Increase Hit Rates", 1998), which needs no agreement but on who there is. The first ranks
//! look at once, the next ones in waves that double, until the run is heard to be claimed.
//! Replicas that disagree on who there is lose some time, and never a run.

use std::collections::BTreeMap;
use std::time::Duration;

use uuid::Uuid;

use crate::id::{RunId, WorkerId};
use crate::lease::Moment;
use crate::mix::mix;

/// How many workers look for a run at once: one of them may be dead without any loss of time.
pub const WAVE_FIRST: usize = 2;

/// Time from one wave to the next: a claim and the notice of it take a part of it.
pub const WAVE_DELAY: Duration = Duration::from_millis(25);

/// How long a claim is remembered: who looks for one run takes others before they are told of.
pub const CLAIM_MEMORY: Duration = Duration::from_millis(100);

/// Runs that one worker keeps in mind by name, of those that are pending and of the claimed.
pub const RUNS_MAX: usize = 1_000;

/// Returns in which wave `worker` looks for `run`, the first being 0.
///
/// Each wave has twice as many workers as the one before. The order of `workers` does not
/// matter, nor whether `worker` is among them.
pub fn wave(run: RunId, worker: WorkerId, workers: &[WorkerId]) -> u32 {
    let seed = mixed(0, run.uuid());
    let place = |worker: WorkerId| (mixed(seed, worker.uuid()), worker);
    let own = place(worker);
    let rank = workers.iter().filter(|other| place(**other) < own).count();
    (rank / WAVE_FIRST + 1).ilog2()
}

/// The pending runs that a worker has heard of, each with its turn to look for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summons {
    /// INVARIANT: has [`RUNS_MAX`] runs at most.
    turns: BTreeMap<RunId, Moment>,
    /// INVARIANT: has [`RUNS_MAX`] runs at most.
    claimed: BTreeMap<RunId, Moment>,
    /// When to look whatever is claimed meanwhile.
    look_by: Option<Moment>,
}

impl Summons {
    /// Takes in that `run` is pending, for `worker` among `workers`, heard of at `now`.
    ///
    /// Told again it keeps its turn. When too many runs are kept it is everybody's turn. Of a run
    /// that was claimed a moment ago this is most likely late: then it is the first wave's turn
    /// only, in case that the run is pending once more.
    pub fn pending(&mut self, run: RunId, worker: WorkerId, workers: &[WorkerId], now: Moment) {
        let wave = wave(run, worker, workers);
        if 0 < wave && self.claimed.get(&run).is_some_and(|at| now.since(*at) < CLAIM_MEMORY) {
            return;
        }
        if self.turns.len() < RUNS_MAX {
            self.turns.entry(run).or_insert(now.after(WAVE_DELAY * wave));
        } else if !self.turns.contains_key(&run) {
            self.look_by(now);
        }
    }

    /// Takes in that `run` was claimed, heard of at `now`: nobody else need look for it.
    pub fn claimed(&mut self, run: RunId, now: Moment) {
        self.turns.remove(&run);
        if self.claimed.len() == RUNS_MAX {
            self.claimed.retain(|_, at| now.since(*at) < CLAIM_MEMORY);
        }
        if self.claimed.len() < RUNS_MAX {
            self.claimed.insert(run, now);
        }
    }

    /// Takes in that runs may be pending which nobody names: look at `at` or before.
    pub fn look_by(&mut self, at: Moment) {
        self.look_by = Some(self.look_by.map_or(at, |before| before.min(at)));
    }

    /// Returns when it is this worker's turn to look, `None` when it need not.
    pub fn next(&self) -> Option<Moment> {
        self.turns.values().copied().chain(self.look_by).min()
    }

    /// Forgets what is pending: a look that was sent since finds whatever there is.
    pub fn looked(&mut self) {
        self.turns.clear();
        self.look_by = None;
    }
}

/// Mixes an id into `state`, half by half, the higher first; every replica computes the same.
fn mixed(state: u64, id: Uuid) -> u64 {
    let (high, low) = id.as_u64_pair();
    let step = |state: u64, word: u64| mix((state ^ word).wrapping_add(0x9e37_79b9_7f4a_7c15));
    [high, low].into_iter().fold(state, step)
}

#[cfg(test)]
mod tests;
