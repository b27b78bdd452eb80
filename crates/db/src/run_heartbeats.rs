//! The table `run_heartbeats`: a time stamp a run, for those who want the original's shape.

use musterbeat_core::id::{Fence, RunId, WorkerId};
use musterbeat_core::roster::RollEntry;
use musterbeat_core::timestamp::Timestamp;
use sqlx::PgConnection;

/// Stamps every run that `worker` owns, in one statement; returns its roll.
pub async fn touch(
    conn: &mut PgConnection,
    worker: WorkerId,
    now: Option<Timestamp>,
) -> sqlx::Result<Vec<RollEntry>> {
    let rows = sqlx::query!(
        r#"
            with own as (
                select run_id, fence, stop or status = 'interrupting' as stop
                from runs
                where worker_id = $1 and status in ('running', 'interrupting')
            ), stamped as (
                insert into run_heartbeats (run_id, heartbeat_at)
                select run_id, coalesce($2::timestamptz, clock_timestamp()) from own order by run_id
                on conflict (run_id) do update set heartbeat_at = excluded.heartbeat_at
            )
            select run_id as "run_id!", fence as "fence!", stop as "stop!" from own
        "#,
        worker.uuid(),
        now.map(Timestamp::time),
    )
    .fetch_all(conn)
    .await?;
    let roll = rows.into_iter().map(|row| RollEntry {
        run: RunId::new(row.run_id),
        fence: Fence(row.fence),
        stop: row.stop,
    });
    Ok(roll.collect())
}

/// Returns owned runs whose stamp is older than `before`, or that have none.
pub async fn stale(
    conn: &mut PgConnection,
    before: Timestamp,
    limit: u32,
) -> sqlx::Result<Vec<RunId>> {
    let stale = sqlx::query_scalar!(
        r#"
            select runs.run_id
            from runs
            left join run_heartbeats as stamp using (run_id)
            where runs.status in ('running', 'interrupting')
              and (stamp.heartbeat_at is null or stamp.heartbeat_at < $1)
            order by stamp.heartbeat_at nulls first, runs.run_id
            limit $2
        "#,
        before.time(),
        i64::from(limit),
    )
    .fetch_all(conn)
    .await?;
    Ok(stale.into_iter().map(RunId::new).collect())
}
