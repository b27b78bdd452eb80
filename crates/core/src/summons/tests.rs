use proptest::prelude::*;

use super::*;

fn run(id: u128) -> RunId {
    RunId::new(Uuid::from_u128(id))
}

fn worker(id: u128) -> WorkerId {
    WorkerId::new(Uuid::from_u128(id))
}

fn workers(count: u128) -> Vec<WorkerId> {
    (0..count).map(worker).collect()
}

fn at(millis: u64) -> Moment {
    Moment::new(Duration::from_millis(millis))
}

/// What every worker hears, and when each of them looks although nobody claims.
fn turns(run: RunId, workers: &[WorkerId]) -> Vec<Moment> {
    let turn = |worker: &WorkerId| {
        let mut summons = Summons::default();
        summons.pending(run, *worker, workers, at(0));
        summons.next().unwrap()
    };
    workers.iter().map(turn).collect()
}

#[test]
fn waves_double_until_all_workers_have_had_their_turn() {
    let mut turns = turns(run(7), &workers(50));
    turns.sort();
    let mut waves: Vec<(Moment, usize)> = Vec::new();
    for turn in turns {
        match waves.last_mut() {
            Some((wave, count)) if *wave == turn => *count += 1,
            _ => waves.push((turn, 1)),
        }
    }
    assert_eq!(waves, [(at(0), 2), (at(25), 4), (at(50), 8), (at(75), 16), (at(100), 20)]);
}

/// Replicas of different releases work side by side.
#[test]
fn ranks_are_the_same_in_every_release() {
    let waves: Vec<_> =
        (0..12).map(|id| wave(run(0x0199_aa00_1234), worker(id), &workers(12))).collect();
    assert_eq!(waves, [2, 2, 2, 1, 2, 1, 1, 2, 0, 1, 0, 2]);
}

#[test]
fn worker_that_knows_nobody_looks_at_once() {
    assert_eq!(wave(run(1), worker(1), &[]), 0);
}

/// Over a thousand runs each of fifty workers is among the first two forty times, give or take.
#[test]
fn every_worker_is_first_equally_often() {
    let workers = workers(50);
    for worker in &workers {
        let first = (0..1_000).filter(|id| wave(run(*id), *worker, &workers) == 0).count();
        assert!((20..=60).contains(&first), "{worker} {first}");
    }
}

#[test]
fn runs_beyond_the_bound_are_looked_for_at_once() {
    let mut summons = Summons::default();
    // In the last of the waves of these workers.
    let others = workers(50);
    let mut late = (0..).map(run).filter(|run| wave(*run, worker(99), &others) == 4);
    for run in late.by_ref().take(RUNS_MAX) {
        summons.pending(run, worker(99), &others, at(0));
        summons.pending(run, worker(99), &others, at(0));
    }
    assert_eq!(summons.next(), Some(at(100)));
    let beyond = late.next().unwrap();
    summons.pending(beyond, worker(99), &others, at(10));
    assert_eq!(summons.next(), Some(at(10)));
    summons.claimed(beyond, at(10));
    assert_eq!(summons.next(), Some(at(10)), "it is not known which runs there are");
    summons.looked();
    assert_eq!(summons.next(), None);
}

#[test]
fn memory_of_claims_is_bounded() {
    let mut summons = Summons::default();
    for id in 0..10 * RUNS_MAX as u64 {
        summons.claimed(run(id.into()), at(id));
        assert!(summons.claimed.len() <= RUNS_MAX);
        assert!(summons.claimed.contains_key(&run(id.into())), "old ones make room");
    }
}

/// What a worker may hear and do.
#[derive(Clone, Debug)]
enum Heard {
    Pending(u128),
    Claimed(u128),
    Unnamed(u64),
    Looked,
    Time(u64),
}

fn heard() -> impl Strategy<Value = Heard> {
    prop_oneof![
        4 => (0..6_u128).prop_map(Heard::Pending),
        2 => (0..6_u128).prop_map(Heard::Claimed),
        1 => (0..100_u64).prop_map(Heard::Unnamed),
        1 => Just(Heard::Looked),
        3 => (0..60_u64).prop_map(Heard::Time),
    ]
}

/// Sorts all workers and counts off the waves.
fn wave_by_sorting(run: RunId, worker: WorkerId, workers: &[WorkerId]) -> u32 {
    let mut ranks: Vec<_> = workers.to_vec();
    ranks.sort_by_key(|worker| (mixed(mixed(0, run.uuid()), worker.uuid()), *worker));
    let mut rest = &ranks[..];
    for wave in 0.. {
        let size = (WAVE_FIRST << wave).min(rest.len());
        if rest[..size].contains(&worker) {
            return wave;
        }
        rest = &rest[size..];
    }
    unreachable!("the worker is among the workers")
}

