//! Prebuilds: ordered, deleted and taken back.

use std::time::Duration;

use futures_util::future::join_all;
use musterbeat_core::build::Transition;
use musterbeat_core::id::PresetId;
use musterbeat_core::port::{
    BuildStore, Deleted, DeletionOf, LeaseStore, PrebuildStatus, PrebuildStore, Reach,
    TemplateStore, WorkspaceError,
};
use musterbeat_core::run::{Run, RunStatus};
use musterbeat_core::template::{PoolWish, PresetPatch, TemplateRules};

use crate::setup::Fixture;
use crate::supply::{End, fails, is_invalid, order, preset, succeeds, template};

const HOUR: Duration = Duration::from_hours(1);
const EXTRANEOUS: DeletionOf = DeletionOf::Extraneous { wanted: 2 };

/// Kills a worker that has begun all builds; returns how many are pending again.
pub(crate) async fn bury(fixture: &Fixture, attempts_max: u32) -> usize {
    fixture.sql("update worker_leases set dead = true").await;
    let requeued = fixture.store.requeue(attempts_max).await.unwrap();
    fixture.sql("update runs set ready_at = now(); delete from worker_leases").await;
    requeued.into_iter().filter(|run| run.pending).count()
}

/// Says that prebuilds of a preset are to be replaced when they are an hour old.
async fn replace_after_an_hour(fixture: &Fixture, preset: PresetId) {
    let pool = PoolWish { ttl: Some(HOUR), ..PoolWish::default() };
    let patch = PresetPatch { pool: Some(pool), invalidate: false };
    fixture.store.update_preset(preset, &patch).await.unwrap();
}

#[tokio::test]
async fn what_is_missing_is_ordered_and_no_more() {
    let fixture = Fixture::new().await;
    let preset = fixture.template(1, 0).await;
    assert_eq!(fixture.order(preset, 3).await.len(), 3);
    assert_eq!(fixture.order(preset, 3).await, [], "they are coming");
    assert_eq!(fixture.begin(1).await.len(), 1);
    assert_eq!(fixture.order(preset, 4).await.len(), 1, "one that is being built counts");
    fixture.build_all(&succeeds()).await;
    assert_eq!(fixture.standing(preset).await, "starting ready ready ready");
    assert_eq!(fixture.order(preset, 2).await, []);
    assert_eq!(fixture.order(preset, 0).await, []);
    let made = fixture.prebuilds(preset).await;
    let found = fixture.look_at(made[0].workspace).await.unwrap();
    assert_eq!((found.owner, found.preset), (None, Some(preset)));
    assert_eq!((found.build.id, found.build.transition), (made[0].build, Transition::Start));
    let work = fixture.store.work(made[0].build).await.unwrap().unwrap();
    assert_eq!((work.workspace, work.owner), (found.id, None));
    assert_eq!((work.source.as_str(), work.parameters["size"].as_str()), ("rust", "1"));
    assert_eq!(work.name, made[0].name);
}

#[tokio::test]
async fn eight_who_order_at_once_order_together_what_is_missing() {
    let fixture = Fixture::new().await;
    let preset = fixture.template(1, 0).await;
    fixture.ready(preset, 5).await;
    // More than once: at first most of them wait for a connection.
    for wanted in [20, 35, 50, 65, 80] {
        let ordered = join_all((0..8).map(|_| fixture.order(preset, wanted))).await.concat();
        assert_eq!(ordered.len(), 15);
        assert_eq!(fixture.prebuilds(preset).await.len(), wanted as usize);
    }
}

