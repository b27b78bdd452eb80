//! Who looks for work and when, with whole fleets at work.

use std::collections::BTreeSet;

use musterbeat_core::port::{Resync, ResyncCause};
use musterbeat_core::summons::wave;

use super::fleet::{Fleet, LAG, Manners};
use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// A notice, a claim and its answer, in milliseconds.
const AT_ONCE: u64 = 3;

/// Returns a run for which each of `workers` looks in `expected` or a later wave, and one in it.
fn run_of_wave(fleet: &Fleet, workers: &[WorkerId], expected: u32) -> RunId {
    let first = |run: &RunId| {
        let waves = workers.iter().map(|worker| wave(*run, *worker, fleet.members()));
        waves.min() == Some(expected)
    };
    (1_000..9_000).map(run_id).find(first).unwrap()
}

fn gaps(fleet: &Fleet) -> Vec<u64> {
    let claims = fleet.claims();
    claims.windows(2).map(|pair| pair[1].0 - pair[0].0).collect()
}

#[tokio::test(start_paused = true)]
async fn ten_runs_start_at_once_and_few_of_fifty_workers_look() {
    for capacity in [1, 1_000] {
        let fleet = Fleet::start(50, 0, Manners { capacity, ..Manners::DEFAULT }).await;
        let now = fleet.now();
        fleet.submit((0..10).map(run_id));
        sleep(SECOND).await;
        assert_eq!(fleet.started(), [now + AT_ONCE; 10], "capacity {capacity}");
        let claims = fleet.claims().len();
        assert!((10..=20).contains(&claims), "capacity {capacity}: {claims} claims");
    }
}

#[tokio::test(start_paused = true)]
async fn notice_of_the_claim_spares_the_later_waves_their_looks() {
    let fleet = Fleet::start(50, 0, Manners::DEFAULT).await;
    fleet.submit([run_id(1)]);
    sleep(SECOND).await;
    assert_eq!(fleet.claims().len(), 2);

    fleet.deaf.store(true, Ordering::Relaxed);
    fleet.submit([run_id(2)]);
    sleep(SECOND).await;
    assert_eq!(fleet.claims().len(), 2 + 50, "without it everybody looks in the end");
}

