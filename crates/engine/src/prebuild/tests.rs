//! The reconciler over pools in memory, under paused time.

mod ground;
mod shown;

use std::sync::atomic::Ordering;

use musterbeat_core::prebuild::{Failures, Health, PresetSnapshot};
use tokio::task::JoinHandle;

use super::*;
use ground::{Ground, away, pool, wanting};

const OPTIONS: ReconcileOptions = ReconcileOptions {
    interval: INTERVAL,
    limits: Limits::DEFAULT,
    lookback: LOOKBACK,
    prebuild_history: PREBUILD_HISTORY,
    workspace_history: WORKSPACE_HISTORY,
    concurrency: NonZeroU32::new(3).unwrap(),
};

/// Has one process supply until the end that is returned with it.
fn running(
    ground: &Arc<Ground>,
    number: usize,
    options: ReconcileOptions,
) -> (CancellationToken, JoinHandle<()>) {
    let end = CancellationToken::new();
    (end.clone(), tokio::spawn(ground.reconciler(number, options).run(end)))
}

fn changed(pool: Pool, change: impl FnOnce(&mut PresetSnapshot)) -> Pool {
    let mut pool = pool;
    change(&mut pool.preset);
    pool
}

#[tokio::test(start_paused = true)]
async fn one_look_does_all_that_is_to_be_done() {
    let full = changed(wanting(1, 2), |pool| pool.running = 2);
    let outdated = changed(wanting(3, 9), |pool| {
        (pool.is_active, pool.running, pool.expired, pool.pending) = (false, 2, 1, 4);
    });
    let mixed = changed(wanting(4, 2), |pool| {
        (pool.running, pool.expired, pool.failed) = (3, 1, 5);
    });
    let ground = Arc::new(Ground::of([full, wanting(2, 3), outdated, mixed]));
    let stats = ground.reconciler(1, OPTIONS).reconcile_all().await.unwrap();
    let expected = [
        "2: create 3",
        "3: cancel 4",
        "3: delete 3 Outdated",
        "4: delete 1 Expired",
        "4: delete 1 Extraneous { wanted: 2 }",
        "4: delete 5 Failed",
    ];
    assert_eq!(ground.done(), expected);
    assert_eq!((stats.leads, stats.presets_total, stats.presets_reconciled), (true, 104, 3));
    assert_eq!(stats.next, None);
    assert_eq!(ground.woken.lock().unwrap().len(), 5, "whoever builds is woken for each order");

    let again = ground.reconciler(1, OPTIONS).reconcile_all().await.unwrap();
    assert_eq!((again.presets_total, again.presets_reconciled), (104, 0));
    assert_eq!(ground.done().len(), expected.len());
}

#[tokio::test(start_paused = true)]
async fn no_presets_are_no_work() {
    let ground = Arc::new(Ground::of([]));
    let stats = ground.reconciler(1, OPTIONS).reconcile_all().await.unwrap();
    assert_eq!((stats.presets_total, stats.presets_reconciled), (100, 0));
}

#[tokio::test(start_paused = true)]
async fn preset_that_fails_or_panics_stops_no_other() {
    let pools = (1..=8).map(|number| changed(wanting(number, 1), |pool| pool.failed = 1));
    let ground = Arc::new(Ground::of(pools).with_faults(2, 3));
    let stats = ground.reconciler(1, OPTIONS).reconcile_all().await.unwrap();
    assert_eq!(stats.presets_reconciled, 8);
    for number in [1, 2, 4, 5, 6, 7, 8] {
        let both = [format!("{number}: create 1"), format!("{number}: delete 1 Failed")];
        assert!(both.iter().all(|step| ground.done().contains(step)), "{number}");
    }
    let wanted = Arc::new(ground.pools.lock().unwrap().clone());
    let left = wanted.values().filter(|pool| pool.preset.starting == 0).count();
    assert_eq!(left, 2);
}

