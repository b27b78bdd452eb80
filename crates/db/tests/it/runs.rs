//! Who owns what.

use std::collections::BTreeSet;
use std::time::Duration;

use musterbeat_core::id::{Fence, RunId};
use musterbeat_core::port::{
    By, ChatReader, ChatStore, LeaseStore, Reach, Room, RunStore, WriteError,
};
use musterbeat_core::run::{RunEnd, RunKind, RunStatus};
use musterbeat_db::worker_leases;
use musterbeat_testkit::eventually;
use sqlx::AssertSqlSafe;

use crate::setup::{Fixture, PATIENCE, owner, send};

#[tokio::test]
async fn claim_goes_round_by_round_between_owners() {
    let fixture = Fixture::new().await;
    let worker = fixture.worker(1).await;
    for id in 0..6 {
        fixture.chat(id, owner(1)).await;
    }
    fixture.chat(10, owner(2)).await;
    fixture.chat(11, owner(2)).await;

    let mut claimed = Vec::new();
    for _ in 0..4 {
        claimed.push(fixture.claim(worker, 1).await[0].id.uuid().as_u128());
    }
    assert_eq!(claimed, [0, 10, 1, 11], "one of each owner in each round");
}

#[tokio::test]
async fn new_owner_begins_at_the_current_round() {
    let fixture = Fixture::new().await;
    let worker = fixture.worker(1).await;
    for id in 0..4 {
        fixture.chat(id, owner(1)).await;
    }
    fixture.claim(worker, 3).await;
    fixture.chat(10, owner(2)).await;
    fixture.chat(4, owner(1)).await;

    let mut claimed = Vec::new();
    for _ in 0..3 {
        claimed.push(fixture.claim(worker, 1).await[0].id.uuid().as_u128());
    }
    assert_eq!(claimed, [3, 10, 4], "the newcomer waits for nobody's backlog and passes nobody");
}

#[tokio::test]
async fn no_run_is_given_to_two_of_two_claimers() {
    no_run_is_given_to_two(2).await;
}

#[tokio::test]
async fn no_run_is_given_to_two_of_eight_claimers() {
    no_run_is_given_to_two(8).await;
}

async fn no_run_is_given_to_two(claimers: u128) {
    let fixture = Fixture::new().await;
    for id in 0..200 {
        fixture.chat(id, owner(id % 7)).await;
    }
    let claimers = (0..claimers).map(|number| {
        let (store, fixture) = (fixture.store.clone(), &fixture);
        async move {
            let worker = fixture.worker(1_000 + number).await;
            let mut mine = Vec::new();
            loop {
                let runs = store.claim(worker, &RunKind::CHAT, Room::of(10)).await.unwrap();
                if runs.is_empty() && pending(fixture).await == 0 {
                    return mine;
                }
                mine.extend(runs.into_iter().map(|run| run.id));
            }
        }
    });
    let claimed: Vec<RunId> = futures_util::future::join_all(claimers).await.concat();
    assert_eq!(claimed.len(), 200);
    assert_eq!(claimed.iter().collect::<BTreeSet<_>>().len(), 200);
}

/// The original's claim took everything when statistics came from a tiny table
/// (`reference` of the design: the planner ran its subquery once for each row).
#[tokio::test]
async fn claim_takes_no_more_than_its_limit_on_stale_statistics() {
    let fixture = Fixture::new().await;
    let worker = fixture.worker(1).await;
    fixture.chat(0, owner(1)).await;
    sqlx::query("analyze runs").execute(&fixture.pool).await.unwrap();
    for id in 1..=40 {
        fixture.chat(id, owner(1)).await;
    }
    // Switches that made the original's form claim 41 of 41.
    for switch in ["enable_hashjoin", "enable_mergejoin", "enable_material", "enable_hashagg"] {
        let sql = format!(
            "do $$ begin execute format('alter database %I set {switch} = off', current_database()); end $$"
        );
        sqlx::query(AssertSqlSafe(sql)).execute(&fixture.pool).await.unwrap();
    }
    let fixture = fixture.reconnected().await;
    assert_eq!(fixture.claim(worker, 1).await.len(), 1);
    assert_eq!(fixture.claim(worker, 5).await.len(), 5);
}

