//! The roll call: what a worker believes it owns, compared with what the table says.
//!
//! A worker keeps a [`Roster`] of its runs. Each beat returns the roll, every run that the
//! table gives to this worker, and [`Roster::muster`] takes the differences. The two are never
//! read at one moment, so a run takes part only if nothing was on its way in between: it was
//! entered before the beat was sent, and its final write has not begun. What the table has and
//! the roster has not came by a claim whose answer was lost, unless a claim was on its way.

mod members;

use std::cmp::Ordering;
use std::mem;

use crate::id::{Fence, RunId};
use members::Members;

/// A run under one ownership.
pub type Holding = (RunId, Fence);

/// A line of the roll: a run that the table gives to the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RollEntry {
    /// Which run.
    pub run: RunId,
    /// Under which ownership.
    pub fence: Fence,
    /// Whether it is to be interrupted.
    pub stop: bool,
}

/// What a worker believes it owns.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Roster {
    members: Members,
    beats: u64,
    claims: u64,
    claims_in_flight: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Member {
    fence: Fence,
    /// How many beats had been sent when it was entered, or went on after a write.
    beats_before: u64,
    /// Whether a write that may give it up is on its way.
    ending: bool,
}

/// What became of a claimed run that was entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entered {
    /// The worker did not have it.
    New,
    /// The worker had it under this former fence; the task of then ends before the new one starts.
    Replaces(Fence),
    /// The worker has it under the same fence or a later one: the database has lost commits.
    WentBack,
}

/// A beat that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Beat {
    number: u64,
    /// How many claims had been sent, if none of them was in flight.
    quiet_at: Option<u64>,
}

/// The answer of a roll call; each list is sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Muster {
    /// In the roster and in the roll.
    pub held: Vec<RunId>,
    /// In the roster only: somebody else may own it.
    pub lost: Vec<Holding>,
    /// In the roll only: nobody works on it.
    pub orphaned: Vec<Holding>,
    /// Held, and to be interrupted.
    pub interrupted: Vec<Holding>,
}

impl Roster {
    /// Enters a run that a claim returned.
    pub fn enter(&mut self, run: RunId, fence: Fence) -> Entered {
        let member = Member { fence, beats_before: self.beats, ending: false };
        match self.members.get_mut(run) {
            None => {
                self.members.insert(run, member);
                Entered::New
            }
            Some(former) if former.fence >= fence => Entered::WentBack,
            Some(former) => Entered::Replaces(mem::replace(former, member).fence),
        }
    }

    /// Notes that a write is about to be sent that may give the run up.
    pub fn end(&mut self, run: RunId, fence: Fence) {
        if let Some(member) = self.member(run, fence) {
            member.ending = true;
        }
    }

    /// Notes that such a write has left the run with its owner.
    pub fn go_on(&mut self, run: RunId, fence: Fence) {
        let beats = self.beats;
        if let Some(member) = self.member(run, fence) {
            (member.ending, member.beats_before) = (false, beats);
        }
    }

    /// Strikes a run off whose task has ended.
    pub fn strike(&mut self, run: RunId, fence: Fence) {
        if self.member(run, fence).is_some() {
            self.members.remove(run);
        }
    }

    /// Returns how many runs it has.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Says whether it has no run.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Returns its runs, in order.
    pub fn runs(&self) -> impl Iterator<Item = Holding> + '_ {
        self.members.iter().map(|(run, member)| (*run, member.fence))
    }

    /// Notes that a claim is about to be sent.
    pub fn claim_sent(&mut self) {
        self.claims += 1;
        self.claims_in_flight += 1;
    }

    /// Notes that a claim is over: its runs were entered, or its answer will never be used.
    pub fn claim_settled(&mut self) {
        self.claims_in_flight = self.claims_in_flight.saturating_sub(1);
    }

    /// Notes that a beat is about to be sent.
    pub fn beat_sent(&mut self) -> Beat {
        self.beats += 1;
        let quiet_at = (self.claims_in_flight == 0).then_some(self.claims);
        Beat { number: self.beats, quiet_at }
    }

    /// Compares the roster with the roll that `beat` returned, in any order.
    pub fn muster(&self, beat: Beat, mut roll: Vec<RollEntry>) -> Muster {
        if !roll.is_sorted_by_key(|entry| entry.run) {
            roll.sort_unstable_by_key(|entry| entry.run);
        }
        let quiet = beat.quiet_at == Some(self.claims);
        let mut muster = Muster { held: Vec::with_capacity(roll.len()), ..Muster::default() };
        let mut members = self.members.iter();
        let mut next = members.next();
        for entry in roll {
            // Members before this line are in the roster only.
            while let Some((run, member)) = next.filter(|(run, _)| *run < entry.run) {
                muster.missing(*run, member, beat);
                next = members.next();
            }
            match next {
                Some((run, member)) if *run == entry.run => {
                    muster.met(*run, member, &entry, beat, quiet);
                    next = members.next();
                }
                _ if quiet => muster.orphaned.push((entry.run, entry.fence)),
                _ => {}
            }
        }
        for (run, member) in next.into_iter().chain(members) {
            muster.missing(*run, member, beat);
        }
        muster
    }

    fn member(&mut self, run: RunId, fence: Fence) -> Option<&mut Member> {
        self.members.get_mut(run).filter(|member| member.fence == fence)
    }
}

impl Member {
    /// Says whether nothing was on its way between the table and this entry.
    fn takes_part(&self, beat: Beat) -> bool {
        self.beats_before < beat.number && !self.ending
    }
}

impl Muster {
    fn missing(&mut self, run: RunId, member: &Member, beat: Beat) {
        if member.takes_part(beat) {
            self.lost.push((run, member.fence));
        }
    }

    fn met(&mut self, run: RunId, member: &Member, entry: &RollEntry, beat: Beat, quiet: bool) {
        let order = entry.fence.cmp(&member.fence);
        if order != Ordering::Equal {
            self.missing(run, member, beat);
        } else if member.takes_part(beat) {
            self.held.push(run);
            if entry.stop {
                self.interrupted.push((run, entry.fence));
            }
        }
        // Under an earlier fence it is a line from before the claim, or of lost commits.
        if order == Ordering::Greater && quiet {
            self.orphaned.push((run, entry.fence));
        }
    }
}

#[cfg(test)]
mod tests;
