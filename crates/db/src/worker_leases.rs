//! The table `worker_leases`: who works.

use musterbeat_core::id::WorkerId;
use musterbeat_core::port::Lease;
use sqlx::PgConnection;

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
