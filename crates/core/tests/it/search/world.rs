//! The world of the search: one database, an adversarial worker and an ideal one.
//!
//! The ideal worker beats and looks with each tick, is answered at once, and nobody reaps it.

use std::hash::{DefaultHasher, Hash, Hasher};

use musterbeat_core::lease::Moment;
use musterbeat_core::roster::Holding;
use musterbeat_core::sighting::Sightings;

use super::adversary::{Adversary, WriteStage};
use super::database::{Database, Grant, Place, Row, Worker, place, run};
use super::event::Event;
use super::{Fault, Rules, TICK, Violation};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct World {
    pub(super) left: Left,
    ticks: u8,
    pub(super) database: Database,
    pub(super) adversary: Adversary,
    sightings: Sightings,
    /// What the ideal worker believes it owns.
    pub(super) ideal: [Option<Grant>; 2],
}

/// How often something may still happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Left {
    pub(super) ticks: u8,
    pub(super) beats: u8,
    pub(super) claims: u8,
    pub(super) ideal_claims: u8,
    pub(super) writes: u8,
    pub(super) restarts: u8,
    pub(super) crashes: u8,
    pub(super) clock_steps: u8,
}

impl World {
    pub(super) fn new(rules: &Rules) -> Self {
        let bounds = &rules.bounds;
        let misfortunes = u8::from(bounds.misfortunes);
        let left = Left {
            ticks: bounds.ticks,
            beats: bounds.beats,
            claims: bounds.claims,
            ideal_claims: bounds.claims,
            writes: if bounds.writes { 2 } else { 0 },
            restarts: 1,
            crashes: misfortunes,
            clock_steps: misfortunes,
        };
        let mut database = Database::default();
        let worker = database.register();
        let adversary = Adversary::new(worker, Moment::default(), &rules.times);
        let sightings = Sightings::default();
        Self { left, ticks: 0, database, adversary, sightings, ideal: [None; 2] }
    }

