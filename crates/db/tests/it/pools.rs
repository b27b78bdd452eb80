//! How pools stand, and what is to be done about them.

use std::time::Duration;

use musterbeat_core::port::{
    DeletionOf, GlobalSnapshot, Pool, PrebuildLead, PrebuildStore, TemplateStore,
};
use musterbeat_core::template::{PoolWish, PresetPatch, TemplateRules};
use musterbeat_db::PgPrebuildLead;

use crate::prebuilds::bury;
use crate::setup::Fixture;
use crate::supply::{fails, is_invalid, preset, succeeds, template};

const HOUR: Duration = Duration::from_hours(1);

/// Looks at the pools as whoever leads does.
async fn snapshot(fixture: &Fixture) -> GlobalSnapshot {
    let lead = PgPrebuildLead::new(fixture.url(), HOUR).unwrap();
    let snapshot = lead.snapshot(HOUR).await.unwrap().unwrap();
    lead.resign().await;
    snapshot
}

/// Returns a pool in words: what is there, by state.
fn told(pool: &Pool) -> String {
    let of = &pool.preset;
    assert_eq!(of.running, of.eligible);
    format!(
        "{}, {}: {} running, {} expired, {} starting, {} pending, {} deleting, {} failed",
        pool.name.preset,
        if of.is_active { "active" } else { "inactive" },
        of.running,
        of.expired,
        of.starting,
        of.pending,
        of.deleting,
        of.failed
    )
}

#[tokio::test]
async fn prebuilds_are_counted_by_preset_and_state() {
    let fixture = Fixture::new().await;
    let first = fixture.template(1, 9).await;
    let ready = fixture.ready(first, 6).await;
    fixture.condemn(first, DeletionOf::Extraneous { wanted: 5 }).await;
    let pool = PoolWish { desired: 9, ttl: Some(HOUR), ..PoolWish::default() };
    let patch = PresetPatch { pool: Some(pool), invalidate: false };
    fixture.store.update_preset(first, &patch).await.unwrap();
    fixture.age(ready[1], HOUR).await;
    fixture.age(ready[2], HOUR / 2).await;
    fixture.order(first, 6).await;
    let runs = fixture.begin(3).await;
    fixture.end(runs.last().unwrap(), &fails()).await;
    let second = fixture.template(2, 0).await;
    fixture.order(second, 2).await;
    fixture.template(3, 0).await;
    fixture.template(4, 1).await;

    let found = snapshot(&fixture).await;
    assert_eq!((found.paused, found.presets_total), (false, 4));
    let pools: Vec<_> = found.pools.iter().map(told).collect();
    let expected = [
        "preset 1, active: 4 running, 1 expired, 1 starting, 0 pending, 1 deleting, 1 failed",
        "preset 2, active: 0 running, 0 expired, 2 starting, 2 pending, 0 deleting, 0 failed",
        "preset 4, active: 0 running, 0 expired, 0 starting, 0 pending, 0 deleting, 0 failed",
    ];
    assert_eq!(pools, expected);
    let oldest = found.pools[0].oldest.unwrap();
    assert!((HOUR / 2..HOUR).contains(&oldest), "of those that can be claimed");
    assert_eq!(found.pools[1].oldest, None);
}

#[tokio::test]
async fn prebuilds_from_before_an_invalidation_are_expired() {
    let fixture = Fixture::new().await;
    let preset = fixture.template(1, 2).await;
    fixture.ready(preset, 2).await;
    let patch = PresetPatch { pool: None, invalidate: true };
    fixture.store.update_preset(preset, &patch).await.unwrap();
    fixture.order(preset, 1).await;
    fixture.build_all(&succeeds()).await;
    let found = fixture.pool_of(preset).await.unwrap();
    assert_eq!((found.preset.running, found.preset.expired), (1, 2));
}

#[tokio::test]
async fn paused_supply_shows_its_pools_to_people_alone() {
    let fixture = Fixture::new().await;
    let preset = fixture.template(1, 2).await;
    fixture.ready(preset, 1).await;
    for paused in [true, true, false] {
        fixture.store.pause(paused).await.unwrap();
        let found = snapshot(&fixture).await;
        assert_eq!((found.paused, found.pools.len()), (paused, usize::from(!paused)));
        assert_eq!(found.presets_total, 1);
        let shown = fixture.store.pools(None).await.unwrap();
        assert_eq!((shown.paused, shown.pools.len()), (paused, 1));
    }
}

#[tokio::test]
async fn preset_that_neither_wants_nor_has_prebuilds_is_left_out() {
    let fixture = Fixture::new().await;
    for number in 1..=5 {
        fixture.template(number, 2).await;
    }
    fixture.ready(preset(4), 1).await;
    fixture.order(preset(5), 1).await;
    for number in [1, 4, 5] {
        fixture.move_on(number, 10 + number).await;
    }
    TemplateStore::delete(&fixture.store, template(2)).await.unwrap();
    fixture.rule(3, TemplateRules { deprecated: true, ..TemplateRules::default() }).await;
    let found = snapshot(&fixture).await;
    let names: Vec<_> = found.pools.iter().map(|pool| pool.name.preset.as_str()).collect();
    assert_eq!(names, ["preset 4", "preset 5"]);
    assert!(found.pools.iter().all(|pool| !pool.preset.is_active && !pool.preset.can_skip()));
    assert_eq!(found.presets_total, 8);
    fixture.store.delete_preset(preset(4)).await.unwrap();
    let found = snapshot(&fixture).await;
    assert_eq!((found.pools.len(), found.presets_total), (2, 7), "it has a prebuild still");
    assert!(fixture.pool_of(preset(1)).await.is_none());
}

