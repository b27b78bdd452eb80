//! The roll call alone, without a database.

use std::time::{Duration, Instant};

use musterbeat_core::id::{Fence, RunId};
use musterbeat_core::roster::{RollEntry, Roster};
use uuid::Uuid;

use super::super::report::Section;
use super::super::stats::Summary;
use super::steady::milliseconds;

/// How often each is measured.
const TIMES: usize = 101;

/// One run in so many is lost, one is orphaned, and one is to be interrupted.
const EXCEPTION: u64 = 100;

/// Compares a roster of so many runs with a roll of about as many.
pub(super) fn measure(runs: u64) -> Section {
    let (roster, roll) = scene(runs);
    let mut sorted = roll.clone();
    sorted.sort_unstable_by_key(|entry| entry.run);
    let times = [time(&roster, &sorted), time(&roster, &roll)];
    let row = |value: fn(&Summary) -> f64| times.iter().map(value).collect();
    Section {
        title: format!("roll call of {} entries alone, {TIMES} times", roll.len()),
        columns: vec!["roll sorted: merge".into(), "roll unsorted: sort, merge".into()],
        rows: vec![
            ("milliseconds, median", row(|time| time.median)),
            ("milliseconds, lowest", row(|time| time.low)),
            ("milliseconds, highest", row(|time| time.high)),
        ],
    }
}

/// Returns a roster, and a roll in no order that differs from it a little.
fn scene(runs: u64) -> (Roster, Vec<RollEntry>) {
    let mut roster = Roster::default();
    for number in (0..runs).filter(|number| number % EXCEPTION != 1) {
        roster.enter(id(number), Fence(1));
    }
    for number in runs..runs + runs / EXCEPTION {
        roster.enter(id(number), Fence(1));
    }
    let line =
        |number| RollEntry { run: id(number), fence: Fence(1), stop: number % EXCEPTION == 3 };
    (roster, (0..runs).map(line).collect())
}

/// Returns ids without order, the same ones in every run of this program.
fn id(number: u64) -> RunId {
    let mixed = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 31)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    RunId::new(Uuid::from_u64_pair(mixed ^ (mixed >> 29), number))
}

fn time(roster: &Roster, roll: &[RollEntry]) -> Summary {
    let mut roster = roster.clone();
    let once = || {
        let beat = roster.beat_sent();
        let roll = roll.to_vec();
        let start = Instant::now();
        let muster = roster.muster(beat, roll);
        let time = start.elapsed();
        drop(muster);
        time
    };
    let times: Vec<Duration> = std::iter::repeat_with(once).take(TIMES).collect();
    Summary::of(&milliseconds(&times))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_list_of_the_roll_call_gets_its_share() {
        let (mut roster, roll) = scene(1000);
        let beat = roster.beat_sent();
        let muster = roster.muster(beat, roll);
        let lists = [muster.held.len(), muster.lost.len(), muster.orphaned.len()];
        assert_eq!(lists, [990, 10, 10]);
        assert_eq!(muster.interrupted.len(), 10);
    }
}
