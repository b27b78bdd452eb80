//! Leases of the dead, and what becomes of their runs.

use std::time::Duration;

use musterbeat_core::id::{Fence, WorkerId};
use musterbeat_core::port::{BeatStore, By, ChatReader, ChatStore, LeaseStore, Reach, RunStore};
use musterbeat_core::run::{RunKind, RunStatus};
use musterbeat_core::sighting::Overdue;
use musterbeat_core::timestamp::Timestamp;
use musterbeat_db::{runs, worker_leases};
use uuid::Uuid;

use crate::setup::{Fixture, finish, owner};

const TTL: Duration = Duration::from_secs(12);
const ATTEMPTS_MAX: u32 = 5;

/// Returns the lease of a worker as somebody saw it all the time.
async fn seen(fixture: &Fixture, worker: WorkerId) -> Overdue {
    let mut conn = fixture.pool.acquire().await.unwrap();
    let nobody = WorkerId::new(Uuid::nil());
    let leases = worker_leases::look(&mut conn, nobody).await.unwrap();
    let lease = leases.iter().find(|lease| lease.worker == worker).unwrap();
    Overdue { worker, heartbeat_at: lease.heartbeat_at, for_whole_lease: false }
}

async fn mark(fixture: &Fixture, overdue: Overdue, now: Timestamp) -> usize {
    let mut conn = fixture.pool.acquire().await.unwrap();
    let marked = worker_leases::mark_overdue(&mut conn, &[overdue], TTL, Some(now)).await;
    marked.unwrap().len()
}

fn later(time: Timestamp, seconds: i64) -> Timestamp {
    Timestamp::from_micros(time.micros() + seconds * 1_000_000).unwrap()
}

/// Marks a worker dead, as after its death.
async fn bury(fixture: &Fixture, worker: WorkerId) {
    let overdue = seen(fixture, worker).await;
    assert_eq!(mark(fixture, overdue, later(overdue.heartbeat_at, 13)).await, 1);
}

async fn requeued(fixture: &Fixture) -> Vec<(u128, bool)> {
    let requeued = fixture.store.requeue(ATTEMPTS_MAX).await.unwrap();
    let mut runs: Vec<_> =
        requeued.iter().map(|run| (run.run.uuid().as_u128(), run.pending)).collect();
    runs.sort_unstable();
    runs
}

async fn make_ready(fixture: &Fixture) {
    sqlx::query("update runs set ready_at = now()").execute(&fixture.pool).await.unwrap();
}

#[tokio::test]
async fn lease_is_marked_only_with_the_beat_it_was_seen_with_and_when_it_has_expired() {
    let fixture = Fixture::new().await;
    let worker = fixture.worker(1).await;
    let before = seen(&fixture, worker).await;
    assert_eq!(mark(&fixture, before, later(before.heartbeat_at, 12)).await, 0, "not yet");

    fixture.beats().beat(worker).await.unwrap();
    let expired = later(before.heartbeat_at, 3_600);
    assert_eq!(mark(&fixture, before, expired).await, 0, "it has beaten since");
    let after = seen(&fixture, worker).await;
    assert_eq!(mark(&fixture, after, later(after.heartbeat_at, 13)).await, 1);
    assert_eq!(mark(&fixture, after, later(after.heartbeat_at, 13)).await, 0, "once");
}

/// The database's clock went back, so the beat lies in the future and would never expire.
#[tokio::test]
async fn beat_in_the_future_is_judged_by_sight_of_a_whole_lease() {
    let fixture = Fixture::new().await;
    let worker = fixture.worker(1).await;
    let overdue = seen(&fixture, worker).await;
    let earlier = later(overdue.heartbeat_at, -3_600);
    assert_eq!(mark(&fixture, overdue, earlier).await, 0);
    let watched = Overdue { for_whole_lease: true, ..overdue };
    assert_eq!(mark(&fixture, watched, later(overdue.heartbeat_at, 5)).await, 0, "it is young");
    assert_eq!(mark(&fixture, watched, earlier).await, 1);
}

/// The database's clock stepped a lease ahead: whoever beats was seen with another beat.
#[tokio::test]
async fn database_clock_a_lease_ahead_marks_nobody_who_beats() {
    let fixture = Fixture::new().await;
    let worker = fixture.worker(1).await;
    let before = seen(&fixture, worker).await;
    fixture.beats().beat(worker).await.unwrap();
    assert_eq!(mark(&fixture, before, later(before.heartbeat_at, 24)).await, 0);
    assert!(fixture.beats().beat(worker).await.unwrap().alive);
}

