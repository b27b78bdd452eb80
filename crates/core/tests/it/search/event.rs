//! What may happen next in the world of the search.

use super::Rules;
use super::adversary::{Adversary, Claim, WriteStage};
use super::database::{Place, Worker};
use super::world::World;

/// One thing that happens; numbers are places of runs, or of messages of that sort.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// Time passes; the ideal worker forgets dead leases with nothing left, and looks at the others.
    Tick,
    ClaimSent,
    ClaimApplied,
    ClaimAnswered,
    /// Its deadline has passed.
    ClaimAbandoned,
    /// A claim is applied whose answer will never be used.
    GhostClaimApplied(usize),
    BeatSent,
    BeatApplied(usize),
    BeatAnswered(usize),
    OrphanReleased(usize),
    WriteSent(Place),
    WriteKeeps(usize),
    WriteGivesUp(usize),
    WriteAnswered(usize),
    /// Its answer was lost, and it is sent again.
    WriteRetried(usize),
    StrayWriteKeeps(usize),
    StrayWriteGivesUp(usize),
    /// The adversary crashes, fences itself or drains.
    Stopped,
    Resigned(Worker),
    Registered,
    IdealClaims(Place),
    IdealFinishes(Place),
    /// The ideal worker looks at the leases between ticks.
    Looked,
    /// The ideal worker marks a lease dead.
    Marked(Worker),
    Requeued(Place),
    DatabaseCrashed,
    ClockStepped,
}

/// Returns everything that may happen next.
pub(super) fn events(world: &World, rules: &Rules) -> Vec<Event> {
    let mut events = Vec::with_capacity(24);
    of_the_adversary(world, rules, &mut events);
    of_its_writes(world, &mut events);
    of_the_ideal_worker(world, rules, &mut events);
    if world.left.ticks > 0 {
        events.push(Event::Tick);
    }
    if world.left.crashes > 0 {
        events.push(Event::DatabaseCrashed);
    }
    if world.left.clock_steps > 0 {
        events.push(Event::ClockStepped);
    }
    events
}

fn of_the_adversary(world: &World, rules: &Rules, events: &mut Vec<Event>) {
    let Adversary { worker, claim, .. } = &world.adversary;
    let up = world.adversary.is_up();
    let believes = world.adversary.believes(world.now());
    match claim {
        None if believes && world.left.claims > 0 => events.push(Event::ClaimSent),
        None => {}
        Some(Claim::Sent) => events.extend([Event::ClaimApplied, Event::ClaimAbandoned]),
        Some(Claim::Applied(_)) => events.extend([Event::ClaimAnswered, Event::ClaimAbandoned]),
    }
    events.extend((0..world.adversary.ghost_claims.len()).map(Event::GhostClaimApplied));
    if up && world.left.beats > 0 {
        events.push(Event::BeatSent);
    }
    let beats = world.adversary.beats.iter().enumerate();
    events.extend(beats.map(|(index, beat)| match beat.answer {
        Some(_) => Event::BeatAnswered(index),
        None => Event::BeatApplied(index),
    }));
    events.extend((0..world.adversary.releases.len()).map(Event::OrphanReleased));
    if up && (!believes || rules.bounds.drains) {
        events.push(Event::Stopped);
    }
    if !up && world.left.restarts > 0 {
        events.push(Event::Registered);
    }
    let ended = (1..=worker.0).map(Worker).filter(|start| start < worker || !up);
    events.extend(ended.filter(|start| world.database.is_live(*start)).map(Event::Resigned));
}

fn of_its_writes(world: &World, events: &mut Vec<Event>) {
    if world.left.writes > 0 && world.adversary.believes(world.now()) {
        events.extend(world.adversary.settled().map(|grant| Event::WriteSent(grant.place)));
    }
    for (index, write) in world.adversary.writes.iter().enumerate() {
        if write.stage == WriteStage::Sent {
            events.extend([Event::WriteKeeps(index), Event::WriteGivesUp(index)]);
        } else {
            events.push(Event::WriteAnswered(index));
        }
        if world.left.writes > 0 && write.stage != WriteStage::Refused {
            events.push(Event::WriteRetried(index));
        }
    }
    for index in 0..world.adversary.stray_writes.len() {
        events.extend([Event::StrayWriteKeeps(index), Event::StrayWriteGivesUp(index)]);
    }
}

fn of_the_ideal_worker(world: &World, rules: &Rules, events: &mut Vec<Event>) {
    for (place, row) in world.database.rows.iter().enumerate() {
        if row.worker.is_none() && world.left.ideal_claims > 0 {
            events.push(Event::IdealClaims(place));
        }
        if world.ideal[place].is_some() {
            events.push(Event::IdealFinishes(place));
        }
        if world.database.can_requeue(place) {
            events.push(Event::Requeued(place));
        }
    }
    if world.has_news() {
        events.push(Event::Looked);
    }
    events.extend(world.markable(rules).into_iter().map(Event::Marked));
}
