//! Runs that change hands: given back by their owner, or taken from a dead one.
//!
//! They go on at the head of the pending ones of their kind at least, which is looked for once a
//! statement: the look passes over every entry that claims left behind in the index, thousands
//! while a backlog shrinks, and a look a run took seconds for a batch.

use std::time::Duration;

use musterbeat_core::id::{Fence, OwnerId, RunId, WorkerId};
use musterbeat_core::port::Requeued;
use musterbeat_core::timestamp::Timestamp;
use sqlx::PgConnection;
use uuid::Uuid;

use super::known_kind;

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
            with taken as materialized (
                select own.run_id, own.kind
                from unnest($2::uuid[], $3::bigint[]) as named (run_id, fence)
                join runs as own using (run_id, fence)
                where own.worker_id = $1 and own.status in ('running', 'interrupting')
                order by own.run_id
                for no key update of own
            ), heads as materialized (
                select kind, (select min(head.round) from runs as head
                              where head.kind = kinds.kind and head.status = 'pending') as round
                from (select distinct kind from taken) as kinds
            )
            update runs
            set status = 'pending',
                worker_id = null,
                fence = fence + 1,
                version = version + 1,
                stop = stop or status = 'interrupting',
                ready_at = coalesce($4::timestamptz, now()) + make_interval(secs => $5),
                round = greatest(round, (select heads.round from heads where heads.kind = runs.kind))
            where run_id = any (array(select run_id from taken))
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
            with taken as materialized (
                select own.run_id, own.kind
                from worker_leases as lease
                join runs as own
                  on own.worker_id = lease.worker_id
                 and own.status in ('running', 'interrupting')
                where lease.worker_id = $1 and lease.dead
                order by own.run_id
                limit $2
                for no key update of own skip locked
            ), heads as materialized (
                select kind, (select min(head.round) from runs as head
                              where head.kind = kinds.kind and head.status = 'pending') as round
                from (select distinct kind from taken) as kinds
            )
            update runs
            set status = 'pending',
                worker_id = null,
                fence = fence + 1,
                version = version + 1,
                stop = stop or status = 'interrupting',
                ready_at = coalesce($3::timestamptz, now()),
                round = greatest(round, (select heads.round from heads where heads.kind = runs.kind))
            where run_id = any (array(select run_id from taken))
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

/// Returns up to `batch` runs of dead leases to pending, or to error after the `attempts_max`th
/// time; returns what it requeued.
///
/// Repeat it until none is returned. A run that somebody holds locked is left for the next call.
/// Dead leases are joined: "without a live lease" would steal from a worker that registered
/// after the statement's snapshot. From the second death on a run is backed off.
pub async fn requeue(
    conn: &mut PgConnection,
    batch: u32,
    attempts_max: u32,
    now: Option<Timestamp>,
) -> sqlx::Result<Vec<Requeued>> {
    let rows = sqlx::query!(
        r#"
            with taken as materialized (
                select own.run_id, own.kind
                from worker_leases as lease
                join runs as own
                  on own.worker_id = lease.worker_id
                 and own.status in ('running', 'interrupting')
                where lease.dead
                order by own.run_id
                limit $1
                for no key update of own skip locked
            ), heads as materialized (
                select kind, (select min(head.round) from runs as head
                              where head.kind = kinds.kind and head.status = 'pending') as round
                from (select distinct kind from taken) as kinds
            )
            update runs
            set status = (case when attempts + 1 >= $2 then 'error' else 'pending' end)::run_status,
                error = case
                    when attempts + 1 >= $2
                    then format('its worker died %s times in a row while the run was on it', attempts + 1)
                end,
                worker_id = null,
                fence = fence + 1,
                version = version + 1,
                attempts = attempts + 1,
                stop = attempts + 1 < $2 and (stop or status = 'interrupting'),
                ready_at = coalesce($3::timestamptz, now()) + case
                    when attempts = 0 then interval '0'
                    else interval '1 second' * power(2, least(attempts, 6))
                end,
                round = greatest(round, (select heads.round from heads where heads.kind = runs.kind))
            where run_id = any (array(select run_id from taken))
            returning run_id, kind, owner_id, status = 'pending' as "pending!"
        "#,
        i64::from(batch),
        attempts_max.cast_signed(),
        now.map(Timestamp::time),
    )
    .fetch_all(conn)
    .await?;
    let requeued = rows.into_iter().map(|row| {
        let kind = known_kind(row.kind)?;
        let owner = OwnerId::new(row.owner_id);
        Ok(Requeued { run: RunId::new(row.run_id), kind, owner, pending: row.pending })
    });
    requeued.collect()
}