#[tokio::test]
async fn expired_failed_and_deleted_ones_do_not_count() {
    let fixture = Fixture::new().await;
    let preset = fixture.template(1, 0).await;
    let ready = fixture.ready(preset, 4).await;
    replace_after_an_hour(&fixture, preset).await;
    fixture.age(ready[0], HOUR).await;
    assert_eq!(fixture.order(preset, 4).await.len(), 1, "one is too old");
    fixture.build_all(&succeeds()).await;
    let patch = PresetPatch { pool: None, invalidate: true };
    fixture.store.update_preset(preset, &patch).await.unwrap();
    assert_eq!(fixture.order(preset, 4).await.len(), 4, "all are from before");
    fixture.build_all(&succeeds()).await;
    assert_eq!(fixture.condemn(preset, EXTRANEOUS).await, 2);
    assert_eq!(fixture.order(preset, 4).await.len(), 2, "those are going");
    fixture.begin(10).await;
    assert_eq!(bury(&fixture, 1).await, 0);
    assert_eq!(fixture.order(preset, 4).await.len(), 2, "their workers died");
    fixture.build_all(&fails()).await;
    assert_eq!(fixture.order(preset, 4).await.len(), 2, "they failed");
}

#[tokio::test]
async fn nothing_is_ordered_of_a_preset_that_is_not_active_or_not_healthy() {
    let fixture = Fixture::new().await;
    for number in 1..=6 {
        fixture.template(number, 3).await;
    }
    fixture.move_on(1, 10).await;
    fixture.rule(2, TemplateRules { deprecated: true, ..TemplateRules::default() }).await;
    TemplateStore::delete(&fixture.store, template(3)).await.unwrap();
    fixture.store.delete_preset(preset(4)).await.unwrap();
    for (number, end) in [(5, fails()), (6, is_invalid())] {
        fixture.order(preset(number), 1).await;
        fixture.build_all(&end).await;
    }
    let once = 1.try_into().unwrap();
    assert!(fixture.store.mark_hard_limited(preset(5), once).await.unwrap());
    assert!(!fixture.store.mark_hard_limited(preset(5), once).await.unwrap(), "once");
    assert!(!fixture.store.mark_hard_limited(preset(6), once).await.unwrap(), "it is not healthy");
    for number in [1, 2, 3, 4, 5, 6, 99] {
        assert_eq!(fixture.order(preset(number), 3).await, [], "{number}");
    }
    assert_eq!(fixture.order(preset(10), 3).await.len(), 3, "the active one");
}

#[tokio::test]
async fn preset_is_marked_only_after_so_many_failures() {
    let fixture = Fixture::new().await;
    let preset = fixture.template(1, 0).await;
    let limit = 3.try_into().unwrap();
    for expected in [false, false, true] {
        fixture.order(preset, 1).await;
        fixture.build_all(&fails()).await;
        assert_eq!(fixture.store.mark_hard_limited(preset, limit).await.unwrap(), expected);
    }
}

#[tokio::test]
async fn extraneous_ones_are_deleted_the_oldest_first() {
    let fixture = Fixture::new().await;
    let preset = fixture.template(1, 0).await;
    let ready = fixture.ready(preset, 5).await;
    fixture.age(ready[3], 3 * HOUR).await;
    fixture.order(preset, 7).await;
    let limited = PrebuildStore::delete(&fixture.store, preset, EXTRANEOUS, 1).await.unwrap();
    assert_eq!(limited.len(), 1);
    let oldest = &fixture.prebuilds(preset).await[0];
    assert_eq!((oldest.workspace, oldest.status), (ready[3], PrebuildStatus::Deleting));
    assert_eq!(oldest.build, limited[0]);

    assert_eq!(fixture.condemn(preset, EXTRANEOUS).await, 2);
    let standing = "deleting deleting deleting ready ready starting starting";
    assert_eq!(fixture.standing(preset).await, standing);
    assert_eq!(fixture.condemn(preset, EXTRANEOUS).await, 0);
    for nothing in [DeletionOf::Outdated, DeletionOf::Expired, DeletionOf::Failed] {
        assert_eq!(fixture.condemn(preset, nothing).await, 0, "{nothing:?}");
    }
    fixture.build_all(&succeeds()).await;
    assert_eq!(fixture.standing(preset).await, "ready ready ready ready");
    assert!(fixture.look_at(ready[3]).await.is_none());
}