#[tokio::test]
async fn lease_whose_worker_claims_just_now_is_passed_over() {
    let fixture = Fixture::new().await;
    let worker = fixture.worker(1).await;
    fixture.chat(0, owner(1)).await;
    let overdue = seen(&fixture, worker).await;
    let expired = later(overdue.heartbeat_at, 13);
    let mut claiming = fixture.pool.begin().await.unwrap();
    let claimed = runs::claim(&mut claiming, worker, &RunKind::CHAT, 1, None).await.unwrap();
    assert_eq!(claimed.len(), 1);
    assert_eq!(mark(&fixture, overdue, expired).await, 0);
    claiming.commit().await.unwrap();
    assert_eq!(mark(&fixture, overdue, expired).await, 1);
    assert_eq!(requeued(&fixture).await, [(0, true)], "what it took just then is found");
}

#[tokio::test]
async fn runs_of_the_dead_go_to_others_and_the_lease_is_forgotten() {
    let fixture = Fixture::new().await;
    let (dead, alive) = (fixture.worker(1).await, fixture.worker(2).await);
    for id in 0..4 {
        fixture.chat(id, owner(1)).await;
    }
    assert_eq!(fixture.claim(dead, 3).await.len(), 3);
    assert_eq!(fixture.claim(alive, 1).await.len(), 1);
    let stolen: i64 = fixture.store.forget().await.unwrap().cast_signed();
    assert_eq!(stolen, 0, "nobody is dead yet");
    bury(&fixture, dead).await;
    assert_eq!(fixture.store.forget().await.unwrap(), 0, "it still owns something");
    assert_eq!(requeued(&fixture).await, [(0, true), (1, true), (2, true)]);
    assert!(requeued(&fixture).await.is_empty());
    assert_eq!(fixture.store.forget().await.unwrap(), 1);

    let taken = fixture.claim(alive, 10).await;
    assert_eq!(taken.iter().map(|run| run.token.fence).collect::<Vec<_>>(), [Fence(3); 3]);
    assert_eq!(taken[0].attempts, 1);
    assert_eq!(fixture.beats().beat(alive).await.unwrap().roll.len(), 4);
    assert!(!fixture.beats().beat(dead).await.unwrap().alive);
}

#[tokio::test]
async fn run_of_the_dead_that_somebody_holds_locked_waits_for_the_next_round() {
    let fixture = Fixture::new().await;
    let (chat, run) = fixture.running_chat(1).await;
    bury(&fixture, run.token.worker).await;
    let held = fixture.lock(chat).await;
    assert!(requeued(&fixture).await.is_empty());
    assert_eq!(fixture.store.forget().await.unwrap(), 0, "so its lease stays");
    held.rollback().await.unwrap();
    assert_eq!(requeued(&fixture).await, [(1, true)]);
}

/// A worker registers after the requeue's snapshot: by the join it is nobody's to take from.
#[tokio::test]
async fn run_whose_lease_row_is_missing_is_adopted_and_then_requeued() {
    let fixture = Fixture::new().await;
    let (_, run) = fixture.running_chat(1).await;
    let other = fixture.worker(2).await;
    sqlx::query("delete from worker_leases where worker_id = $1")
        .bind(run.token.worker.uuid())
        .execute(&fixture.pool)
        .await
        .unwrap();
    assert!(requeued(&fixture).await.is_empty(), "no lease, so no dead one");
    assert_eq!(fixture.store.adopt().await.unwrap(), 1);
    assert_eq!(fixture.store.adopt().await.unwrap(), 0);
    assert_eq!(requeued(&fixture).await, [(1, true)]);
    assert_eq!(fixture.store.forget().await.unwrap(), 1);
    assert_eq!(fixture.claim(other, 1).await.len(), 1);
}

#[tokio::test]
async fn interrupt_outlives_the_death_of_its_worker() {
    let fixture = Fixture::new().await;
    let (_, run) = fixture.running_chat(1).await;
    interrupt(&fixture, &run).await;
    bury(&fixture, run.token.worker).await;
    requeued(&fixture).await;
    let next = fixture.worker(2).await;
    let claimed = fixture.claim(next, 1).await;
    assert!(claimed[0].stop);
    let roll = fixture.beats().beat(next).await.unwrap().roll;
    assert!(roll[0].stop, "and the roll repeats it");
}