#[tokio::test]
async fn failures_are_forgotten_after_a_while() {
    let fixture = Fixture::new().await;
    let preset = fixture.template(1, 2).await;
    fixture.order(preset, 2).await;
    fixture.build_all(&fails()).await;
    let failures = async || snapshot(&fixture).await.pools[0].preset.failures;
    assert_eq!(failures().await.in_a_row, 2);
    fixture.sql("update presets set failed_at = failed_at - interval '59 minutes'").await;
    assert_eq!(failures().await.in_a_row, 2);
    fixture.sql("update presets set failed_at = failed_at - interval '1 minute'").await;
    assert_eq!((failures().await.in_a_row, failures().await.last_at), (0, None));
    let shown = fixture.pool_of(preset).await.unwrap().preset.failures;
    assert_eq!(shown.in_a_row, 2, "people see them all the same");
}

/// Has the one prebuild of a preset, whose build waits, stand as a word says.
async fn bring(fixture: &Fixture, number: u128, to: &str) {
    let preset = preset(number);
    let condemned = async |which| assert_eq!(fixture.condemn(preset, which).await, 1);
    if !matches!(to, "starting pending" | "starting again" | "starting running" | "starting dead") {
        let end = match to {
            "start failed" => fails(),
            "start invalid" => is_invalid(),
            _ => succeeds(),
        };
        fixture.build_all(&end).await;
    }
    if to.starts_with("delet") {
        condemned(DeletionOf::Extraneous { wanted: 0 }).await;
    }
    match to {
        "starting running" | "deleting running" => assert_eq!(fixture.begin(9).await.len(), 1),
        "starting again" => {
            fixture.begin(9).await;
            assert_eq!(bury(fixture, 5).await, 1);
        }
        "starting dead" | "deleting dead" => {
            fixture.begin(9).await;
            assert_eq!(bury(fixture, 1).await, 0);
        }
        "delete failed" | "delete failed, due" => drop(fixture.build_all(&fails()).await),
        "deleted" => drop(fixture.build_all(&succeeds()).await),
        "claimed" => drop(fixture.claimed(number, preset).await),
        _ => {}
    }
    let change = match to {
        "ready, expired" => "invalidated_at = clock_timestamp()",
        _ => "invalidated_at = null",
    };
    fixture.sql(&format!("update presets set {change} where id = '{preset}'")).await;
    if to == "delete failed, due" {
        fixture.sql("update prebuilds set retry_at = now()").await;
    }
}

/// The original's test of the same name, over the states that there are here: what one look does
/// for an active preset that wants one, for one of a former version, and for one whose template is
/// deleted.
#[tokio::test]
async fn prebuild_reconciliation() {
    let fixture = Fixture::new().await;
    let mut number = 0;
    let mut check = async |state: &str, active: &str, inactive: &str| {
        for (whose, expected) in [("active", active), ("former", inactive), ("deleted", inactive)] {
            number += 1;
            let preset = fixture.template(number, 1).await;
            fixture.order(preset, 1).await;
            bring(&fixture, number, state).await;
            match whose {
                "former" => drop(fixture.move_on(number, 1_000 + number).await),
                "deleted" => {
                    TemplateStore::delete(&fixture.store, template(number)).await.unwrap();
                }
                _ => {}
            }
            assert_eq!(fixture.reconcile(preset).await, expected, "{state}, {whose}");
            assert_eq!(fixture.reconcile(preset).await, "", "{state}, {whose}: once");
            // What is left takes no part in what follows.
            fixture.sql("update runs set status = 'waiting', worker_id = null, error = null").await;
        }
    };
    check("starting pending", "", "cancel 1").await;
    check("starting again", "", "").await;
    check("starting running", "", "").await;
    check("starting dead", "failed 1, create 1", "failed 1").await;
    check("start failed", "failed 1", "failed 1").await;
    check("start invalid", "failed 1", "failed 1").await;
    check("ready", "", "outdated 1").await;
    check("ready, expired", "expired 1, create 1", "outdated 1").await;
    check("deleting pending", "create 1", "").await;
    check("deleting running", "create 1", "").await;
    check("deleting dead", "failed 1, create 1", "failed 1").await;
    check("delete failed", "create 1", "").await;
    check("delete failed, due", "failed 1, create 1", "failed 1").await;
    check("deleted", "create 1", "").await;
    check("claimed", "create 1", "").await;
}

#[tokio::test]
async fn claimed_prebuilds_are_replaced_and_their_workspaces_left_alone() {
    let fixture = Fixture::new().await;
    let preset = fixture.template(1, 3).await;
    assert_eq!(fixture.reconcile(preset).await, "create 3");
    fixture.build_all(&succeeds()).await;
    assert_eq!(fixture.reconcile(preset).await, "");
    let claimed = [fixture.claimed(1, preset).await, fixture.claimed(2, preset).await];
    assert_eq!(fixture.reconcile(preset).await, "create 2");
    fixture.build_all(&succeeds()).await;
    fixture.move_on(1, 2).await;
    assert_eq!(fixture.reconcile(preset).await, "outdated 3");
    fixture.build_all(&succeeds()).await;
    assert_eq!(fixture.reconcile(preset).await, "");
    for workspace in claimed {
        assert!(fixture.look_at(workspace).await.is_some());
    }
    let left = "select count(*) from workspaces where owner_id is null and not deleted";
    assert_eq!(fixture.number(left).await, 0);
}
