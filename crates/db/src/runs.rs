//! The table `runs`: which worker owns what.
//!
//! Each change of a run has one shape: the first statement locks its row
//! (`for no key update`), later ones read and write the rest. A statement that waited for a lock
//! has renewed only that row, so it must not read another table on the way.
//! Several runs are locked in the order of `run_id`, and `runs` before every other table.
//! Status words are literals: with a parameter the partial indexes are not used.

use std::time::Duration;

use musterbeat_core::id::{Fence, OwnerId, RunId, Step, Version, WorkerId};
use musterbeat_core::port::Reach;
use musterbeat_core::run::{Ownership, Run, RunKind, RunStatus, Token};
use musterbeat_core::timestamp::Timestamp;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::row::StatusColumn;

/// A claimed run, and how long it had been ready.
#[derive(Clone, Debug)]
pub struct Claimed {
    /// The run.
    pub run: Run,
    /// Time from its being ready to its claim.
    pub waited: Duration,
}

/// A run's row, read under its lock.
#[derive(Clone, Debug)]
pub struct Locked {
    /// Whose run it is.
    pub owner: OwnerId,
    /// Where it stands.
    pub status: RunStatus,
    /// Whether an interrupt is to be finished.
    pub stop: bool,
    /// Who owns it.
    pub ownership: Ownership,
    /// How often it changed.
    pub version: Version,
}

/// What a transition writes to its run.
#[derive(Clone, Debug)]
pub struct Transition {
    /// Where the run stands afterwards.
    pub status: RunStatus,
    /// Whether an interrupt is still to be finished.
    pub stop: bool,
    /// The error afterwards.
    pub error: Option<String>,
    /// Whether its owner writes: that takes a step and proves the run harmless.
    pub by_owner: bool,
}

/// Adds a run that is ready; returns false, changing nothing, when its id is taken.
pub async fn insert(
    conn: &mut PgConnection,
    run: RunId,
    kind: &RunKind,
    owner: OwnerId,
    now: Option<Timestamp>,
) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        r#"
            insert into runs (run_id, kind, status, owner_id, version, ready_at, round)
            values (
                $1, $2, 'pending', $3, 1, coalesce($4::timestamptz, now()),
                greatest(
                    (select max(own.round) + 1 from runs as own
                     where own.kind = $2 and own.owner_id = $3 and own.status = 'pending'),
                    (select min(head.round) from runs as head
                     where head.kind = $2 and head.status = 'pending'),
                    0
                )
            )
            on conflict (run_id) do nothing
        "#,
        run.uuid(),
        kind.as_str(),
        owner.uuid(),
        now.map(Timestamp::time),
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Makes `worker` the owner of up to `limit` pending runs of `kind`, round by round.
///
/// One statement, to be sent outside a transaction; its rows count once it is complete.
/// The inner select stands in `array(…)`, which runs once by construction: after `= any`
/// alone the planner may run it for each row and claim everything. The lock on the lease
/// excludes the one who marks it dead, and does not hold up a beat.
pub async fn claim(
    conn: &mut PgConnection,
    worker: WorkerId,
    kind: &RunKind,
    limit: u32,
    now: Option<Timestamp>,
) -> sqlx::Result<Vec<Claimed>> {
    let rows = sqlx::query!(
        r#"
            update runs
            set status = case when stop then 'interrupting'::run_status else 'running' end,
                worker_id = $1,
                fence = fence + 1,
                version = version + 1,
                started_at = coalesce($4::timestamptz, now())
            where run_id = any (array(
                    select ready.run_id
                    from runs as ready
                    where ready.status = 'pending'
                      and ready.kind = $2
                      and ready.ready_at <= coalesce($4::timestamptz, now())
                    order by ready.round, ready.ready_at
                    limit $3
                    for no key update skip locked
                ))
              and exists (
                    select from worker_leases as lease
                    where lease.worker_id = $1 and not lease.dead
                    for key share
                )
            returning run_id, owner_id, fence, step, stop,
                      extract(epoch from started_at - ready_at)::float8 as "waited!"
        "#,
        worker.uuid(),
        kind.as_str(),
        i64::from(limit),
        now.map(Timestamp::time),
    )
    .fetch_all(conn)
    .await?;
    let claimed = rows.into_iter().map(|row| Claimed {
        run: Run {
            id: RunId::new(row.run_id),
            kind: kind.clone(),
            owner: OwnerId::new(row.owner_id),
            token: Token { worker, fence: Fence(row.fence), step: Step(row.step) },
            stop: row.stop,
        },
        waited: Duration::from_secs_f64(row.waited.max(0.0)),
    });
    Ok(claimed.collect())
}

/// Returns how long until a run of `kind` is ready, `None` when none is pending.
pub async fn next_ready(
    conn: &mut PgConnection,
    kind: &RunKind,
    now: Option<Timestamp>,
) -> sqlx::Result<Option<Duration>> {
    let seconds = sqlx::query_scalar!(
        r#"
            select extract(epoch from min(ready_at) - coalesce($2::timestamptz, now()))::float8
            from runs
            where status = 'pending' and kind = $1
        "#,
        kind.as_str(),
        now.map(Timestamp::time),
    )
    .fetch_one(conn)
    .await?;
    Ok(seconds.map(|seconds| Duration::from_secs_f64(seconds.max(0.0))))
}

