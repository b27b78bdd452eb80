//! How many runs a worker owns: so many at work, and beside them those that wait for others.

use musterbeat_core::port::Room;

/// Runs without ancestors that a worker owns at most, for each that it has room for.
///
/// What waits holds its history in memory, and begins its turn again when its worker goes, so there
/// is a bound. It is met seldom: what is spawned is claimed before its owner's next chat, so that
/// hardly more wait than are at work.
const ROOTS: usize = 3;

/// Ancestors beyond which runs share the last places; nobody spawns deeper.
const DEPTH_MAX: u32 = 10;

/// Returns what a worker has room for that owns `owned` runs, of which `waiting` wait for others.
///
/// Those that wait take no room. But places are bounded, and were all of them taken by runs that
/// wait for their descendants, these would never be claimed. So each generation has some places
/// that no older one takes; the youngest waits for nobody, and ends.
pub(super) fn room(capacity: usize, owned: usize, waiting: usize) -> Room {
    let working = owned.saturating_sub(waiting);
    let free = capacity.saturating_sub(working);
    let generation = (0..=DEPTH_MAX).find(|depth| owned < places(capacity, *depth));
    let Some(depth_min) = generation else { return Room { runs: 0, depth_min: DEPTH_MAX } };
    let runs = free.min(places(capacity, depth_min) - owned);
    Room { runs: u32::try_from(runs).unwrap_or(u32::MAX), depth_min }
}

/// Returns how many runs are owned, whatever their depth, when none with `depth` ancestors is
/// claimed any more.
///
/// Each generation has half of what the older ones leave, and one place at least. All together are
/// four times the capacity and ten.
fn places(capacity: usize, depth: u32) -> usize {
    let shared = capacity - (capacity >> depth);
    capacity.saturating_mul(ROOTS).saturating_add(shared).saturating_add(depth as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(capacity: usize, owned: usize, waiting: usize, runs: u32, depth_min: u32) {
        assert_eq!(room(capacity, owned, waiting), Room { runs, depth_min });
    }

    #[test]
    fn who_waits_takes_no_room_and_the_last_places_are_for_descendants() {
        check(1_000, 0, 0, 1_000, 0);
        check(1_000, 1_000, 0, 0, 0);
        check(1_000, 1_000, 400, 400, 0);
        check(1_000, 2_900, 2_800, 100, 0);
        check(1_000, 3_000, 3_000, 501, 1);
        check(1_000, 3_501, 3_000, 251, 2);
        check(1_000, 4_009, 4_009, 1, 10);
        check(1_000, 4_010, 4_010, 0, 10);
        check(1, 2, 2, 1, 0);
        check(1, 3, 3, 1, 1);
        check(1, 3, 2, 0, 1);
        // Waits that end give back what is then at work.
        check(1_000, 2_500, 0, 0, 0);
    }

    #[test]
    fn each_generation_has_a_place_that_no_older_one_takes() {
        for capacity in [0, 1, 2, 3, 10, 1_000] {
            for depth in 0..DEPTH_MAX {
                assert!(
                    places(capacity, depth) < places(capacity, depth + 1),
                    "{capacity} {depth}"
                );
            }
            assert_eq!(places(capacity, DEPTH_MAX), capacity * 4 + 10 - (capacity >> 10));
        }
    }
}
