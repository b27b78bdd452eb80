//! The database: rows of runs, and leases, of which a crash forgets what was not synced.

use musterbeat_core::id::{Fence, RunId, Step, WorkerId};
use musterbeat_core::lease::LeaseTimes;
use musterbeat_core::roster::RollEntry;
use musterbeat_core::run::{Admission, Ownership, Token};
use musterbeat_core::sighting::{Overdue, SeenLease};
use musterbeat_core::timestamp::Timestamp;
use uuid::Uuid;

use super::{TICK, Violation};

/// A worker: 0 is the ideal one, and each further number a start of the adversary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Worker(pub(super) u8);

impl Worker {
    pub(super) const IDEAL: Self = Self(0);

    pub(super) fn id(self) -> WorkerId {
        WorkerId::new(Uuid::from_u128(self.0.into()))
    }
}

/// The place of a run among the rows.
pub(super) type Place = usize;

pub(super) fn run(place: Place) -> RunId {
    RunId::new(Uuid::from_u128(place as u128))
}

pub(super) fn place(run: RunId) -> Place {
    usize::try_from(run.uuid().as_u128()).unwrap()
}

/// A run; one without a worker is pending.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Row {
    pub(super) worker: Option<Worker>,
    pub(super) fence: Fence,
    pub(super) step: Step,
    /// Who wrote last, and under which fence.
    written: Option<(Worker, Fence)>,
}

