//! Runs of kinds of one's own: asked for, interrupted, stamped, counted.

use std::time::Duration;

use musterbeat_core::id::RunId;
use musterbeat_core::port::{Backlog, Reach, Room, RunQueue, RunStore};
use musterbeat_core::run::{NewRun, RunEnd, RunKind, RunStatus};
use musterbeat_core::timestamp::Timestamp;
use musterbeat_db::run_heartbeats;
use uuid::Uuid;

use crate::setup::{Fixture, owner};

fn report(id: u128) -> NewRun {
    NewRun { id: RunId::new(Uuid::from_u128(id)), kind: kind(), owner: owner(1) }
}

fn kind() -> RunKind {
    RunKind::new("report").unwrap()
}

#[tokio::test]
async fn run_is_submitted_once_claimed_by_its_kind_and_ends() {
    let fixture = Fixture::new().await;
    let worker = fixture.worker(1).await;
    fixture.chat(7, owner(1)).await;
    assert!(fixture.store.submit(&report(1)).await.unwrap());
    assert!(!fixture.store.submit(&report(1)).await.unwrap(), "once");
    let claimed = fixture.store.claim(worker, &kind(), Room::of(10)).await.unwrap();
    assert_eq!(claimed.len(), 1, "chats are another kind");
    fixture.store.finish(&claimed[0], RunEnd::Done).await.unwrap();
    let state = fixture.store.get(report(1).id, Reach::Of(owner(1))).await.unwrap().unwrap();
    assert_eq!((state.status, state.worker), (RunStatus::Waiting, None));
    let stranger = fixture.store.get(report(1).id, Reach::Of(owner(2))).await.unwrap();
    assert_eq!(stranger, None);
}

#[tokio::test]
async fn interrupt_reaches_the_owner_of_a_run_or_its_next_one() {
    let fixture = Fixture::new().await;
    let worker = fixture.worker(1).await;
    let id = report(1).id;
    let interrupt = async |reach| fixture.store.interrupt(id, reach).await.unwrap();
    fixture.store.submit(&report(1)).await.unwrap();
    assert_eq!(interrupt(Reach::Of(owner(2))).await, None, "it is not theirs");
    let pending = interrupt(Reach::Of(owner(1))).await.unwrap();
    assert_eq!((pending.status, pending.stop), (RunStatus::Pending, true));
    assert_eq!(interrupt(Reach::Everything).await.unwrap(), pending, "twice is once");

    let claimed = fixture.store.claim(worker, &kind(), Room::of(1)).await.unwrap().remove(0);
    assert!(claimed.stop);
    fixture.store.finish(&claimed, RunEnd::Done).await.unwrap();
    let ended = interrupt(Reach::Everything).await.unwrap();
    assert_eq!((ended.status, ended.stop, ended.error), (RunStatus::Waiting, false, None));

    fixture.store.submit(&report(2)).await.unwrap();
    let running = fixture.store.claim(worker, &kind(), Room::of(1)).await.unwrap().remove(0);
    let state = fixture.store.interrupt(running.id, Reach::Everything).await.unwrap().unwrap();
    assert_eq!(state.status, RunStatus::Interrupting);
}

#[tokio::test]
async fn backlog_tells_how_much_waits_and_for_how_long() {
    let fixture = Fixture::new().await;
    assert_eq!(fixture.store.backlog(&kind()).await.unwrap(), Backlog::default());
    for id in 0..3 {
        fixture.store.submit(&report(id)).await.unwrap();
    }
    sqlx::query("update runs set ready_at = now() - interval '1 hour' where run_id = $1")
        .bind(report(1).id.uuid())
        .execute(&fixture.pool)
        .await
        .unwrap();
    let backlog = fixture.store.backlog(&kind()).await.unwrap();
    assert_eq!(backlog.pending, 3);
    assert!(backlog.oldest >= Duration::from_hours(1));
}

#[tokio::test]
async fn stamps_return_the_roll_and_old_ones_are_found() {
    let fixture = Fixture::new().await;
    let worker = fixture.worker(1).await;
    for id in 0..3 {
        fixture.store.submit(&report(id)).await.unwrap();
    }
    let claimed = fixture.store.claim(worker, &kind(), Room::of(2)).await.unwrap();
    let far = Timestamp::from_micros(4_000_000_000_000_000).unwrap();
    let early = Timestamp::from_micros(1_000_000).unwrap();
    assert_eq!(fixture.store.stale_runs(early).await.unwrap().len(), 2, "none has a stamp yet");
    let mut roll = fixture.store.touch_runs(worker).await.unwrap();
    roll.sort_by_key(|entry| entry.run);
    let mut runs: Vec<_> = claimed.iter().map(|run| (run.id, run.token.fence)).collect();
    runs.sort_unstable();
    assert_eq!(roll.iter().map(|entry| (entry.run, entry.fence)).collect::<Vec<_>>(), runs);
    assert!(fixture.store.stale_runs(early).await.unwrap().is_empty());

    let mut conn = fixture.pool.acquire().await.unwrap();
    run_heartbeats::touch(&mut conn, worker, Some(early)).await.unwrap();
    fixture.store.finish(&claimed[0], RunEnd::Done).await.unwrap();
    let stale = fixture.store.stale_runs(far).await.unwrap();
    assert_eq!(stale, [claimed[1].id], "what has ended is not stale");
}