proptest! {
    /// The model keeps everything that was heard, and searches it from the last look on.
    #[test]
    fn turns_agree_with_the_history(
        history in prop::collection::vec(heard(), 1..60),
        count in 1..40_u128,
    ) {
        let (workers, me) = (workers(count), worker(0));
        let (mut summons, mut now) = (Summons::default(), 0);
        // (named run, turn), in the order in which they were heard.
        let mut model: Vec<(Option<u128>, u64)> = Vec::new();
        let mut claims: Vec<(u128, u64)> = Vec::new();
        for heard in history {
            match heard {
                Heard::Pending(id) => {
                    summons.pending(run(id), me, &workers, at(now));
                    let wave = wave_by_sorting(run(id), me, &workers);
                    let late = claims.iter().any(|(claimed, then)| {
                        *claimed == id && 0 < wave && now - then < 100
                    });
                    if !late && !model.iter().any(|(named, _)| *named == Some(id)) {
                        model.push((Some(id), now + 25 * u64::from(wave)));
                    }
                }
                Heard::Claimed(id) => {
                    summons.claimed(run(id), at(now));
                    claims.push((id, now));
                    model.retain(|(named, _)| *named != Some(id));
                }
                Heard::Unnamed(wait) => {
                    summons.look_by(at(now + wait));
                    model.push((None, now + wait));
                }
                Heard::Looked => {
                    summons.looked();
                    model.clear();
                }
                Heard::Time(millis) => now += millis,
            }
            prop_assert_eq!(summons.next(), model.iter().map(|(_, turn)| at(*turn)).min());
        }
    }

    #[test]
    fn waves_have_every_worker_once_on_every_replica(
        id: u128,
        ids in prop::collection::btree_set(any::<u128>(), 1..80),
        seed in any::<prop::sample::Index>(),
    ) {
        let workers: Vec<_> = ids.into_iter().map(worker).collect();
        let mut otherwise = workers.clone();
        otherwise.rotate_left(seed.index(workers.len()));
        otherwise.reverse();
        let mut sizes = std::collections::BTreeMap::<u32, usize>::new();
        for me in &workers {
            let mine = wave(run(id), *me, &workers);
            prop_assert_eq!(mine, wave_by_sorting(run(id), *me, &otherwise));
            let others: Vec<_> = otherwise.iter().copied().filter(|other| other != me).collect();
            prop_assert_eq!(mine, wave(run(id), *me, &others), "its own name changes nothing");
            *sizes.entry(mine).or_default() += 1;
        }
        let last = *sizes.last_key_value().unwrap().0;
        for (wave, size) in sizes {
            let full = WAVE_FIRST << wave;
            prop_assert!(size == full || (wave == last && size < full), "{} {}", wave, size);
        }
    }

    /// A worker that goes brings each of the others forward, or leaves it where it was.
    #[test]
    fn worker_that_goes_puts_nobody_back(id: u128, count in 2..60_u128, gone: u128) {
        let workers = workers(count);
        let gone = worker(gone % count);
        let left: Vec<_> = workers.iter().copied().filter(|worker| *worker != gone).collect();
        for me in &left {
            prop_assert!(wave(run(id), *me, &left) <= wave(run(id), *me, &workers));
        }
    }

    #[test]
    fn claimed_run_is_never_due(id: u128, me in 0..40_u128, now in 0..1_000_u64) {
        let mut summons = Summons::default();
        summons.pending(run(id), worker(me), &workers(40), at(now));
        prop_assert!(summons.next().is_some());
        summons.claimed(run(id), at(now));
        prop_assert_eq!(summons.next(), None);
    }

    /// It was taken before it was told of; or it is pending once more, and somebody must look.
    #[test]
    fn run_told_of_after_its_claim_is_for_the_first_wave_only(id: u128, late in 0..200_u64) {
        let summoned = |me: &WorkerId| {
            let mut summons = Summons::default();
            summons.claimed(run(id), at(7));
            summons.pending(run(id), *me, &workers(40), at(7 + late));
            summons.next().is_some()
        };
        let count = workers(40).iter().filter(|me| summoned(me)).count();
        prop_assert_eq!(count, if late < 100 { WAVE_FIRST } else { 40 });
    }
}
