//! Beats and the roll, and what must not hold them up.

use std::time::Duration;

use musterbeat_core::id::WorkerId;
use musterbeat_core::port::{BeatStore, LeaseStore, Room, RunStore, StoreError};
use musterbeat_core::roster::{RollEntry, Roster};
use musterbeat_core::run::RunKind;
use musterbeat_db::{PgBeats, PgStore, PoolLimits, connect, runs};
use musterbeat_testkit::{BlackHole, FaultProxy, TestDatabase, eventually};
use sqlx::postgres::PgPoolOptions;
use uuid::Uuid;

use crate::setup::{Fixture, PATIENCE, owner};

#[tokio::test]
async fn beat_returns_the_roll_and_the_leases_of_others() {
    let fixture = Fixture::new().await;
    let (worker, other) = (fixture.worker(1).await, fixture.worker(2).await);
    for id in 0..3 {
        fixture.chat(id, owner(1)).await;
    }
    let claimed = fixture.claim(worker, 2).await;
    fixture.claim(other, 1).await;
    let beats = fixture.beats();
    let mut answer = beats.beat(worker).await.unwrap();
    answer.roll.sort_by_key(|entry| entry.run);
    let expected: Vec<_> = claimed
        .iter()
        .map(|run| RollEntry { run: run.id, fence: run.token.fence, stop: false })
        .collect();
    assert!(answer.alive);
    assert_eq!(answer.roll, expected);
    assert_eq!(answer.leases.iter().map(|lease| lease.worker).collect::<Vec<_>>(), [other]);

    let before = beats.look(other).await.unwrap();
    beats.beat(worker).await.unwrap();
    let after = beats.look(other).await.unwrap();
    assert!(before[0].heartbeat_at < after[0].heartbeat_at);
}

#[tokio::test]
async fn beat_without_a_live_lease_changes_nothing_and_says_so() {
    let fixture = Fixture::new().await;
    let worker = fixture.worker(1).await;
    let beats = fixture.beats();
    let unknown = WorkerId::new(Uuid::from_u128(9));
    assert!(!beats.beat(unknown).await.unwrap().alive);
    sqlx::query("update worker_leases set dead = true").execute(&fixture.pool).await.unwrap();
    let dead = beats.look(unknown).await.unwrap();
    assert!(dead[0].dead);
    assert!(!beats.beat(worker).await.unwrap().alive);
    assert_eq!(beats.look(unknown).await.unwrap(), dead);
}

#[tokio::test]
async fn row_that_somebody_holds_locked_does_not_hold_up_a_beat() {
    let fixture = Fixture::new().await;
    let (chat, run) = fixture.running_chat(1).await;
    let held = fixture.lock(chat).await;
    assert_eq!(beat_soon(&fixture.beats(), run.token.worker).await, 1);
    held.rollback().await.unwrap();
}

/// A claim that hangs in its commit holds its lease's row, in a way that lets beats pass.
#[tokio::test]
async fn claim_that_hangs_in_its_commit_does_not_hold_up_a_beat() {
    let fixture = Fixture::new().await;
    let worker = fixture.worker(1).await;
    fixture.chat(0, owner(1)).await;
    let mut claiming = fixture.pool.begin().await.unwrap();
    let claimed = runs::claim(&mut claiming, worker, &RunKind::CHAT, 1, None).await.unwrap();
    assert_eq!(claimed.len(), 1);
    assert_eq!(beat_soon(&fixture.beats(), worker).await, 0, "its rows are not committed");
    claiming.commit().await.unwrap();
    assert_eq!(beat_soon(&fixture.beats(), worker).await, 1);
}

#[tokio::test]
async fn exhausted_pool_does_not_hold_up_a_beat() {
    let database = TestDatabase::create().await.unwrap();
    let pool = database.pool_with(PgPoolOptions::new().max_connections(1)).await.unwrap();
    let fixture = Fixture::on(database).await;
    let worker = fixture.worker(1).await;
    let _all = pool.acquire().await.unwrap();
    assert!(pool.try_acquire().is_none());
    assert_eq!(beat_soon(&fixture.beats(), worker).await, 0);
}

