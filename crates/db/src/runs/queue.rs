//! Runs that wait for a worker, and those who ask for them.

use std::time::Duration;

use musterbeat_core::id::{OwnerId, RunId, Version, WorkerId};
use musterbeat_core::port::{Backlog, Reach};
use musterbeat_core::run::{RunKind, RunState};
use musterbeat_core::timestamp::Timestamp;
use sqlx::PgConnection;

use super::{Descent, Rank, known_kind, owner_of, stored_depth};
use crate::row::StatusColumn;

/// Adds a run that is ready; returns false, changing nothing, when its id is taken.
pub async fn insert(
    conn: &mut PgConnection,
    run: RunId,
    kind: &RunKind,
    owner: OwnerId,
    now: Option<Timestamp>,
) -> sqlx::Result<bool> {
    insert_within(conn, run, kind, owner, Descent::default(), now).await
}

/// Adds a run as [`insert`] does, as a member of a family.
pub async fn insert_within(
    conn: &mut PgConnection,
    run: RunId,
    kind: &RunKind,
    owner: OwnerId,
    descent: Descent,
    now: Option<Timestamp>,
) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        r#"
            insert into runs
                (run_id, kind, status, owner_id, family_id, depth, version, ready_at, round)
            values (
                $1, $2, 'pending', $3, $5, $7, 1, coalesce($4::timestamptz, now()),
                greatest(
                    case when not $6 then
                        (select max(own.round) + 1 from runs as own
                         where own.kind = $2 and own.owner_id = $3 and own.status = 'pending')
                    end,
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
        descent.family.map(RunId::uuid),
        descent.rank == Rank::Head,
        stored_depth(descent.depth),
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Counts the members of a family that are at work or wait for a worker, but for the one that all
/// descend from; up to `max` of them.
pub async fn at_work(conn: &mut PgConnection, family: RunId, max: u32) -> sqlx::Result<u64> {
    let count = sqlx::query_scalar!(
        r#"
            select count(*) as "count!"
            from (
                select from runs
                where family_id = $1 and status in ('pending', 'running', 'interrupting')
                limit $2
            ) as at_work
        "#,
        family.uuid(),
        i64::from(max),
    )
    .fetch_one(conn)
    .await?;
    Ok(count.cast_unsigned())
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

/// Returns a run within `reach`; `None` when it is not there or out of reach.
pub async fn get(
    conn: &mut PgConnection,
    run: RunId,
    reach: Reach,
) -> sqlx::Result<Option<RunState>> {
    let row = sqlx::query!(
        r#"
            select kind, owner_id, status as "status: StatusColumn", stop, error, worker_id, version
            from runs
            where run_id = $1 and ($2::uuid is null or owner_id = $2)
        "#,
        run.uuid(),
        owner_of(reach),
    )
    .fetch_optional(conn)
    .await?;
    let state = row.map(|row| {
        Ok(RunState {
            id: run,
            kind: known_kind(row.kind)?,
            owner: OwnerId::new(row.owner_id),
            status: row.status.into(),
            stop: row.stop,
            error: row.error,
            worker: row.worker_id.map(WorkerId::new),
            version: Version(row.version),
        })
    });
    state.transpose()
}

/// Asks for a run to be stopped: by its owner, or by the next one when it is pending.
///
/// A run that already is to be stopped, or that is neither, stays as it is.
pub async fn interrupt(conn: &mut PgConnection, run: RunId, reach: Reach) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
            update runs
            set status = (case when status = 'running' then 'interrupting' else status::text end)
                    ::run_status,
                stop = status = 'pending',
                version = version + 1
            where run_id = $1
              and ($2::uuid is null or owner_id = $2)
              and (status = 'running' or (status = 'pending' and not stop))
        "#,
        run.uuid(),
        owner_of(reach),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Returns how much of a kind waits for a worker.
pub async fn backlog(
    conn: &mut PgConnection,
    kind: &RunKind,
    now: Option<Timestamp>,
) -> sqlx::Result<Backlog> {
    let row = sqlx::query!(
        r#"
            select
                (select count(*) from (
                    select from runs where status = 'pending' and kind = $1 limit $3
                ) as counted) as "pending!",
                extract(epoch from coalesce($2::timestamptz, now()) - (
                    select min(ready_at) from (
                        select ready_at from runs where status = 'pending' and kind = $1 limit $3
                    ) as aged
                ))::float8 as oldest
        "#,
        kind.as_str(),
        now.map(Timestamp::time),
        Backlog::COUNT_MAX.cast_signed(),
    )
    .fetch_one(conn)
    .await?;
    Ok(Backlog {
        pending: row.pending.cast_unsigned(),
        oldest: Duration::from_secs_f64(row.oldest.unwrap_or(0.0).max(0.0)),
    })
}
