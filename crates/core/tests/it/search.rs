//! A search through the ownership of runs: every order of events within bounds, breadth first.
//!
//! The world is made of the code that workers run ([`Roster`], [`Belief`], [`Sightings`],
//! [`Ownership::admit`]) around a small database. One worker is adversarial: what it sends is
//! applied and answered at any time or never. The other is ideal. Both clocks run alike.
//! A planted [`Fault`] shows that the search would find one.
//!
//! [`Roster`]: musterbeat_core::roster::Roster
//! [`Belief`]: musterbeat_core::lease::Belief
//! [`Sightings`]: musterbeat_core::sighting::Sightings
//! [`Ownership::admit`]: musterbeat_core::run::Ownership::admit

mod adversary;
mod database;
mod event;
mod world;

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use expect_test::{Expect, expect};
use musterbeat_core::lease::LeaseTimes;

use database::Place;
use event::{Event, events};
use world::World;

/// One step of all clocks.
const TICK: Duration = Duration::from_secs(1);

/// Of so many states one is asked for its end; neighbours mostly have the same.
const END_EVERY: usize = 16;

/// How far a search goes.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    ticks: u8,
    /// Beats and claims that the adversary sends.
    beats: u8,
    claims: u8,
    /// Whether the database crashes, and its clock steps forward.
    misfortunes: bool,
    /// Whether the adversary also stops while it believes, as in a crash or a drain.
    drains: bool,
    /// Whether the adversary writes to its runs.
    writes: bool,
}

/// A rule that is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    WriteWithoutFence,
    /// Orphans are released although a claim was in flight.
    OrphansAtFirstSight,
    /// A lease is marked dead by the database's clock, without having been watched.
    ReapByExpiryAlone,
}

/// What the search finds; each names a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Violation {
    /// A worker believes in a run that another owns.
    TwoOwners(Place),
    /// A run was taken from a worker that believes in it.
    Theft(Place),
    /// A write was applied of somebody who does not own the run.
    StaleWrite(Place),
    /// A write was taken for a repeated one.
    NeverWritten(Place),
    /// A claim returned a fence that is not higher.
    WentBack(Place),
    /// A worker works on a run that its roster has not.
    Unlisted(Place),
    /// It is owned by nobody who knows it, and nothing frees it.
    Stuck(Place),
}

struct Rules {
    bounds: Bounds,
    fault: Option<Fault>,
    /// A lease of three ticks, and belief of two.
    times: LeaseTimes,
}

impl Rules {
    fn new(bounds: Bounds, fault: Option<Fault>) -> Self {
        Self { bounds, fault, times: LeaseTimes::new(TICK, 3 * TICK, TICK).unwrap() }
    }

    fn lease_ticks(&self) -> u8 {
        u8::try_from(self.times.ttl().as_secs() / TICK.as_secs()).unwrap()
    }
}

/// Walks through all states; returns their number, or a shortest way to a violation.
fn walk(rules: &Rules) -> Result<usize, Found> {
    let first = World::new(rules);
    let mut seen = BTreeSet::from([first.fingerprint()]);
    let mut trail: Trail = vec![(0, None)];
    let mut frontier = VecDeque::from([(0, first)]);
    while let Some((index, world)) = frontier.pop_front() {
        let found = |violation, last| Found { violation, path: path(&trail, index, last) };
        if index % END_EVERY == 0 {
            world.check_end(rules).map_err(|violation| found(violation, None))?;
        }
        let mut next = Vec::new();
        for event in events(&world, rules) {
            let after =
                world.after(event, rules).map_err(|violation| found(violation, Some(event)))?;
            next.push((event, after));
        }
        for (event, after) in next {
            if seen.insert(after.fingerprint()) {
                frontier.push_back((trail.len(), after));
                trail.push((index, Some(event)));
            }
        }
    }
    Ok(seen.len())
}

/// For each state, from which one it was first reached and how.
type Trail = Vec<(usize, Option<Event>)>;

#[derive(Debug)]
struct Found {
    violation: Violation,
    path: Vec<Event>,
}

