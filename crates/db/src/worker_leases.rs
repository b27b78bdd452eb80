//! The table `worker_leases`: who works.

use std::time::Duration;

use musterbeat_core::id::{Fence, RunId, WorkerId};
use musterbeat_core::port::{BeatAnswer, Lease, WorkerState};
use musterbeat_core::roster::RollEntry;
use musterbeat_core::sighting::{Overdue, SeenLease};
use musterbeat_core::timestamp::Timestamp;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

/// Adds a lease; one that is there stays as it is.
pub async fn insert(conn: &mut PgConnection, lease: &Lease) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
            insert into worker_leases (worker_id, name, advertise_url, release, capacity)
            values ($1, $2, $3, $4, $5)
            on conflict (worker_id) do nothing
        "#,
        lease.worker.uuid(),
        lease.name,
        lease.advertise_url,
        lease.release,
        i32::try_from(lease.capacity).unwrap_or(i32::MAX),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Beats for `worker`; returns its roll and the leases of all others, in the same statement.
///
/// A beat that waited for a lock must not write an old time over a newer one, so the time is
/// that of the write and not of the statement. The rows are leases, which have a heartbeat,
/// and runs, which have a fence; the own lease is among them exactly while it lives.
pub async fn beat(
    conn: &mut PgConnection,
    worker: WorkerId,
    now: Option<Timestamp>,
) -> sqlx::Result<BeatAnswer> {
    let rows = sqlx::query!(
        r#"
            with beaten as (
                update worker_leases
                set heartbeat_at = coalesce($2::timestamptz, clock_timestamp())
                where worker_id = $1 and not dead
                returning worker_id, heartbeat_at
            )
            select worker_id as "id!", false as "flag!", null::bigint as fence, heartbeat_at
            from beaten
            union all
            select worker_id, dead, null, heartbeat_at
            from worker_leases
            where worker_id <> $1
            union all
            select run_id, stop or status = 'interrupting', fence, null
            from runs
            where worker_id = $1 and status in ('running', 'interrupting')
        "#,
        worker.uuid(),
        now.map(Timestamp::time),
    )
    .fetch_all(conn)
    .await?;
    let mut answer = BeatAnswer { roll: Vec::with_capacity(rows.len()), ..BeatAnswer::default() };
    for row in rows {
        match (row.fence, row.heartbeat_at) {
            (Some(fence), _) => {
                let run = RunId::new(row.id);
                answer.roll.push(RollEntry { run, fence: Fence(fence), stop: row.flag });
            }
            (None, Some(heartbeat_at)) if row.id != worker.uuid() => {
                answer.leases.push(seen(row.id, heartbeat_at, row.flag));
            }
            (None, _) => answer.alive = true,
        }
    }
    Ok(answer)
}

/// Returns the leases of all workers but `worker`.
pub async fn look(conn: &mut PgConnection, worker: WorkerId) -> sqlx::Result<Vec<SeenLease>> {
    let rows = sqlx::query!(
        "select worker_id, heartbeat_at, dead from worker_leases where worker_id <> $1",
        worker.uuid(),
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| seen(row.worker_id, row.heartbeat_at, row.dead)).collect())
}

fn seen(worker: Uuid, heartbeat_at: OffsetDateTime, dead: bool) -> SeenLease {
    let heartbeat_at = Timestamp::new(heartbeat_at);
    SeenLease { worker: WorkerId::new(worker), heartbeat_at, dead }
}