/// Locks a run within `reach`; `None` when it is not there or out of reach.
pub async fn lock(
    conn: &mut PgConnection,
    run: RunId,
    kind: &RunKind,
    reach: Reach,
) -> sqlx::Result<Option<Locked>> {
    let row = sqlx::query!(
        r#"
            select owner_id, status as "status: StatusColumn", stop, worker_id, fence, step, version
            from runs
            where run_id = $1
              and kind = $2
              and ($3::uuid is null or owner_id = $3)
            for no key update
        "#,
        run.uuid(),
        kind.as_str(),
        owner_of(reach),
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| Locked {
        owner: OwnerId::new(row.owner_id),
        status: row.status.into(),
        stop: row.stop,
        ownership: Ownership {
            worker: row.worker_id.map(WorkerId::new),
            fence: Fence(row.fence),
            step: Step(row.step),
        },
        version: Version(row.version),
    }))
}

/// Writes a transition of a run whose row is locked; returns its new version.
///
/// A run that becomes pending goes to the end of its owner's rounds.
pub async fn write(
    conn: &mut PgConnection,
    run: RunId,
    transition: &Transition,
    now: Option<Timestamp>,
) -> sqlx::Result<Version> {
    let version = sqlx::query_scalar!(
        r#"
            update runs
            set status = $2::run_status,
                stop = $3,
                error = $4,
                worker_id = case when $2::run_status in ('running', 'interrupting') then worker_id end,
                version = version + 1,
                step = step + case when $5 then 1 else 0 end,
                attempts = case when $5 then 0 else attempts end,
                ready_at = case
                    when $2::run_status = 'pending' and status <> 'pending'
                    then coalesce($6::timestamptz, now())
                    else ready_at
                end,
                round = case
                    when $2::run_status = 'pending' and status <> 'pending'
                    then greatest(
                        (select max(own.round) + 1 from runs as own
                         where own.kind = runs.kind and own.owner_id = runs.owner_id
                           and own.status = 'pending'),
                        (select min(head.round) from runs as head
                         where head.kind = runs.kind and head.status = 'pending'),
                        0
                    )
                    else round
                end
            where run_id = $1
            returning version
        "#,
        run.uuid(),
        StatusColumn::from(transition.status) as StatusColumn,
        transition.stop,
        transition.error,
        transition.by_owner,
        now.map(Timestamp::time),
    )
    .fetch_one(conn)
    .await?;
    Ok(Version(version))
}

/// Returns runs of `worker` to pending, each only under its fence; returns those released.
///
/// They are ready after `pause`. A run that somebody holds locked is waited for.
pub async fn release(
    conn: &mut PgConnection,
    worker: WorkerId,
    runs: &[(RunId, Fence)],
    pause: Duration,
    now: Option<Timestamp>,
) -> sqlx::Result<Vec<RunId>> {
    let (ids, fences): (Vec<Uuid>, Vec<i64>) =
        runs.iter().map(|(run, fence)| (run.uuid(), fence.0)).unzip();
    let released = sqlx::query_scalar!(
        r#"
            update runs
            set status = 'pending',
                worker_id = null,
                fence = fence + 1,
                version = version + 1,
                stop = stop or status = 'interrupting',
                ready_at = coalesce($4::timestamptz, now()) + make_interval(secs => $5),
                round = greatest(round, (select min(head.round) from runs as head
                                         where head.kind = runs.kind and head.status = 'pending'))
            where run_id = any (array(
                select own.run_id
                from unnest($2::uuid[], $3::bigint[]) as named (run_id, fence)
                join runs as own using (run_id, fence)
                where own.worker_id = $1 and own.status in ('running', 'interrupting')
                order by own.run_id
                for no key update of own
            ))
            returning run_id
        "#,
        worker.uuid(),
        &ids,
        &fences,
        now.map(Timestamp::time),
        pause.as_secs_f64(),
    )
    .fetch_all(conn)
    .await?;
    Ok(released.into_iter().map(RunId::new).collect())
}

/// Returns up to `batch` runs of a dead lease to pending, without counting an attempt.
///
/// Repeat it until none is returned. A run that somebody holds locked is left for the next call.
pub async fn requeue_of(
    conn: &mut PgConnection,
    worker: WorkerId,
    batch: u32,
    now: Option<Timestamp>,
) -> sqlx::Result<Vec<RunId>> {
    let requeued = sqlx::query_scalar!(
        r#"
            update runs
            set status = 'pending',
                worker_id = null,
                fence = fence + 1,
                version = version + 1,
                stop = stop or status = 'interrupting',
                ready_at = coalesce($3::timestamptz, now()),
                round = greatest(round, (select min(head.round) from runs as head
                                         where head.kind = runs.kind and head.status = 'pending'))
            where run_id = any (array(
                select own.run_id
                from worker_leases as lease
                join runs as own
                  on own.worker_id = lease.worker_id
                 and own.status in ('running', 'interrupting')
                where lease.worker_id = $1 and lease.dead
                order by own.run_id
                limit $2
                for no key update of own skip locked
            ))
            returning run_id
        "#,
        worker.uuid(),
        i64::from(batch),
        now.map(Timestamp::time),
    )
    .fetch_all(conn)
    .await?;
    Ok(requeued.into_iter().map(RunId::new).collect())
}

/// Returns the owner that a statement filters by, `None` for everything.
pub(crate) fn owner_of(reach: Reach) -> Option<Uuid> {
    match reach {
        Reach::Everything => None,
        Reach::Of(owner) => Some(owner.uuid()),
    }
}