#[tokio::test]
async fn outdated_ones_are_deleted_and_with_them_those_that_are_expired() {
    let fixture = Fixture::new().await;
    let preset = fixture.template(1, 0).await;
    let ready = fixture.ready(preset, 3).await;
    replace_after_an_hour(&fixture, preset).await;
    fixture.age(ready[1], HOUR).await;
    assert_eq!(fixture.condemn(preset, DeletionOf::Outdated).await, 0, "it is active");
    fixture.move_on(1, 2).await;
    assert_eq!(fixture.condemn(preset, EXTRANEOUS).await, 0);
    assert_eq!(fixture.condemn(preset, DeletionOf::Outdated).await, 3);
    assert_eq!(fixture.standing(preset).await, "deleting deleting deleting");
    fixture.build_all(&succeeds()).await;
    assert_eq!(fixture.standing(preset).await, "");
}

#[tokio::test]
async fn expired_ones_are_deleted_by_age_and_by_invalidation() {
    let fixture = Fixture::new().await;
    let preset = fixture.template(1, 0).await;
    let ready = fixture.ready(preset, 3).await;
    replace_after_an_hour(&fixture, preset).await;
    fixture.age(ready[1], HOUR).await;
    fixture.age(ready[2], Duration::from_mins(59)).await;
    assert_eq!(fixture.condemn(preset, EXTRANEOUS).await, 0, "two are wanted and fresh");
    assert_eq!(fixture.condemn(preset, DeletionOf::Expired).await, 1);
    let deleting = fixture.prebuilds(preset).await;
    assert_eq!((deleting[0].workspace, deleting[0].status), (ready[1], PrebuildStatus::Deleting));
    let patch = PresetPatch { pool: None, invalidate: true };
    fixture.store.update_preset(preset, &patch).await.unwrap();
    assert_eq!(fixture.condemn(preset, DeletionOf::Expired).await, 2);
}

#[tokio::test]
async fn prebuild_that_somebody_holds_locked_is_left_for_later() {
    let fixture = Fixture::new().await;
    let preset = fixture.template(1, 0).await;
    let ready = fixture.ready(preset, 3).await;
    let holder = fixture.hold_prebuild(ready[0]).await;
    let which = DeletionOf::Extraneous { wanted: 0 };
    assert_eq!(fixture.condemn(preset, which).await, 2);
    holder.rollback().await.unwrap();
    assert_eq!(fixture.condemn(preset, which).await, 1);
}

/// A former leader may still be at work while the next one is.
#[tokio::test]
async fn prebuild_whose_deletion_is_ordered_by_many_at_once_is_deleted_by_one_build() {
    let fixture = Fixture::new().await;
    let preset = fixture.template(1, 0).await;
    let which = DeletionOf::Extraneous { wanted: 0 };
    for _ in 0..20 {
        fixture.ready(preset, 20).await;
        let deletions = (0..8).map(async |_| {
            let mut ordered = 0;
            loop {
                let some = PrebuildStore::delete(&fixture.store, preset, which, 3).await.unwrap();
                if some.is_empty() && fixture.count(preset, PrebuildStatus::Ready).await == 0 {
                    return ordered;
                }
                ordered += some.len();
            }
        });
        let ordered: usize = join_all(deletions).await.into_iter().sum();
        assert_eq!(ordered, 20);
        fixture.build_all(&succeeds()).await;
    }
}

#[tokio::test]
async fn failed_ones_are_deleted_when_it_is_time() {
    let fixture = Fixture::new().await;
    let preset = fixture.template(1, 0).await;
    fixture.order(preset, 1).await;
    fixture.build_all(&fails()).await;
    assert_eq!(fixture.condemn(preset, DeletionOf::Failed).await, 1, "nothing was made: at once");
    let wait = "select extract(epoch from retry_at - now())::bigint from prebuilds";
    for minutes in 1..=3 {
        fixture.build_all(&fails()).await;
        assert_eq!(fixture.standing(preset).await, "failed");
        let waits = fixture.number(wait).await;
        assert!((minutes * 60 - 10..=minutes * 60).contains(&waits), "{waits} s");
        assert_eq!(fixture.condemn(preset, DeletionOf::Failed).await, 0, "it is not time");
        fixture.sql("update prebuilds set retry_at = now()").await;
        assert_eq!(fixture.condemn(preset, DeletionOf::Failed).await, 1);
    }
    fixture.sql("update prebuilds set failures = 60").await;
    fixture.build_all(&fails()).await;
    assert!(fixture.number(wait).await <= 3_600, "an hour at most");
    fixture.sql("update prebuilds set retry_at = now()").await;
    fixture.condemn(preset, DeletionOf::Failed).await;
    fixture.build_all(&succeeds()).await;
    assert_eq!(fixture.standing(preset).await, "");
}