#[tokio::test]
async fn run_whose_workers_keep_dying_backs_off_and_ends_in_error() {
    let fixture = Fixture::new().await;
    let chat = fixture.chat(0, owner(1)).await;
    for death in 1..=u64::from(ATTEMPTS_MAX) {
        let worker = fixture.worker(death.into()).await;
        let claimed = fixture.claim(worker, 10).await;
        assert_eq!(claimed.len(), 1);
        assert_eq!(u64::from(claimed[0].attempts), death - 1);
        bury(&fixture, worker).await;
        assert_eq!(requeued(&fixture).await, [(0, death < u64::from(ATTEMPTS_MAX))]);
        let next = fixture.store.next_ready(&RunKind::CHAT).await.unwrap();
        let expected = match death {
            1 => Some(0),
            5 => None,
            _ => Some(1_u64 << (death - 1)),
        };
        let waits = next.map(|next| next.as_secs_f64().ceil());
        #[expect(clippy::cast_precision_loss, reason = "a few seconds")]
        let expected = expected.map(|seconds| seconds as f64);
        assert_eq!(waits, expected, "after death {death}");
        make_ready(&fixture).await;
    }
    let stored = fixture.store.get(chat, Reach::Everything).await.unwrap().unwrap();
    assert_eq!(stored.status, RunStatus::Error);
    let error = stored.error.unwrap();
    assert_eq!(error, "its worker died 5 times in a row while the run was on it");
}

#[tokio::test]
async fn write_of_an_owner_clears_a_run_of_suspicion() {
    let fixture = Fixture::new().await;
    let (chat, run) = fixture.running_chat(1).await;
    sqlx::query("update runs set attempts = 4").execute(&fixture.pool).await.unwrap();
    fixture.finish(chat, &run, "done").await;
    let attempts: i32 =
        sqlx::query_scalar("select attempts from runs").fetch_one(&fixture.pool).await.unwrap();
    assert_eq!(attempts, 0);
}

/// What may have killed its workers takes no new neighbours with it.
#[tokio::test]
async fn suspect_is_claimed_alone() {
    let fixture = Fixture::new().await;
    let worker = fixture.worker(1).await;
    for id in 0..5 {
        fixture.chat(id, owner(1)).await;
    }
    sqlx::query(
        "update runs set attempts = 2 where run_id::text like '%1' or run_id::text like '%2'",
    )
    .execute(&fixture.pool)
    .await
    .unwrap();
    let mut batches = Vec::new();
    for _ in 0..3 {
        let claimed = fixture.claim(worker, 10).await;
        batches.push(claimed.iter().map(|run| run.id.uuid().as_u128()).collect::<Vec<_>>());
    }
    assert_eq!(batches, [vec![0, 3, 4], vec![1], vec![2]]);
}

/// A user takes the run while its owner's step waits for the lock: the step is refused whole.
#[tokio::test]
async fn edit_of_a_user_while_a_step_is_written_fences_the_step() {
    let fixture = Fixture::new().await;
    let (chat, run) = fixture.running_chat(1).await;
    let mut edit = fixture.lock(chat).await;
    let (store, token) = (fixture.store.clone(), run.token);
    let step = tokio::spawn(async move {
        store.apply(chat, By::Owner(token), finish("an answer to the old question")).await
    });
    fixture.somebody_waits_for_a_lock().await;
    sqlx::query(
        "update runs set fence = fence + 1, version = version + 1, status = 'pending',
         worker_id = null where run_id = $1",
    )
    .bind(chat.uuid())
    .execute(&mut *edit)
    .await
    .unwrap();
    edit.commit().await.unwrap();
    let refused = step.await.unwrap();
    assert!(matches!(refused, Err(musterbeat_core::port::ApplyError::Fenced)), "{refused:?}");
    let changes = fixture.store.changes(chat, Reach::Everything, None).await.unwrap().unwrap();
    assert_eq!(changes.messages.len(), 1, "only the question");
}

async fn interrupt(fixture: &Fixture, run: &musterbeat_core::run::Run) {
    use musterbeat_core::port::RunQueue;
    let state = fixture.store.interrupt(run.id, Reach::Everything).await.unwrap().unwrap();
    assert_eq!(state.status, RunStatus::Interrupting);
}

/// A look passes over all that claims left in the index: a look a run took seconds for a batch.
#[tokio::test]
async fn requeue_looks_once_for_the_head_of_the_pending() {
    let fixture = Fixture::new().await;
    let worker = fixture.worker(1).await;
    for id in 0..30 {
        fixture.chat(id, owner(1)).await;
    }
    fixture.claim(worker, 30).await;
    let mut conn = fixture.pool.begin().await.unwrap();
    worker_leases::mark_dead(&mut conn, worker).await.unwrap();
    sqlx::query("set local enable_seqscan = off").execute(&mut *conn).await.unwrap();
    let scans = "
        select sum(pg_stat_get_xact_numscans(index.oid))::bigint
        from unnest(array['runs_pending', 'runs_pending_of_owner']::regclass[]) as index (oid)";
    let before: i64 = sqlx::query_scalar(scans).fetch_one(&mut *conn).await.unwrap();
    let requeued = runs::requeue(&mut conn, 100, ATTEMPTS_MAX, None).await.unwrap();
    let after: i64 = sqlx::query_scalar(scans).fetch_one(&mut *conn).await.unwrap();
    assert_eq!((requeued.len(), after - before), (30, 1));
}