/// What a claim grants, and each write of the owner names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Grant {
    pub(super) place: Place,
    pub(super) worker: Worker,
    pub(super) fence: Fence,
    pub(super) step: Step,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Lease {
    now: LeaseRow,
    /// What a crash falls back to: beats and marks are not synced by themselves.
    synced: LeaseRow,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct LeaseRow {
    heartbeat: u8,
    state: LeaseState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum LeaseState {
    Live,
    Dead,
    Forgotten,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Database {
    /// Ticks on its own clock.
    clock: u8,
    pub(super) rows: [Row; 2],
    /// Of the adversary's starts, in order; nobody reaps the ideal worker.
    leases: Vec<Lease>,
}

impl Database {
    /// Lets time pass, or the clock step forward.
    pub(super) fn advance(&mut self, ticks: u8) {
        self.clock += ticks;
    }

    /// Forgets what was not synced.
    pub(super) fn crash(&mut self) {
        for lease in &mut self.leases {
            lease.now = lease.synced;
        }
    }

    /// Registers the adversary anew.
    pub(super) fn register(&mut self) -> Worker {
        let row = LeaseRow { heartbeat: self.clock, state: LeaseState::Live };
        self.leases.push(Lease { now: row, synced: row });
        self.sync();
        Worker(u8::try_from(self.leases.len()).unwrap())
    }

    /// Gives all pending runs to `worker`, if its lease lives.
    pub(super) fn claim_all(&mut self, worker: Worker) -> Vec<Grant> {
        if !self.is_live(worker) {
            return Vec::new();
        }
        let pending = (0..self.rows.len()).filter(|place| self.rows[*place].worker.is_none());
        pending.collect::<Vec<_>>().into_iter().map(|place| self.claim(place, worker)).collect()
    }

    pub(super) fn claim(&mut self, place: Place, worker: Worker) -> Grant {
        let row = &mut self.rows[place];
        row.worker = Some(worker);
        row.fence.0 += 1;
        let grant = Grant { place, worker, fence: row.fence, step: row.step };
        self.sync();
        grant
    }

    /// Renews a lease; returns whether it lives, and the roll.
    pub(super) fn beat(&mut self, worker: Worker) -> (bool, Vec<RollEntry>) {
        let alive = self.is_live(worker);
        if alive {
            self.lease(worker).now.heartbeat = self.clock;
        }
        let lines = self.rows.iter().enumerate().filter(|(_, row)| row.worker == Some(worker));
        let line = |(place, row): (Place, &Row)| RollEntry {
            run: run(place),
            fence: row.fence,
            stop: false,
        };
        (alive, lines.map(line).collect())
    }

    /// Returns a run to pending, if `worker` has it under `fence`.
    pub(super) fn release(&mut self, place: Place, worker: Worker, fence: Fence) -> bool {
        let row = self.rows[place];
        let matches = row.worker == Some(worker) && row.fence == fence;
        if matches {
            self.take(place);
        }
        matches
    }

    /// Applies an owner's write, which may give the run up under the same fence.
    ///
    /// Without `fenced` it compares the step alone.
    pub(super) fn write(
        &mut self,
        grant: Grant,
        gives_up: bool,
        fenced: bool,
    ) -> Result<Admission, Violation> {
        let Grant { place, worker, fence, step } = grant;
        let row = &mut self.rows[place];
        let owner = row.worker.map(Worker::id);
        let stored = Ownership { worker: owner, fence: row.fence, step: row.step };
        let token = Token { worker: worker.id(), fence, step };
        let unfenced = Token { worker: owner.unwrap_or(token.worker), fence: row.fence, step };
        let admission = stored.admit(if fenced { &token } else { &unfenced });
        match admission {
            Admission::Fenced => {}
            Admission::Repeated if row.written == Some((worker, fence)) => {}
            Admission::Repeated => return Err(Violation::NeverWritten(place)),
            Admission::Write if (row.worker, row.fence) == (Some(worker), fence) => {
                row.step = row.step.next();
                row.written = Some((worker, fence));
                if gives_up {
                    row.worker = None;
                }
                self.sync();
            }
            Admission::Write => return Err(Violation::StaleWrite(place)),
        }
        Ok(admission)
    }

    /// Lists the leases of the adversary.
    pub(super) fn look(&self) -> Vec<SeenLease> {
        let rows = self.leases.iter().map(|lease| lease.now).enumerate();
        rows.filter(|(_, row)| row.state != LeaseState::Forgotten)
            .map(|(index, row)| SeenLease {
                worker: start(index).id(),
                heartbeat_at: stamp(row.heartbeat),
                dead: row.state == LeaseState::Dead,
            })
            .collect()
    }

    /// Lists expired leases among `watched`, all of them if `None`.
    pub(super) fn expired(&self, watched: Option<&[Overdue]>, times: &LeaseTimes) -> Vec<Worker> {
        let ttl = u8::try_from(times.ttl().as_secs() / TICK.as_secs()).unwrap();
        let rows = self.leases.iter().map(|lease| lease.now).enumerate();
        let expired = rows.map(|(index, row)| (start(index), row)).filter(|(worker, row)| {
            let same = |overdue: &Overdue| {
                overdue.worker == worker.id() && overdue.heartbeat_at == stamp(row.heartbeat)
            };
            row.state == LeaseState::Live
                && row.heartbeat + ttl < self.clock
                && watched.is_none_or(|watched| watched.iter().any(same))
        });
        expired.map(|(worker, _)| worker).collect()
    }

    /// Marks a lease dead; with nothing synced after it, a crash undoes it.
    pub(super) fn mark(&mut self, worker: Worker) {
        self.lease(worker).now.state = LeaseState::Dead;
    }

    /// Marks the lease of a worker that has stopped.
    pub(super) fn resign(&mut self, worker: Worker) {
        self.mark(worker);
        self.sync();
    }

    /// Says whether the run belongs to a dead lease.
    pub(super) fn can_requeue(&self, place: Place) -> bool {
        let owner = self.rows[place].worker;
        owner.is_some_and(|worker| self.state(worker) == Some(LeaseState::Dead))
    }

    /// Forgets dead leases with nothing left.
    pub(super) fn forget(&mut self) {
        for (index, lease) in self.leases.iter_mut().enumerate() {
            let owns = self.rows.iter().any(|row| row.worker == Some(start(index)));
            if lease.now.state == LeaseState::Dead && !owns {
                lease.now.state = LeaseState::Forgotten;
            }
        }
    }

    /// Makes leases equal that no crash brings back.
    pub(super) fn simplify(&mut self) {
        let rows = self.leases.iter_mut().flat_map(|lease| [&mut lease.now, &mut lease.synced]);
        for row in rows.filter(|row| row.state != LeaseState::Live) {
            row.heartbeat = 0;
        }
    }

    pub(super) fn is_live(&self, worker: Worker) -> bool {
        self.state(worker) == Some(LeaseState::Live)
    }

    /// Returns a run to pending under the next fence.
    pub(super) fn take(&mut self, place: Place) {
        let row = &mut self.rows[place];
        row.worker = None;
        row.fence.0 += 1;
        self.sync();
    }

    /// A commit that is synced syncs all that was logged before.
    pub(super) fn sync(&mut self) {
        for lease in &mut self.leases {
            lease.synced = lease.now;
        }
    }

    fn state(&self, worker: Worker) -> Option<LeaseState> {
        let index = usize::from(worker.0).checked_sub(1)?;
        self.leases.get(index).map(|lease| lease.now.state)
    }

    fn lease(&mut self, worker: Worker) -> &mut Lease {
        &mut self.leases[usize::from(worker.0) - 1]
    }
}

/// The start of the adversary that has the lease at `index`.
fn start(index: usize) -> Worker {
    Worker(u8::try_from(index + 1).unwrap())
}

fn stamp(ticks: u8) -> Timestamp {
    Timestamp::from_micros(i64::from(ticks)).unwrap()
}