#[tokio::test]
async fn start_whose_workers_kept_dying_is_deleted_and_counted() {
    let fixture = Fixture::new().await;
    let preset = fixture.template(1, 3).await;
    fixture.order(preset, 2).await;
    fixture.begin(1).await;
    assert_eq!(bury(&fixture, 2).await, 1, "it is tried again");
    let pool = fixture.pool_of(preset).await.unwrap().preset;
    assert_eq!((pool.starting, pool.pending, pool.failed), (2, 1, 0));
    assert_eq!(fixture.begin(10).await.len(), 2);
    assert_eq!(bury(&fixture, 1).await, 0);
    let pool = fixture.pool_of(preset).await.unwrap().preset;
    assert_eq!((pool.starting, pool.failed, pool.failures.in_a_row), (0, 2, 0));
    assert_eq!(fixture.condemn(preset, DeletionOf::Failed).await, 2);
    let pool = fixture.pool_of(preset).await.unwrap().preset;
    assert_eq!((pool.failed, pool.deleting, pool.failures.in_a_row), (0, 2, 2));
    assert!(pool.failures.last_at.is_some());

    // So is a deletion whose workers died; nothing is counted for it.
    fixture.begin(10).await;
    assert_eq!(bury(&fixture, 1).await, 0);
    let pool = fixture.pool_of(preset).await.unwrap().preset;
    assert_eq!((pool.failed, pool.deleting), (2, 0));
    assert_eq!(fixture.condemn(preset, DeletionOf::Failed).await, 2);
    assert_eq!(fixture.pool_of(preset).await.unwrap().preset.failures.in_a_row, 2);
    fixture.begin(10).await;
    assert_eq!(bury(&fixture, 1).await, 0);
    assert_eq!(fixture.condemn(preset, DeletionOf::Failed).await, 0, "not again at once");
    fixture.sql("update runs set started_at = started_at - interval '1 minute'").await;
    assert_eq!(fixture.condemn(preset, DeletionOf::Failed).await, 2);
}

#[tokio::test]
async fn what_nobody_has_begun_is_taken_back_of_an_inactive_preset() {
    let fixture = Fixture::new().await;
    let preset = fixture.template(1, 0).await;
    fixture.ready(preset, 1).await;
    fixture.order(preset, 6).await;
    let begun = fixture.begin(2).await;
    assert_eq!(bury(&fixture, 5).await, 2, "they were begun once");
    assert_eq!(fixture.store.cancel(preset, 10).await.unwrap(), 0, "it is active");
    fixture.move_on(1, 2).await;
    let before = fixture.prebuilds(preset).await;
    assert_eq!(fixture.store.cancel(preset, 1).await.unwrap(), 1);
    assert_eq!(fixture.store.cancel(preset, 10).await.unwrap(), 2);
    assert_eq!(fixture.store.cancel(preset, 10).await.unwrap(), 0);
    assert_eq!(fixture.standing(preset).await, "ready starting starting");

    let left = fixture.prebuilds(preset).await;
    let gone = before.into_iter().filter(|prebuild| !left.contains(prebuild));
    for prebuild in gone {
        assert!(fixture.look_at(prebuild.workspace).await.is_none());
        let state = fixture.store.state(prebuild.build, Reach::Everything).await.unwrap().unwrap();
        assert_eq!(state.status, RunStatus::Error);
        assert!(state.error.unwrap().contains("taken back") && state.ended_at.is_some());
    }
    let deletions = "select count(*) from builds where transition = 'delete'";
    assert_eq!(fixture.number(deletions).await, 0, "there is nothing to delete");
    let ids = |runs: Vec<Run>| runs.into_iter().map(|run| run.id).collect::<Vec<_>>();
    assert_eq!(ids(fixture.begin(10).await), ids(begun), "no worker gets what was taken back");
    assert_eq!(fixture.store.cancel(preset, 10).await.unwrap(), 0);
}