    pub(super) fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        hasher.finish()
    }

    /// The moment on the clock of both workers.
    pub(super) fn now(&self) -> Moment {
        Moment::new(TICK * u32::from(self.ticks))
    }

    /// Lists the leases that the ideal worker may mark.
    pub(super) fn markable(&self, rules: &Rules) -> Vec<Worker> {
        let overdue = self.sightings.overdue(&rules.times);
        let by_sight = rules.fault != Some(Fault::ReapByExpiryAlone);
        self.database.expired(by_sight.then_some(&overdue), &rules.times)
    }

    /// Returns the world after `event`, or what is wrong with it.
    pub(super) fn after(&self, event: Event, rules: &Rules) -> Result<Self, Violation> {
        let mut world = self.clone();
        world.count_down(event);
        world.step(event, rules)?;
        world.check()?;
        world.simplify();
        Ok(world)
    }

    fn count_down(&mut self, event: Event) {
        let left = match event {
            Event::Tick => &mut self.left.ticks,
            Event::BeatSent => &mut self.left.beats,
            Event::ClaimSent => &mut self.left.claims,
            Event::IdealClaims(_) => &mut self.left.ideal_claims,
            Event::WriteSent(_) | Event::WriteRetried(_) => &mut self.left.writes,
            Event::Registered => &mut self.left.restarts,
            Event::DatabaseCrashed => &mut self.left.crashes,
            Event::ClockStepped => &mut self.left.clock_steps,
            _ => return,
        };
        *left -= 1;
    }

    /// Makes worlds equal that differ only in what can matter no more.
    fn simplify(&mut self) {
        let Self { left, database, adversary, .. } = self;
        if !adversary.is_up() && left.restarts == 0 {
            (left.beats, left.claims, left.writes) = (0, 0, 0);
        }
        if left.crashes == 0 {
            database.sync();
        }
        database.simplify();
    }

    fn step(&mut self, event: Event, rules: &Rules) -> Result<(), Violation> {
        let now = self.now();
        let fenced = rules.fault != Some(Fault::WriteWithoutFence);
        let Self { database, adversary, .. } = self;
        match event {
            Event::Tick => self.tick(),
            Event::ClaimSent => adversary.send_claim(),
            Event::ClaimApplied => adversary.apply_claim(database),
            Event::ClaimAnswered => adversary.answer_claim(now)?,
            Event::ClaimAbandoned => adversary.abandon_claim(),
            Event::GhostClaimApplied(index) => adversary.apply_ghost(index, database),
            Event::BeatSent => adversary.send_beat(now),
            Event::BeatApplied(index) => adversary.apply_beat(index, database),
            Event::BeatAnswered(index) => adversary.answer_beat(index, rules),
            Event::OrphanReleased(index) => self.release(index)?,
            Event::WriteSent(place) => adversary.send_write(place),
            Event::WriteKeeps(index) => adversary.apply_write(index, false, database, fenced)?,
            Event::WriteGivesUp(index) => adversary.apply_write(index, true, database, fenced)?,
            Event::WriteAnswered(index) => adversary.answer_write(index),
            Event::WriteRetried(index) => adversary.retry_write(index),
            Event::StrayWriteKeeps(index) => {
                database.write(adversary.stray_writes.remove(index), false, fenced)?;
            }
            Event::StrayWriteGivesUp(index) => {
                database.write(adversary.stray_writes.remove(index), true, fenced)?;
            }
            Event::Stopped => adversary.stop(),
            Event::Resigned(worker) => database.resign(worker),
            Event::Registered => adversary.restart(database.register(), now, &rules.times),
            Event::IdealClaims(place) => {
                self.ideal[place] = Some(database.claim(place, Worker::IDEAL));
            }
            Event::IdealFinishes(place) => {
                database.write(self.ideal[place].take().unwrap(), true, fenced)?;
            }
            Event::Looked => self.look(),
            Event::Marked(worker) => database.mark(worker),
            Event::Requeued(place) => self.requeue(place)?,
            Event::DatabaseCrashed => {
                database.crash();
                // The connection that it looked through is broken.
                self.sightings.forget();
            }
            Event::ClockStepped => database.advance(rules.lease_ticks()),
        }
        Ok(())
    }

    /// Says whether another look shows anything new.
    pub(super) fn has_news(&self) -> bool {
        let mut sightings = self.sightings.clone();
        sightings.look(self.now(), self.now(), &self.database.look());
        sightings != self.sightings
    }

    fn look(&mut self) {
        let now = self.now();
        self.sightings.look(now, now, &self.database.look());
    }

    fn tick(&mut self) {
        self.ticks += 1;
        self.database.advance(1);
        self.database.forget();
        self.look();
    }

    fn release(&mut self, index: usize) -> Result<(), Violation> {
        let (worker, (run, fence)) = self.adversary.releases.remove(index);
        let taken = self.database.release(place(run), worker, fence);
        self.blame(taken, worker, (run, fence))
    }

    fn requeue(&mut self, place: Place) -> Result<(), Violation> {
        let row = self.database.rows[place];
        self.database.take(place);
        self.blame(true, row.worker.unwrap(), (run(place), row.fence))
    }

    /// Nobody takes a run from the adversary while it believes, even one that it writes to.
    fn blame(&self, taken: bool, worker: Worker, holding: Holding) -> Result<(), Violation> {
        let believes = worker == self.adversary.worker && self.adversary.believes(self.now());
        if taken && believes && self.adversary.has(holding) {
            return Err(Violation::Theft(place(holding.0)));
        }
        Ok(())
    }

    /// Whoever believes in a run owns it in the table, so two never believe in one.
    fn check(&self) -> Result<(), Violation> {
        let believes = self.adversary.believes(self.now());
        let grants = self.adversary.settled().filter(|_| believes);
        for grant in grants.chain(self.ideal.iter().copied().flatten()) {
            let row = self.database.rows[grant.place];
            let listed = self.adversary.has((run(grant.place), grant.fence));
            if grant.worker != Worker::IDEAL && !listed {
                return Err(Violation::Unlisted(grant.place));
            }
            if row.worker.is_none() {
                return Err(Violation::Theft(grant.place));
            }
            if (row.worker, row.fence) != (Some(grant.worker), grant.fence) {
                return Err(Violation::TwoOwners(grant.place));
            }
        }
        Ok(())
    }

    /// Checks that every run comes free or to a worker that knows it, whatever is late or lost.
    ///
    /// First the adversary gives up what it waits for and beats once; then it dies.
    pub(super) fn check_end(&self, rules: &Rules) -> Result<(), Violation> {
        let mut world = self.clone();
        world.settle(rules)?;
        let Self { adversary, database, .. } = &world;
        for (place, row) in database.rows.iter().enumerate() {
            let unknown = !adversary.has((run(place), row.fence));
            if row.worker == Some(adversary.worker) && adversary.is_up() && unknown {
                return Err(Violation::Stuck(place));
            }
        }
        world.adversary.stop();
        for _ in 0..2 * rules.lease_ticks() {
            world.tick();
            world.reap(rules);
        }
        let owned = |row: &Row| row.worker.is_some_and(|worker| worker != Worker::IDEAL);
        let stuck = world.database.rows.iter().position(owned);
        stuck.map_or(Ok(()), |place| Err(Violation::Stuck(place)))
    }

    fn settle(&mut self, rules: &Rules) -> Result<(), Violation> {
        let Self { database, adversary, .. } = self;
        adversary.abandon_claim();
        while let Some(write) = adversary.writes.first() {
            if write.stage == WriteStage::Sent {
                adversary.apply_write(0, false, database, true)?;
            }
            adversary.answer_write(0);
        }
        if adversary.is_up() {
            adversary.beats.clear();
            adversary.send_beat(Moment::new(TICK * u32::from(self.ticks)));
            adversary.apply_beat(0, database);
            adversary.answer_beat(0, rules);
        }
        for (worker, (run, fence)) in std::mem::take(&mut adversary.releases) {
            database.release(place(run), worker, fence);
        }
        Ok(())
    }

    fn reap(&mut self, rules: &Rules) {
        for worker in self.markable(rules) {
            self.database.mark(worker);
        }
        for place in 0..self.database.rows.len() {
            if self.database.can_requeue(place) {
                self.database.take(place);
            }
        }
    }
}