fn path(trail: &Trail, mut index: usize, last: Option<Event>) -> Vec<Event> {
    let mut path: Vec<_> = last.into_iter().collect();
    while let (before, Some(event)) = trail[index] {
        path.push(event);
        index = before;
    }
    path.reverse();
    path
}

impl Found {
    fn describe(&self) -> String {
        let events = self.path.iter().map(|event| format!("{event:?}\n"));
        events.collect::<String>() + &format!("{:?}\n", self.violation)
    }
}

/// What the searches share: no misfortunes, no drains, no writes.
const BOUNDS: Bounds =
    Bounds { ticks: 4, beats: 1, claims: 1, misfortunes: false, drains: false, writes: false };

#[test]
fn no_order_of_messages_gives_a_run_to_two_or_to_nobody() {
    assert_none_found(BOUNDS, 100_000);
}

#[test]
fn no_misfortune_of_the_database_takes_a_run_from_its_owner() {
    assert_none_found(Bounds { ticks: 2, misfortunes: true, ..BOUNDS }, 100_000);
}

#[test]
fn no_drain_leaves_a_run_to_nobody() {
    assert_none_found(Bounds { ticks: 2, drains: true, ..BOUNDS }, 100_000);
}

#[test]
fn no_write_is_applied_for_a_former_owner() {
    assert_none_found(Bounds { ticks: 1, beats: 0, claims: 2, writes: true, ..BOUNDS }, 30_000);
}

#[test]
#[ignore = "walks through millions of states: run it in release after a change of the protocol"]
fn no_order_within_wide_bounds_breaks_a_rule() {
    assert_none_found(Bounds { misfortunes: true, ..BOUNDS }, 1_000_000);
    assert_none_found(Bounds { drains: true, ..BOUNDS }, 100_000);
    assert_none_found(Bounds { beats: 2, ..BOUNDS }, 1_000_000);
    assert_none_found(Bounds { writes: true, ..BOUNDS }, 1_000_000);
    assert_none_found(Bounds { ticks: 1, claims: 2, writes: true, ..BOUNDS }, 1_000_000);
}

#[test]
fn write_without_fence_is_found() {
    let bounds = Bounds { ticks: 0, beats: 0, drains: true, writes: true, ..BOUNDS };
    assert_found(
        bounds,
        Fault::WriteWithoutFence,
        &expect![[r#"
        ClaimSent
        ClaimApplied
        ClaimAnswered
        WriteSent(0)
        Stopped
        Resigned(Worker(1))
        Requeued(0)
        IdealClaims(0)
        StrayWriteKeeps(0)
        StaleWrite(0)
    "#]],
    );
}

#[test]
fn orphans_at_first_sight_are_found() {
    let bounds = Bounds { ticks: 0, ..BOUNDS };
    assert_found(
        bounds,
        Fault::OrphansAtFirstSight,
        &expect![[r#"
        ClaimSent
        ClaimApplied
        BeatSent
        BeatApplied(0)
        BeatAnswered(0)
        ClaimAnswered
        OrphanReleased(0)
        Theft(0)
    "#]],
    );
}

#[test]
fn reaping_by_expiry_alone_is_found() {
    let bounds = Bounds { ticks: 1, beats: 0, misfortunes: true, ..BOUNDS };
    assert_found(
        bounds,
        Fault::ReapByExpiryAlone,
        &expect![[r#"
        ClaimSent
        ClaimApplied
        ClaimAnswered
        Tick
        ClockStepped
        Marked(Worker(1))
        Requeued(0)
        Theft(0)
    "#]],
    );
}

/// Walks through `states_min` states or more and finds nothing.
fn assert_none_found(bounds: Bounds, states_min: usize) {
    match walk(&Rules::new(bounds, None)) {
        Ok(states) => {
            println!("{states} states within {bounds:?}");
            assert!(states >= states_min, "only {states} states within {bounds:?}");
        }
        Err(found) => panic!("within {bounds:?}:\n{}", found.describe()),
    }
}

fn assert_found(bounds: Bounds, fault: Fault, expected: &Expect) {
    match walk(&Rules::new(bounds, Some(fault))) {
        Ok(states) => panic!("{fault:?} is not found in {states} states within {bounds:?}"),
        Err(found) => expected.assert_eq(&found.describe()),
    }
}
