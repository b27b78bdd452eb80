//! The reaper's watching: for how long it has itself seen a lease without a beat.
//!
//! That a lease has expired on the database's clock is necessary to mark it dead, and not
//! sufficient: beats are not flushed, clocks step, standbys are promoted. A worker believes in
//! its lease for [`LeaseTimes::belief`]; whoever has seen the same beat for as long on its own
//! clock knows that this time has passed.

use std::collections::BTreeMap;

use crate::id::WorkerId;
use crate::lease::{LeaseTimes, Moment};
use crate::timestamp::Timestamp;

/// A lease as a look at the table shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SeenLease {
    /// Whose it is.
    pub worker: WorkerId,
    /// Its last beat, on the database's clock.
    pub heartbeat_at: Timestamp,
    /// Whether it was marked dead.
    pub dead: bool,
}

/// A lease that may be marked dead if it still has the same beat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Overdue {
    /// Whose lease.
    pub worker: WorkerId,
    /// The beat that it was seen with all the time.
    pub heartbeat_at: Timestamp,
    /// Whether it was seen for a whole lease, which counts even if the beat lies in the future.
    ///
    /// The database's clock may have gone back, so that the beat expires no more.
    pub for_whole_lease: bool,
}

/// What one process has seen of the leases of others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Sightings {
    seen: BTreeMap<WorkerId, Sighting>,
}

/// From `first` to `last` the lease certainly had the same beat.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Sighting {
    heartbeat_at: Timestamp,
    /// When the answer with this beat first came: the table was read before.
    first: Moment,
    /// When the question was last sent whose answer had this beat: the table was read after.
    last: Moment,
}

impl Sightings {
    /// Takes in a look at all leases, asked at `sent` and answered at `answered`.
    pub fn look(&mut self, sent: Moment, answered: Moment, leases: &[SeenLease]) {
        let before = std::mem::take(&mut self.seen);
        let live = leases.iter().filter(|lease| !lease.dead);
        self.seen = live
            .map(|lease| {
                let SeenLease { worker, heartbeat_at, .. } = *lease;
                let same = before.get(&worker).filter(|seen| seen.heartbeat_at == heartbeat_at);
                let first = same.map_or(answered, |seen| seen.first);
                (worker, Sighting { heartbeat_at, first, last: sent })
            })
            .collect();
    }

    /// Returns the leases that were seen with the same beat for as long as workers believe.
    pub fn overdue(&self, times: &LeaseTimes) -> Vec<Overdue> {
        let unchanged = self.seen.iter().map(|(worker, seen)| (worker, seen, seen.unchanged()));
        unchanged
            .filter(|(_, _, unchanged)| *unchanged >= times.belief())
            .map(|(worker, seen, unchanged)| Overdue {
                worker: *worker,
                heartbeat_at: seen.heartbeat_at,
                for_whole_lease: unchanged >= times.ttl(),
            })
            .collect()
    }

    /// Says whether a lease has missed a beat, so that it should be looked at more often.
    pub fn is_any_late(&self, times: &LeaseTimes) -> bool {
        self.seen.values().any(|seen| seen.unchanged() >= times.late())
    }

    /// Forgets everything: with the connection, what was seen on it may be gone from the table.
    ///
    /// A database that crashes or fails over may have forgotten beats that it acknowledged.
    pub fn forget(&mut self) {
        self.seen.clear();
    }
}

impl Sighting {
    fn unchanged(&self) -> std::time::Duration {
        self.last.since(self.first)
    }
}

#[cfg(test)]
mod tests;