/// A claim is committed and its answer never comes: the roll has its runs, as orphans.
#[tokio::test]
async fn claim_whose_answer_is_lost_comes_back_by_the_roll() {
    let database = TestDatabase::create().await.unwrap();
    let proxy = FaultProxy::in_front_of(database.url()).await.unwrap();
    let pool = connect(&proxy.url(database.url()).unwrap(), &PoolLimits::default()).await.unwrap();
    let store = PgStore::new(pool);
    let fixture = Fixture::on(database).await;
    let worker = fixture.worker(1).await;
    for id in 0..3 {
        fixture.chat(id, owner(1)).await;
    }
    // Held up at its lease, until nothing comes back any more.
    let mut held = fixture.pool.begin().await.unwrap();
    sqlx::query("select from worker_leases for update").execute(&mut *held).await.unwrap();
    let mut roster = Roster::default();
    roster.claim_sent();
    let claim =
        tokio::spawn(async move { store.claim(worker, &RunKind::CHAT, Room::of(10)).await });
    fixture.somebody_waits_for_a_lock().await;
    proxy.black_hole(BlackHole::ToClient);
    held.rollback().await.unwrap();
    eventually(PATIENCE, "the claim is committed", async || {
        fixture.store.workers().await.unwrap()[0].runs == 3
    })
    .await;
    proxy.reset();
    let lost = claim.await.unwrap();
    assert!(matches!(lost, Err(StoreError::Unavailable { .. })), "{lost:?}");
    roster.claim_settled();

    let mut orphaned = Vec::new();
    eventually(PATIENCE, "the roll has what the claim took", async || {
        let beat = roster.beat_sent();
        let answer = fixture.beats().beat(worker).await.unwrap();
        orphaned = roster.muster(beat, answer.roll).orphaned;
        orphaned.len() == 3
    })
    .await;
    let released = fixture.store.release(worker, &orphaned, Duration::ZERO).await.unwrap();
    assert_eq!(released.len(), 3);
    assert_eq!(fixture.claim(fixture.worker(2).await, 10).await.len(), 3);
}

#[tokio::test]
async fn beat_connects_anew_after_its_connection_broke() {
    let database = TestDatabase::create().await.unwrap();
    let proxy = FaultProxy::in_front_of(database.url()).await.unwrap();
    let fixture = Fixture::on(database).await;
    let worker = fixture.worker(1).await;
    let beats = PgBeats::new(&proxy.url(fixture.url()).unwrap(), PATIENCE).unwrap();
    assert!(beats.beat(worker).await.unwrap().alive);
    proxy.reset();
    assert!(beats.beat(worker).await.is_err(), "the failure is told, so that sights are forgotten");
    assert!(beats.beat(worker).await.unwrap().alive);
}

/// A silent database: the beat ends in its time, and the next one does not wait behind it.
#[tokio::test]
async fn silent_database_ends_a_beat_in_its_time() {
    let database = TestDatabase::create().await.unwrap();
    let proxy = FaultProxy::in_front_of(database.url()).await.unwrap();
    let fixture = Fixture::on(database).await;
    let worker = fixture.worker(1).await;
    let url = proxy.url(fixture.url()).unwrap();
    let beats = PgBeats::new(&url, Duration::from_millis(500)).unwrap();
    // A machine that is busy may be too slow for it, too.
    let beats_in_time = async || beats.beat(worker).await.is_ok_and(|answer| answer.alive);
    eventually(PATIENCE, "the worker beats", beats_in_time).await;
    proxy.black_hole(BlackHole::Both);
    let silent = tokio::time::timeout(PATIENCE, beats.beat(worker)).await;
    assert!(silent.expect("the beat ends").is_err());
    proxy.heal();
    proxy.reset();
    eventually(PATIENCE, "the worker beats again", beats_in_time).await;
}

#[tokio::test]
async fn workers_are_listed_with_what_they_own() {
    let fixture = Fixture::new().await;
    let (first, second) = (fixture.worker(1).await, fixture.worker(2).await);
    for id in 0..3 {
        fixture.chat(id, owner(1)).await;
    }
    fixture.claim(second, 2).await;
    let listed = fixture.store.workers().await.unwrap();
    let owned: Vec<_> = listed.iter().map(|state| (state.lease.worker, state.runs)).collect();
    assert_eq!(owned, [(first, 0), (second, 2)]);
    assert!(listed.iter().all(|state| !state.dead && state.beat_age < PATIENCE));
}

async fn beat_soon(beats: &PgBeats, worker: WorkerId) -> usize {
    // Whoever could hold it up goes on only after it.
    let answer = tokio::time::timeout(PATIENCE, beats.beat(worker)).await;
    let answer = answer.expect("the beat waits for somebody").unwrap();
    assert!(answer.alive);
    answer.roll.len()
}
