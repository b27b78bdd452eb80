//! The adversarial worker: each message is sent, applied, answered or lost by itself, however late.
//!
//! An answer that never comes is one that is never taken, so only what is done about a loss is
//! an event: a claim is abandoned, a write is sent again. What was sent may still be applied.

use musterbeat_core::id::Fence;
use musterbeat_core::lease::{Belief, LeaseTimes, Moment};
use musterbeat_core::roster::{Beat, Entered, Holding, RollEntry, Roster};
use musterbeat_core::run::Admission;

use super::database::{Database, Grant, Place, Worker, place, run};
use super::{Fault, Rules, Violation};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Adversary {
    pub(super) worker: Worker,
    /// `None` once it has crashed, fenced itself or drained.
    belief: Option<Belief>,
    roster: Roster,
    /// What it works on.
    grants: Vec<Grant>,
    pub(super) claim: Option<Claim>,
    /// Claims that may be applied although their answer will never be used.
    pub(super) ghost_claims: Vec<Worker>,
    pub(super) beats: Vec<SentBeat>,
    /// Orphans whose release is on its way.
    pub(super) releases: Vec<(Worker, Holding)>,
    pub(super) writes: Vec<Write>,
    /// Writes that may be applied although nobody awaits them.
    pub(super) stray_writes: Vec<Grant>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Claim {
    Sent,
    Applied(Vec<Grant>),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct SentBeat {
    beat: Beat,
    sent: Moment,
    /// Whether the lease lived, and the roll.
    pub(super) answer: Option<(bool, Vec<RollEntry>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Write {
    pub(super) grant: Grant,
    pub(super) stage: WriteStage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum WriteStage {
    Sent,
    Kept,
    GaveUp,
    Refused,
}

impl Adversary {
    /// Starts as `worker`, registered at `now`.
    pub(super) fn new(worker: Worker, now: Moment, times: &LeaseTimes) -> Self {
        Self {
            worker,
            belief: Some(Belief::new(now, times)),
            roster: Roster::default(),
            grants: Vec::new(),
            claim: None,
            ghost_claims: Vec::new(),
            beats: Vec::new(),
            releases: Vec::new(),
            writes: Vec::new(),
            stray_writes: Vec::new(),
        }
    }

    /// Starts again; what the former start sent may still be applied.
    pub(super) fn restart(&mut self, worker: Worker, now: Moment, times: &LeaseTimes) {
        let ghost_claims = std::mem::take(&mut self.ghost_claims);
        let releases = std::mem::take(&mut self.releases);
        let stray_writes = std::mem::take(&mut self.stray_writes);
        let new = Self::new(worker, now, times);
        *self = Self { ghost_claims, releases, stray_writes, ..new };
    }

    /// Ends all tasks: it crashed, fenced itself, or drains.
    pub(super) fn stop(&mut self) {
        self.belief = None;
        self.abandon_claim();
        self.beats.clear();
        for grant in std::mem::take(&mut self.grants) {
            self.end_task(grant);
        }
        self.roster = Roster::default();
    }

    /// Says whether its tasks run.
    pub(super) fn is_up(&self) -> bool {
        self.belief.is_some()
    }

    /// Says whether it may act, by its own clock.
    pub(super) fn believes(&self, now: Moment) -> bool {
        self.belief.is_some_and(|belief| belief.holds(now))
    }

    /// Returns the runs that it works on without a write on its way that may give them up.
    pub(super) fn settled(&self) -> impl Iterator<Item = Grant> + '_ {
        let awaited = |grant: &Grant| self.writes.iter().any(|write| write.grant == *grant);
        self.grants.iter().copied().filter(move |grant| !awaited(grant))
    }

    /// Says whether its roster has a run under a fence.
    pub(super) fn has(&self, holding: Holding) -> bool {
        self.roster.runs().any(|own| own == holding)
    }

    pub(super) fn send_claim(&mut self) {
        self.roster.claim_sent();
        self.claim = Some(Claim::Sent);
    }

    pub(super) fn apply_claim(&mut self, database: &mut Database) {
        self.claim = Some(Claim::Applied(database.claim_all(self.worker)));
    }

    pub(super) fn apply_ghost(&mut self, index: usize, database: &mut Database) {
        database.claim_all(self.ghost_claims.remove(index));
    }

    /// The answer counts only while the worker believes.
    pub(super) fn answer_claim(&mut self, now: Moment) -> Result<(), Violation> {
        let Some(Claim::Applied(grants)) = self.claim.take() else { return Ok(()) };
        let believes = self.believes(now);
        for grant in grants.into_iter().filter(|_| believes) {
            match self.roster.enter(run(grant.place), grant.fence) {
                Entered::New => {}
                Entered::Replaces(fence) => self.end_task_at(grant.place, fence),
                Entered::WentBack => return Err(Violation::WentBack(grant.place)),
            }
            self.grants.push(grant);
            self.grants.sort_unstable();
        }
        self.roster.claim_settled();
        Ok(())
    }

    /// Gives the claim in flight up at its deadline.
    pub(super) fn abandon_claim(&mut self) {
        let Some(claim) = self.claim.take() else { return };
        if claim == Claim::Sent {
            self.ghost_claims.push(self.worker);
        }
        self.roster.claim_settled();
    }

    pub(super) fn send_beat(&mut self, now: Moment) {
        let beat = self.roster.beat_sent();
        self.beats.push(SentBeat { beat, sent: now, answer: None });
    }

    pub(super) fn apply_beat(&mut self, index: usize, database: &mut Database) {
        self.beats[index].answer = Some(database.beat(self.worker));
    }

    /// Musters; a worker whose lease is dead stops.
    pub(super) fn answer_beat(&mut self, index: usize, rules: &Rules) {
        let SentBeat { beat, sent, answer } = self.beats.remove(index);
        let Some((alive, roll)) = answer else { return };
        if !alive {
            self.stop();
            return;
        }
        self.belief = self.belief.map(|belief| belief.renewed(sent, &rules.times));
        let mut muster = self.roster.muster(beat, roll.clone());
        if rules.fault == Some(Fault::OrphansAtFirstSight) {
            let lines =
                roll.iter().filter(|line| self.roster.runs().all(|(run, _)| run != line.run));
            muster.orphaned = lines.map(|line| (line.run, line.fence)).collect();
        }
        for (run, fence) in muster.lost {
            self.end_task_at(place(run), fence);
        }
        self.releases.extend(muster.orphaned.into_iter().map(|holding| (self.worker, holding)));
        self.releases.sort_unstable();
        self.releases.dedup();
    }

    pub(super) fn send_write(&mut self, place: Place) {
        let grant = self.settled().find(|grant| grant.place == place).unwrap();
        self.roster.end(run(grant.place), grant.fence);
        self.writes.push(Write { grant, stage: WriteStage::Sent });
        self.writes.sort_unstable_by_key(|write| write.grant);
    }

    pub(super) fn apply_write(
        &mut self,
        index: usize,
        gives_up: bool,
        database: &mut Database,
        fenced: bool,
    ) -> Result<(), Violation> {
        let Write { grant, stage } = &mut self.writes[index];
        let admission = database.write(*grant, gives_up, fenced)?;
        // A repeated write is told what the first one was.
        let kept = database.rows[grant.place].worker == Some(grant.worker);
        *stage = match admission {
            Admission::Fenced => WriteStage::Refused,
            Admission::Write | Admission::Repeated if kept => WriteStage::Kept,
            Admission::Write | Admission::Repeated => WriteStage::GaveUp,
        };
        Ok(())
    }

    /// Sends a write again whose answer was lost; the first may still be applied.
    pub(super) fn retry_write(&mut self, index: usize) {
        let Write { grant, stage } = &mut self.writes[index];
        if *stage == WriteStage::Sent {
            self.stray_writes.push(*grant);
            self.stray_writes.sort_unstable();
        }
        *stage = WriteStage::Sent;
    }

    pub(super) fn answer_write(&mut self, index: usize) {
        let Write { grant, stage } = self.writes.remove(index);
        match stage {
            WriteStage::Sent => {}
            WriteStage::Kept => {
                self.roster.go_on(run(grant.place), grant.fence);
                let own = self.grants.iter_mut().find(|own| **own == grant);
                own.unwrap().step = grant.step.next();
            }
            WriteStage::GaveUp | WriteStage::Refused => {
                self.end_task_at(grant.place, grant.fence);
            }
        }
    }

    fn end_task_at(&mut self, place: Place, fence: Fence) {
        let named = |grant: &Grant| grant.place == place && grant.fence == fence;
        if let Some(index) = self.grants.iter().position(named) {
            let grant = self.grants.remove(index);
            self.end_task(grant);
        }
    }

    fn end_task(&mut self, grant: Grant) {
        self.roster.strike(run(grant.place), grant.fence);
        if let Some(index) = self.writes.iter().position(|write| write.grant == grant)
            && self.writes.remove(index).stage == WriteStage::Sent
        {
            self.stray_writes.push(grant);
            self.stray_writes.sort_unstable();
        }
    }
}