/// Ten thousand runs that start read more than the pool can answer at once.
#[tokio::test]
async fn claim_does_not_queue_behind_what_runs_read() {
    let fixture = Fixture::new().await;
    let worker = fixture.worker(1).await;
    let chats = [fixture.chat(0, owner(1)).await, fixture.chat(1, owner(1)).await];
    let held = fixture.lock(chats[0]).await;
    let stuck: Vec<_> = (0..20)
        .map(|_| {
            let store = fixture.store.clone();
            let anybody = By::User(Reach::Everything);
            tokio::spawn(async move { store.apply(chats[0], anybody, send("again")).await })
        })
        .collect();
    fixture.somebody_waits_for_a_lock().await;
    let claim = tokio::time::timeout(PATIENCE, fixture.claim(worker, 2)).await;
    assert_eq!(claim.expect("the claim queues").len(), 1, "the other is locked");
    held.rollback().await.unwrap();
    for stuck in stuck {
        stuck.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn worker_without_a_live_lease_claims_nothing() {
    let fixture = Fixture::new().await;
    let worker = fixture.worker(1).await;
    fixture.chat(0, owner(1)).await;
    sqlx::query("update worker_leases set dead = true").execute(&fixture.pool).await.unwrap();
    assert!(fixture.claim(worker, 1).await.is_empty());
    let stranger = musterbeat_core::id::WorkerId::new(uuid::Uuid::from_u128(9));
    assert!(fixture.claim(stranger, 1).await.is_empty());
}

/// The lock of the claim's gate excludes whoever marks the lease, who locks it `for update`.
#[tokio::test]
async fn claim_waits_for_the_one_who_marks_its_lease_dead_and_gets_nothing() {
    let fixture = Fixture::new().await;
    let worker = fixture.worker(1).await;
    fixture.chat(0, owner(1)).await;
    let mut marking = fixture.pool.begin().await.unwrap();
    worker_leases::mark_dead(&mut marking, worker).await.unwrap();

    let store = fixture.store.clone();
    let claim = tokio::spawn(async move { store.claim(worker, &RunKind::CHAT, Room::of(1)).await });
    fixture.somebody_waits_for_a_lock().await;
    marking.commit().await.unwrap();
    assert!(claim.await.unwrap().unwrap().is_empty());
}

#[tokio::test]
async fn run_that_somebody_holds_locked_is_passed_over() {
    let fixture = Fixture::new().await;
    let worker = fixture.worker(1).await;
    let held = fixture.chat(0, owner(1)).await;
    fixture.chat(1, owner(1)).await;
    let other = fixture.lock(held).await;

    let claimed = fixture.claim(worker, 2).await;
    assert_eq!(claimed.len(), 1);
    let next = fixture.store.next_ready(&RunKind::CHAT).await.unwrap();
    assert_eq!(next, Some(Duration::ZERO), "the worker learns that one is ready all the same");

    other.rollback().await.unwrap();
    assert_eq!(fixture.claim(worker, 2).await[0].id, held.into());
    assert_eq!(fixture.store.next_ready(&RunKind::CHAT).await.unwrap(), None);
}

#[tokio::test]
async fn resigned_worker_leaves_its_runs_to_others() {
    let fixture = Fixture::new().await;
    let (first, second) = (fixture.worker(1).await, fixture.worker(2).await);
    for id in 0..3 {
        fixture.chat(id, owner(1)).await;
    }
    let before = fixture.claim(first, 3).await;
    assert_eq!(fixture.store.resign(first).await.unwrap().len(), 3);
    assert!(fixture.store.resign(first).await.unwrap().is_empty(), "once");

    let after = fixture.claim(second, 3).await;
    let fences = |runs: &[musterbeat_core::run::Run]| -> Vec<Fence> {
        runs.iter().map(|run| run.token.fence).collect()
    };
    assert_eq!(fences(&before), vec![Fence(1); 3]);
    assert_eq!(fences(&after), vec![Fence(3); 3]);
    let leases: i64 = sqlx::query_scalar("select count(*) from worker_leases")
        .fetch_one(&fixture.pool)
        .await
        .unwrap();
    assert_eq!(leases, 1, "the first lease is forgotten");
}

/// A release that passed a locked run over would leave it to nobody.
#[tokio::test]
async fn release_waits_for_a_run_that_somebody_holds_locked() {
    let fixture = Fixture::new().await;
    let (chat, run) = fixture.running_chat(1).await;
    let held = fixture.lock(chat).await;
    let (store, mine) = (fixture.store.clone(), [(run.id, run.token.fence)]);
    let worker = run.token.worker;
    let release = tokio::spawn(async move { store.release(worker, &mine, Duration::ZERO).await });
    fixture.somebody_waits_for_a_lock().await;
    held.rollback().await.unwrap();
    assert_eq!(release.await.unwrap().unwrap(), [run.id]);
}

#[tokio::test]
async fn resigning_worker_waits_for_a_run_that_somebody_holds_locked() {
    let fixture = Fixture::new().await;
    let (chat, run) = fixture.running_chat(1).await;
    let held = fixture.lock(chat).await;
    let (store, worker) = (fixture.store.clone(), run.token.worker);
    let resign = tokio::spawn(async move { store.resign(worker).await });
    // It has asked for the run at least once when it is marked dead in another's eyes.
    eventually(PATIENCE, "the lease is dead", async || {
        sqlx::query_scalar::<_, bool>("select bool_and(dead) from worker_leases")
            .fetch_one(&fixture.pool)
            .await
            .unwrap()
    })
    .await;
    held.rollback().await.unwrap();
    assert_eq!(resign.await.unwrap().unwrap(), [run.id]);
}

#[tokio::test]
async fn released_run_is_ready_after_its_pause() {
    let fixture = Fixture::new().await;
    let (_, run) = fixture.running_chat(1).await;
    let mine = [(run.id, run.token.fence)];
    fixture.store.release(run.token.worker, &mine, Duration::from_hours(1)).await.unwrap();
    assert!(fixture.claim(run.token.worker, 1).await.is_empty());
    let next = fixture.store.next_ready(&RunKind::CHAT).await.unwrap().unwrap();
    assert!(next > Duration::from_mins(59), "{next:?}");
}

/// A replica that drains gives a whole backlog back; it goes behind those who wait already.
#[tokio::test]
async fn runs_that_were_given_back_pass_nobody_who_waits() {
    let fixture = Fixture::new().await;
    let worker = fixture.worker(1).await;
    for id in 0..4 {
        fixture.chat(id, owner(1)).await;
    }
    let owned = fixture.claim(worker, 3).await;
    fixture.chat(10, owner(2)).await;
    let back: Vec<_> = owned.iter().map(|run| (run.id, run.token.fence)).collect();
    fixture.store.release(worker, &back, Duration::ZERO).await.unwrap();
    let first = fixture.claim(worker, 2).await;
    let ids: Vec<u128> = first.iter().map(|run| run.id.uuid().as_u128()).collect();
    assert_eq!(ids, [3, 10]);
}

#[tokio::test]
async fn release_counts_only_under_its_fence() {
    let fixture = Fixture::new().await;
    let (chat, run) = fixture.running_chat(1).await;
    let worker = run.token.worker;
    let stale = [(run.id, Fence(0))];
    assert!(fixture.store.release(worker, &stale, Duration::ZERO).await.unwrap().is_empty());
    let mine = [(run.id, run.token.fence)];
    assert_eq!(fixture.store.release(worker, &mine, Duration::ZERO).await.unwrap(), [run.id]);
    assert!(fixture.store.release(worker, &mine, Duration::ZERO).await.unwrap().is_empty(), "once");
    let stored = fixture.store.get(chat, Reach::Everything).await.unwrap().unwrap();
    assert_eq!(stored.status, RunStatus::Pending);
}

#[tokio::test]
async fn end_of_a_run_is_written_once_and_by_its_owner_only() {
    let fixture = Fixture::new().await;
    let (chat, run) = fixture.running_chat(1).await;
    let failed = RunEnd::Failed("it\0broke".to_owned());
    fixture.store.finish(&run, failed.clone()).await.unwrap();
    fixture.store.finish(&run, failed).await.unwrap();
    let stored = fixture.store.get(chat, Reach::Everything).await.unwrap().unwrap();
    assert_eq!(stored.error.as_deref(), Some("it\u{fffd}broke"));
    assert_eq!(stored.version.0, 3, "create, claim, end; the repeated end changed nothing");

    let mut stale = run;
    stale.token.fence = Fence(0);
    let refused = fixture.store.finish(&stale, RunEnd::Done).await;
    assert!(matches!(refused, Err(WriteError::Fenced)));
}

async fn pending(fixture: &Fixture) -> i64 {
    sqlx::query_scalar("select count(*) from runs where status = 'pending'")
        .fetch_one(&fixture.pool)
        .await
        .unwrap()
}