#[tokio::test(start_paused = true)]
async fn presets_are_worked_on_a_few_at_a_time() {
    let pools = (1..=20).map(|number| wanting(number, 1));
    let ground = Arc::new(Ground::of(pools).with_gate());
    let reconciler = ground.reconciler(1, OPTIONS);
    let look = tokio::spawn(async move { reconciler.reconcile_all().await });
    while ground.at_once.load(Ordering::SeqCst) < 3 {
        tokio::task::yield_now().await;
    }
    for _ in 0..20 {
        ground.gate.add_permits(1);
        tokio::task::yield_now().await;
    }
    assert_eq!(look.await.unwrap().unwrap().presets_reconciled, 20);
    assert_eq!(ground.at_once_max.load(Ordering::SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn look_that_fails_is_an_error_and_the_loop_tries_again() {
    let ground = Arc::new(Ground::of([wanting(1, 1)]));
    ground.outages.store(3, Ordering::SeqCst);
    let failed = ground.reconciler(1, OPTIONS).reconcile_all().await;
    assert_eq!(failed.unwrap_err().to_string(), away().to_string());
    let (end, run) = running(&ground, 1, OPTIONS);
    ground.looked(4).await;
    assert_eq!(ground.done(), ["1: create 1"]);
    assert_eq!(ground.looks(), [0, 0, 10_000, 20_000]);
    end.cancel();
    run.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn nothing_is_done_while_the_supply_is_paused() {
    let ground = Arc::new(Ground::of([wanting(1, 1)]));
    ground.paused.store(true, Ordering::SeqCst);
    let (end, run) = running(&ground, 1, OPTIONS);
    ground.looked(3).await;
    assert_eq!((ground.done().len(), ground.looks()), (0, vec![0, 60_000, 120_000]));
    ground.paused.store(false, Ordering::SeqCst);
    ground.tell();
    ground.looked(4).await;
    assert_eq!(ground.done(), ["1: create 1"]);
    end.cancel();
    run.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn what_was_deleted_long_ago_is_forgotten_each_hour_batch_by_batch() {
    let ground = Arc::new(Ground::of([]));
    ground.old_prebuilds.store(u64::from(FORGET_BATCH) * 2 + 1, Ordering::SeqCst);
    ground.old_workspaces.store(u64::from(FORGET_BATCH), Ordering::SeqCst);
    let (end, run) = running(&ground, 1, OPTIONS);
    ground.looked(2).await;
    let counts = || {
        let Ground { old_prebuilds, old_workspaces, forgets, .. } = &*ground;
        let old = [old_prebuilds, old_workspaces].map(|old| old.load(Ordering::SeqCst));
        (old, forgets.load(Ordering::SeqCst))
    };
    assert_eq!(counts(), ([0, 0], 5));
    ground.looked(60).await;
    assert_eq!(counts(), ([0, 0], 5));
    ground.looked(62).await;
    assert_eq!(counts(), ([0, 0], 7));
    end.cancel();
    run.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn follower_does_nothing_hears_nothing_and_leads_soon_after_the_leader_went() {
    let ground = Arc::new(Ground::of([wanting(1, 1)]));
    let leader = ground.reconciler(1, OPTIONS);
    leader.reconcile_all().await.unwrap();
    let stats = ground.reconciler(2, OPTIONS).reconcile_all().await.unwrap();
    assert_eq!(stats, ReconcileStats::default());
    ground.change(1, |pool| pool.starting = 0);
    let before = ground.looks().len();

    let (end, run) = running(&ground, 2, OPTIONS);
    ground.looked(before + 1).await;
    ground.tell();
    ground.looked(before + 3).await;
    assert_eq!(ground.looks()[before..], [0, 10_000, 20_000]);
    assert_eq!(ground.done().len(), 1, "the leader's");
    let ended = CancellationToken::new();
    ended.cancel();
    leader.run(ended).await;
    ground.looked(before + 4).await;
    assert_eq!((ground.leader(), ground.done().len()), (Some(2), 2));
    end.cancel();
    run.await.unwrap();
    assert_eq!(ground.leader(), None);
}

#[tokio::test(start_paused = true)]
async fn notice_leads_to_a_look_within_a_second_and_a_flood_of_them_to_few() {
    let ground = Arc::new(Ground::of([wanting(1, 1)]));
    let (end, run) = running(&ground, 1, OPTIONS);
    ground.looked(1).await;
    ground.change(1, |pool| pool.starting = 0);
    sleep(Duration::from_secs(30)).await;
    ground.tell();
    ground.looked(2).await;
    assert!((30_000..31_000).contains(&ground.looks()[1]), "{:?}", ground.looks());
    assert_eq!(ground.done().len(), 2);

    let flood = async {
        for _ in 0..1_000 {
            ground.tell();
            sleep(Duration::from_millis(10)).await;
        }
    };
    flood.await;
    let looks = ground.looks().len() - 2;
    assert!((40..=51).contains(&looks), "{looks} in 10 s");
    end.cancel();
    run.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn pool_that_is_held_back_is_looked_at_when_that_is_over() {
    let ground = Arc::new(Ground::of([wanting(1, 2), pool(2)]));
    let now = Some(ground.now());
    ground.change(1, |pool| pool.failures = Failures { in_a_row: 2, last_at: now });
    let options = ReconcileOptions { interval: Duration::from_hours(1), ..OPTIONS };
    let stats = ground.reconciler(1, options).reconcile_all().await.unwrap();
    assert_eq!(stats.next, Some(Duration::from_mins(2)));
    assert_eq!(stats.presets_reconciled, 0);
    let (end, run) = running(&ground, 1, options);
    ground.looked(3).await;
    assert_eq!(ground.looks(), [0, 0, 120_000]);
    assert_eq!(ground.done(), ["1: create 2"]);
    ground.looked(4).await;
    assert_eq!(ground.looks()[3], 3_720_000, "an interval later");
    end.cancel();
    run.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn hard_limited_preset_is_marked_once_and_only_cleaned_up() {
    let limited = |number| {
        changed(wanting(number, 3), |pool| {
            pool.failures = Failures { in_a_row: 3, last_at: None };
            (pool.running, pool.expired, pool.failed) = (1, 1, 1);
        })
    };
    let marked = changed(limited(2), |pool| pool.health = Health::HardLimited);
    let invalid = changed(limited(3), |pool| pool.health = Health::ValidationFailed);
    let inactive = changed(limited(4), |pool| pool.is_active = false);
    let ground = Arc::new(Ground::of([limited(1), marked, invalid, inactive]));
    let reconciler = ground.reconciler(1, OPTIONS);
    reconciler.reconcile_all().await.unwrap();
    reconciler.reconcile_all().await.unwrap();
    let expected = [
        "1: delete 1 Expired",
        "1: delete 1 Failed",
        "1: mark after 3",
        "2: delete 1 Expired",
        "2: delete 1 Failed",
        "3: delete 1 Expired",
        "3: delete 1 Failed",
        "4: delete 1 Failed",
        "4: delete 2 Outdated",
        "4: mark after 3",
    ];
    assert_eq!(ground.done(), expected);
}

#[tokio::test(start_paused = true)]
async fn end_breaks_off_what_is_under_way_and_another_may_lead() {
    let pools = (1..=5).map(|number| wanting(number, 1));
    let ground = Arc::new(Ground::of(pools).with_gate());
    let (end, run) = running(&ground, 1, OPTIONS);
    while ground.at_once.load(Ordering::SeqCst) < 3 {
        tokio::task::yield_now().await;
    }
    assert_eq!(ground.leader(), Some(1));
    let asked = Instant::now();
    end.cancel();
    run.await.unwrap();
    assert_eq!(asked.elapsed(), Duration::ZERO);
    assert_eq!((ground.leader(), ground.done().len()), (None, 0));

    ground.gate.add_permits(100);
    for number in [2, 1] {
        let (end, run) = running(&ground, number, OPTIONS);
        ground.looked(ground.looks().len() + 1).await;
        assert_eq!(ground.leader(), Some(number), "a new one after the end of a former");
        end.cancel();
        run.await.unwrap();
    }
    assert_eq!(ground.done().len(), 5);
}