/// Marks leases dead that still have the beat they were seen with, and that have expired.
///
/// A beat that lies in the future does not expire when the clock went back: it counts if it was
/// seen for a whole lease. `for update` passes over a lease whose worker claims just now, and a
/// later claim finds it dead.
pub async fn mark_overdue(
    conn: &mut PgConnection,
    overdue: &[Overdue],
    ttl: Duration,
    now: Option<Timestamp>,
) -> sqlx::Result<Vec<WorkerId>> {
    let workers: Vec<Uuid> = overdue.iter().map(|seen| seen.worker.uuid()).collect();
    let beats: Vec<OffsetDateTime> = overdue.iter().map(|seen| seen.heartbeat_at.time()).collect();
    let whole: Vec<bool> = overdue.iter().map(|seen| seen.for_whole_lease).collect();
    let marked = sqlx::query_scalar!(
        r#"
            update worker_leases
            set dead = true
            where worker_id = any (array(
                select lease.worker_id
                from unnest($1::uuid[], $2::timestamptz[], $3::bool[])
                    as seen (worker_id, heartbeat_at, for_whole_lease)
                join worker_leases as lease using (worker_id, heartbeat_at)
                where not lease.dead
                  and (
                    lease.heartbeat_at
                        < coalesce($5::timestamptz, now()) - make_interval(secs => $4)
                    or (seen.for_whole_lease
                        and lease.heartbeat_at > coalesce($5::timestamptz, now()))
                  )
                order by lease.worker_id
                for update of lease skip locked
            ))
            returning worker_id
        "#,
        &workers,
        &beats,
        &whole,
        ttl.as_secs_f64(),
        now.map(Timestamp::time),
    )
    .fetch_all(conn)
    .await?;
    Ok(marked.into_iter().map(WorkerId::new).collect())
}

/// Marks a lease dead, once the claim that holds it is committed.
///
/// `for update` waits for the claim's `for key share`, and a later claim then finds it dead.
pub async fn mark_dead(conn: &mut PgConnection, worker: WorkerId) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
            update worker_leases
            set dead = true
            where worker_id = (
                select worker_id from worker_leases where worker_id = $1 and not dead for update
            )
        "#,
        worker.uuid(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Removes dead leases that own nothing any more; returns how many.
pub async fn forget_all(conn: &mut PgConnection) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        r#"
            delete from worker_leases as lease
            where lease.dead
              and not exists (
                  select from runs
                  where runs.worker_id = lease.worker_id
                    and runs.status in ('running', 'interrupting')
              )
        "#,
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// Gives runs whose owner has no lease a dead one in its name; returns for how many owners.
pub async fn adopt(conn: &mut PgConnection) -> sqlx::Result<u64> {
    let done = sqlx::query!(
        r#"
            insert into worker_leases (worker_id, name, dead)
            select distinct runs.worker_id, '(missing)', true
            from runs
            where runs.status in ('running', 'interrupting')
              and not exists (
                  select from worker_leases as lease where lease.worker_id = runs.worker_id
              )
            on conflict (worker_id) do nothing
        "#,
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected())
}

/// Returns all leases with what their workers own, the oldest first.
pub async fn list(conn: &mut PgConnection) -> sqlx::Result<Vec<WorkerState>> {
    let rows = sqlx::query!(
        r#"
            select lease.worker_id, lease.name, lease.advertise_url, lease.release, lease.capacity,
                   lease.started_at, lease.heartbeat_at, lease.dead,
                   extract(epoch from now() - lease.heartbeat_at)::float8 as "age!",
                   coalesce(owned.runs, 0) as "runs!"
            from worker_leases as lease
            left join (
                select worker_id, count(*) as runs
                from runs
                where status in ('running', 'interrupting')
                group by worker_id
            ) as owned using (worker_id)
            order by lease.started_at, lease.worker_id
        "#,
    )
    .fetch_all(conn)
    .await?;
    let workers = rows.into_iter().map(|row| WorkerState {
        lease: Lease {
            worker: WorkerId::new(row.worker_id),
            name: row.name,
            advertise_url: row.advertise_url,
            release: row.release,
            capacity: row.capacity.cast_unsigned(),
        },
        started_at: Timestamp::new(row.started_at),
        heartbeat_at: Timestamp::new(row.heartbeat_at),
        beat_age: Duration::from_secs_f64(row.age.max(0.0)),
        dead: row.dead,
        runs: row.runs.cast_unsigned(),
    });
    Ok(workers.collect())
}

/// Removes a dead lease that owns nothing any more; returns false while it owns something.
pub async fn forget(conn: &mut PgConnection, worker: WorkerId) -> sqlx::Result<bool> {
    let owns = sqlx::query_scalar!(
        r#"
            with forgotten as (
                delete from worker_leases as lease
                where lease.worker_id = $1
                  and lease.dead
                  and not exists (
                      select from runs
                      where runs.worker_id = lease.worker_id
                        and runs.status in ('running', 'interrupting')
                  )
            )
            select exists (
                select from runs where worker_id = $1 and status in ('running', 'interrupting')
            ) as "owns!"
        "#,
        worker.uuid(),
    )
    .fetch_one(conn)
    .await?;
    Ok(!owns)
}