/// Who looked for another run has taken this one before it was told of.
#[tokio::test(start_paused = true)]
async fn run_told_of_after_its_claim_wakes_the_first_wave_only() {
    let fleet = Fleet::start(50, 0, Manners::DEFAULT).await;
    fleet.publish(Topic::Claimed, run_id(1).uuid());
    sleep(LAG).await;
    fleet.publish(Topic::Pending, run_id(1).uuid());
    sleep(SECOND).await;
    assert_eq!(fleet.claims().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn run_whose_first_ranks_are_dead_starts_with_the_next_wave_that_lives() {
    let fleet = Fleet::start(10, 30, Manners::DEFAULT).await;
    for (waves, delay) in [(1, 25), (2, 50), (3, 75)] {
        let run = run_of_wave(&fleet, fleet.living(10), waves);
        let now = fleet.now();
        fleet.submit([run]);
        sleep(SECOND).await;
        assert!(fleet.started().contains(&(now + AT_ONCE + delay)), "{waves} waves");
    }
}

#[tokio::test(start_paused = true)]
async fn run_whose_first_ranks_are_full_starts_with_the_second_wave() {
    let fleet = Fleet::start(8, 0, Manners { capacity: 1, ..Manners::DEFAULT }).await;
    fleet.submit([run_id(1), run_id(2)]);
    sleep(SECOND).await;
    let full = [1, 2].map(|run| fleet.owner(run_id(run)).unwrap());
    let free: Vec<_> = fleet.members().iter().copied().filter(|id| !full.contains(id)).collect();
    let run = run_of_wave(&fleet, &free, 1);
    let (now, before) = (fleet.now(), fleet.claims().len());
    fleet.submit([run]);
    sleep(SECOND).await;
    assert_eq!(*fleet.started().last().unwrap(), now + AT_ONCE + 25);
    let claims = fleet.claims().split_off(before);
    assert!(claims.iter().all(|(_, worker)| !full.contains(worker)), "{claims:?}");
}

#[tokio::test(start_paused = true)]
async fn full_worker_that_was_summoned_looks_when_it_has_room() {
    let manners = Manners { capacity: 1, time: SECOND * 10, ..Manners::DEFAULT };
    let fleet = Fleet::start(1, 0, manners).await;
    let now = fleet.now();
    fleet.submit([run_id(1)]);
    sleep(SECOND).await;
    fleet.submit([run_id(2)]);
    sleep(SECOND * 20).await;
    let second = fleet.started()[1] - now;
    assert!((10_000..10_010).contains(&second), "{second}");
}

/// Nobody but its own replica may have heard of the run.
#[tokio::test(start_paused = true)]
async fn everybody_who_hears_looks_at_once_while_notices_are_not_confirmed() {
    let fleet = Fleet::start(20, 0, Manners::DEFAULT).await;
    fleet.confirmed.store(false, Ordering::Relaxed);
    fleet.submit([run_id(1)]);
    sleep(LAG * 10).await;
    assert_eq!(fleet.claims().len(), 20);
}

/// What was locked has most likely been claimed, which is cheaper to ask than to try.
#[tokio::test(start_paused = true)]
async fn run_that_was_locked_is_asked_for_before_it_is_claimed_again() {
    let fleet = Fleet::start(1, 0, Manners::DEFAULT).await;
    fleet.lock(run_id(1), LAG * 10);
    fleet.submit([run_id(1)]);
    sleep(SECOND).await;
    assert_eq!((fleet.claims().len(), fleet.asked()), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn poll_stays_at_its_interval_without_confirmed_notices() {
    let fleet = Fleet::start(1, 0, Manners { poll_interval: SECOND, ..Manners::DEFAULT }).await;
    fleet.confirmed.store(false, Ordering::Relaxed);
    // The wait that began with confirmed notices.
    sleep(SECOND * 3).await;
    let before = fleet.claims().len();
    sleep(SECOND * 60).await;
    let claims = fleet.claims().len() - before;
    assert!((59..=60).contains(&claims), "{claims}");
}

#[tokio::test(start_paused = true)]
async fn poll_backs_off_with_confirmed_notices_and_a_run_resets_it() {
    let manners = Manners { poll_interval: SECOND, time: SECOND, ..Manners::DEFAULT };
    let fleet = Fleet::start(1, 0, manners).await;
    sleep(SECOND * 3_600).await;
    let idle = gaps(&fleet);
    assert!(idle.iter().all(|gap| (1_000..=30_010).contains(gap)), "{idle:?}");
    assert!((121..=360).contains(&idle.len()), "about 15 s each: {}", idle.len());
    let before = fleet.claims().len();
    assert_eq!(fleet.asked(), before, "two statements a look");
    fleet.submit([run_id(1)]);
    sleep(SECOND * 30).await;
    let after = &gaps(&fleet)[before..];
    for (fruitless, gap) in after.iter().enumerate() {
        let longest = 1_010 + 1_000 * (1 << fruitless.saturating_sub(1).min(5));
        assert!((1_000..=longest).contains(gap), "{after:?}");
    }
    assert!(3 <= after.len(), "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn poll_shrinks_when_notices_are_confirmed_no_more() {
    let poll_interval = SECOND * 10;
    let fleet = Fleet::start(1, 0, Manners { poll_interval, ..Manners::DEFAULT }).await;
    sleep(SECOND * 600).await;
    // A look now, the wait after which is longer than the interval.
    fleet.notify(Topic::Pending, &Notice::Resync(Resync::of(ResyncCause::Unnamed)));
    sleep(LAG * 10).await;
    let before = fleet.claims().len();
    fleet.confirmed.store(false, Ordering::Relaxed);
    sleep(SECOND * 100).await;
    let gaps = &gaps(&fleet)[before - 1..];
    assert!(gaps.iter().all(|gap| (10_000..=10_010).contains(gap)), "{gaps:?}");
}

#[tokio::test(start_paused = true)]
async fn resync_makes_everybody_look_within_a_tenth_of_a_second_but_not_together() {
    let fleet = Fleet::start(50, 0, Manners::DEFAULT).await;
    let now = fleet.now();
    fleet.notify(Topic::Pending, &Notice::Resync(Resync::of(ResyncCause::Reconnect)));
    sleep(SECOND).await;
    let claims = fleet.claims();
    assert_eq!(claims.len(), 50);
    assert!(claims.iter().all(|(at, _)| at - now <= 100 + AT_ONCE), "{claims:?}");
    let moments: BTreeSet<_> = claims.iter().map(|(at, _)| at).collect();
    assert!(10 < moments.len(), "{moments:?}");
}

#[tokio::test(start_paused = true)]
async fn runs_too_many_to_name_are_looked_for_at_once() {
    let fleet = Fleet::start(50, 0, Manners::DEFAULT).await;
    let now = fleet.now();
    fleet.notify(Topic::Pending, &Notice::Resync(Resync::of(ResyncCause::Unnamed)));
    sleep(LAG * 3).await;
    assert_eq!(fleet.claims().len(), 50);
    assert!(fleet.claims().iter().all(|(at, _)| at - now == 2), "a notice and half a claim");
}
