use std::time::Duration;

use proptest::prelude::*;
use uuid::Uuid;

use super::*;

const TIMES: LeaseTimes = LeaseTimes::DEFAULT;

fn at(seconds: u64) -> Moment {
    Moment::new(Duration::from_secs(seconds))
}

fn lease(worker: u128, beat: i64) -> SeenLease {
    let heartbeat_at = Timestamp::from_micros(beat).unwrap();
    SeenLease { worker: WorkerId::new(Uuid::from_u128(worker)), heartbeat_at, dead: false }
}

fn overdue(sightings: &Sightings) -> Vec<u128> {
    sightings.overdue(&TIMES).iter().map(|overdue| overdue.worker.uuid().as_u128()).collect()
}

#[test]
fn lease_is_overdue_when_its_beat_was_the_same_for_as_long_as_workers_believe() {
    let mut sightings = Sightings::default();
    sightings.look(at(0), at(2), &[lease(1, 5), lease(2, 5)]);
    sightings.look(at(10), at(11), &[lease(1, 5), lease(2, 6)]);
    assert_eq!(overdue(&sightings), [0; 0], "from the answer at 2 to the question at 10: 8 s");
    assert!(sightings.is_any_late(&TIMES));
    sightings.look(at(11), at(12), &[lease(1, 5), lease(2, 7)]);
    assert_eq!(overdue(&sightings), [1]);
    assert!(!sightings.overdue(&TIMES)[0].for_whole_lease);
    sightings.look(at(14), at(15), &[lease(1, 5), lease(2, 8)]);
    assert!(sightings.overdue(&TIMES)[0].for_whole_lease);
}

#[test]
fn beat_starts_the_watch_anew_even_one_that_lies_in_the_past() {
    let mut sightings = Sightings::default();
    sightings.look(at(0), at(0), &[lease(1, 5)]);
    sightings.look(at(8), at(8), &[lease(1, 4)]);
    sightings.look(at(16), at(16), &[lease(1, 4)]);
    assert_eq!(overdue(&sightings), [0; 0]);
}

#[test]
fn broken_connection_and_dead_lease_are_forgotten() {
    let mut sightings = Sightings::default();
    sightings.look(at(0), at(0), &[lease(1, 5), lease(2, 5)]);
    sightings.look(at(20), at(20), &[lease(1, 5), SeenLease { dead: true, ..lease(2, 5) }]);
    assert_eq!(overdue(&sightings), [1]);
    sightings.forget();
    assert_eq!(overdue(&sightings), [0; 0]);
    sightings.look(at(30), at(30), &[lease(1, 5)]);
    assert_eq!(overdue(&sightings), [0; 0], "one look is no watch");
}

proptest! {
    /// The model keeps every look, and asks for how long the last beat was seen in a row.
    #[test]
    fn watch_agrees_with_the_history_of_looks(
        looks in prop::collection::vec((0..6_u64, 0..3_u64, prop::option::of(0..3_i64)), 1..40),
    ) {
        let mut sightings = Sightings::default();
        let mut history: Vec<(Moment, Moment, Option<i64>)> = Vec::new();
        let mut now = 0;
        for (pause, duration, beat) in looks {
            let (sent, answered) = (at(now + pause), at(now + pause + duration));
            now += pause + duration;
            let leases: Vec<_> = beat.map(|beat| lease(1, beat)).into_iter().collect();
            sightings.look(sent, answered, &leases);
            history.push((sent, answered, beat));

            let in_a_row = history.iter().rev().take_while(|(_, _, then)| *then == beat);
            let unchanged = in_a_row.last().map_or(Duration::ZERO, |(_, first, _)| sent.since(*first));
            let expected = beat.is_some() && unchanged >= TIMES.belief();
            prop_assert_eq!(!sightings.overdue(&TIMES).is_empty(), expected);
            prop_assert_eq!(
                sightings.is_any_late(&TIMES),
                beat.is_some() && unchanged >= TIMES.late()
            );
        }
    }
}