#[tokio::test]
async fn what_was_deleted_long_ago_and_never_anybodys_is_forgotten() {
    let fixture = Fixture::new().await;
    let preset = fixture.template(1, 3).await;
    fixture.order(preset, 3).await;
    fixture.build_all(&succeeds()).await;
    fixture.claimed(1, preset).await;
    fixture.condemn(preset, DeletionOf::Extraneous { wanted: 0 }).await;
    fixture.build_all(&succeeds()).await;
    let forget = async |days, limit| fixture.forget(Deleted::Prebuilds, days, limit).await;
    assert_eq!(forget(7, 10).await, 0);
    fixture.sql("update workspaces set updated_at = updated_at - interval '8 days'").await;
    assert_eq!(fixture.forget(Deleted::Workspaces, 7, 10).await, 0);
    assert_eq!(forget(9, 10).await, 0);
    assert_eq!(forget(7, 3).await, 3);
    assert_eq!(fixture.rows(["workspaces", "builds", "runs"]).await, [2, 3, 3]);
    assert_eq!(forget(7, 3).await, 1);
    assert_eq!(forget(7, 3).await, 0);
    let left = fixture.rows(["workspaces", "builds", "runs"]).await;
    assert_eq!(left, [1, 2, 2], "the one that is somebody's, its start and its claim");
}

#[tokio::test]
async fn worker_and_cancel_at_once_never_have_the_same_build() {
    let fixture = Fixture::new().await;
    for round in 1..=15 {
        let preset = fixture.template(round, 0).await;
        fixture.order(preset, 12).await;
        TemplateStore::delete(&fixture.store, template(round)).await.unwrap();
        let (begun, cancelled) = tokio::join!(fixture.begin(6), fixture.store.cancel(preset, 100));
        let cancelled = usize::try_from(cancelled.unwrap()).unwrap();
        assert_eq!(begun.len() + cancelled + fixture.begin(100).await.len(), 12);
        assert_eq!(fixture.prebuilds(preset).await.len(), 12 - cancelled);
    }
}

#[tokio::test]
async fn claimers_suppliers_and_workers_at_once_hold_up_nobody_and_leave_order() {
    let fixture = Fixture::new().await;
    let preset = fixture.template(1, 10).await;
    fixture.ready(preset, 10).await;
    let claim = async |claimer: u128| {
        for number in 0..20 {
            let claimed = fixture.claim_prebuild(&order(100 * claimer + number, preset)).await;
            assert!(matches!(claimed, Ok(_) | Err(WorkspaceError::NoClaimable)), "{claimed:?}");
        }
    };
    let supply = async |wanted| {
        for _ in 0..20 {
            fixture.order(preset, wanted).await;
            fixture.condemn(preset, DeletionOf::Extraneous { wanted: 8 }).await;
            fixture.condemn(preset, DeletionOf::Failed).await;
        }
    };
    let work = async |end: End| {
        for _ in 0..30 {
            for run in fixture.begin(3).await {
                fixture.end(&run, &end).await;
            }
        }
    };
    let (claimers, suppliers) = (join_all((1..=4).map(claim)), join_all([9, 10].map(supply)));
    tokio::join!(claimers, suppliers, work(succeeds()), work(fails()));
    while !fixture.build_all(&succeeds()).await.is_empty() {}

    let lost = "select count(*) from workspaces where owner_id is not null and deleted";
    assert_eq!(fixture.number(lost).await, 0, "what was claimed is never deleted");
    let strange = "select count(*) from prebuilds full join workspaces on id = workspace_id
        where (prebuilds.workspace_id is null) <> (owner_id is not null or deleted)";
    assert_eq!(fixture.number(strange).await, 0, "what is nobody's is a prebuild, and no other is");
    let twice = "select count(*) from (
        select workspace_id from builds join runs on run_id = id
        where transition = 'delete' and status = 'waiting'
        group by 1 having count(*) > 1) as deleted";
    assert_eq!(fixture.number(twice).await, 0, "nothing is deleted twice");
}
