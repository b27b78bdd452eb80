//! Claims within caps: so many runs of an owner at work, and so many of all.
//!
//! Claims of all workers come one after the other, by an advisory lock, so that what one counts
//! the next has taken into account. A claim without caps is one statement and needs no lock.
//!
//! A run that waits for another is not counted, or a family under a cap of one would wait for
//! itself for ever: parents would hold the room that their children need.

use std::num::NonZeroU32;

use musterbeat_core::id::WorkerId;
use musterbeat_core::port::{Room, Waiter};
use musterbeat_core::run::{RunKind, SUSPECT_ATTEMPTS};
use sqlx::{Connection, PgConnection};

use super::{Claimed, ClaimedRow, stored_depth};

/// How many runs of a kind may be at work at once; none means any number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Caps {
    /// Of one owner.
    pub owner: Option<NonZeroU32>,
    /// Of all owners together.
    pub deployment: Option<NonZeroU32>,
}

impl Caps {
    /// Says whether there is any cap.
    pub const fn is_any(self) -> bool {
        self.owner.is_some() || self.deployment.is_some()
    }

    fn limits(self) -> (i64, i64) {
        let limit =
            |cap: Option<NonZeroU32>| cap.map_or(i64::from(u32::MAX), |cap| cap.get().into());
        (limit(self.owner), limit(self.deployment))
    }
}

/// Names the lock of all claims within caps, for the whole database.
const LOCK: i64 = 0x6d75_7374_6361_7073;

/// Selects what the caps leave room for, as `allowed`; parameters 1 to 6 are kind, limit, the cap of
/// an owner, that of all, the attempts that make a run suspect, and how many ancestors a run has at
/// least.
///
/// Owners who wait are found one by one through their index, so a backlog of one costs no more than
/// the room that owner has. Who only finishes an interrupt takes no room. A suspect is allowed when
/// nothing else is, and alone.
macro_rules! with_allowed {
    ($query:ident, $($row:ident,)? $rest:literal $(, $argument:expr)* $(,)?) => {
        sqlx::$query!(
            $($row,)?
            r#"
                with recursive waiting as (
                    (
                        select owner_id from runs
                        where status = 'pending' and kind = $1
                        order by owner_id
                        limit 1
                    )
                    union all
                    select (
                        select next.owner_id from runs as next
                        where next.status = 'pending' and next.kind = $1
                          and next.owner_id > waiting.owner_id
                        order by next.owner_id
                        limit 1
                    )
                    from waiting
                    where waiting.owner_id is not null
                ), active as (
                    select owner_id, count(*) as runs
                    from runs
                    where kind = $1 and status in ('running', 'interrupting') and not awaits
                    group by owner_id
                ), ready as (
                    select own.run_id, own.round, own.ready_at, own.attempts >= $5 as is_suspect
                    from waiting
                    cross join lateral (
                        select run_id, round, ready_at, attempts
                        from runs
                        where status = 'pending' and kind = $1 and owner_id = waiting.owner_id
                          and not stop and ready_at <= now() and $6 <= depth
                        order by round, ready_at
                        limit greatest($3::bigint - coalesce(
                            (select runs from active where active.owner_id = waiting.owner_id), 0
                        ), 0)
                    ) as own
                    order by is_suspect, own.round, own.ready_at
                    limit greatest(least(
                        $2::bigint, $4::bigint - (select coalesce(sum(runs), 0) from active)
                    ), 0)
                ), allowed as (
                    select run_id from ready where not is_suspect
                    union all
                    (
                        select run_id from ready
                        where is_suspect and not exists (select from ready where not is_suspect)
                        limit 1
                    )
                    union all
                    (
                        select run_id from runs
                        where status = 'pending' and kind = $1 and stop and ready_at <= now()
                          and $6 <= depth
                        limit $2
                    )
                )
            "# + $rest
            $(, $argument)*
        )
    };
}

/// Claims as [`claim`](super::claim) does, as far as the caps leave room.
///
/// A transaction of its own: the lock is to be had before anything is counted.
pub async fn claim_within(
    conn: &mut PgConnection,
    worker: WorkerId,
    kind: &RunKind,
    room: Room,
    caps: Caps,
) -> sqlx::Result<Vec<Claimed>> {
    let (of_owner, of_all) = caps.limits();
    let mut tx = conn.begin().await?;
    sqlx::query!("select pg_advisory_xact_lock($1)", LOCK).execute(&mut *tx).await?;
    let rows = with_allowed!(
        query_as,
        ClaimedRow,
        r#"
            update runs
            set status = case when stop then 'interrupting'::run_status else 'running' end,
                worker_id = $7,
                fence = fence + 1,
                version = version + 1,
                started_at = now(),
                awaits = false
            where run_id = any (array(
                    select own.run_id
                    from runs as own
                    where own.run_id = any (array(select run_id from allowed))
                      and own.status = 'pending'
                    for no key update skip locked
                ))
              and exists (
                    select from worker_leases as lease
                    where lease.worker_id = $7 and not lease.dead
                    for key share
                )
            returning run_id, owner_id, fence, step, stop, attempts,
                      extract(epoch from started_at - ready_at)::float8 as "waited!"
        "#,
        kind.as_str(),
        i64::from(room.runs),
        of_owner,
        of_all,
        SUSPECT_ATTEMPTS.cast_signed(),
        stored_depth(room.depth_min),
        worker.uuid(),
    )
    .fetch_all(&mut *tx)
    .await?;
    tx.commit().await?;
    Ok(rows.into_iter().map(|row| row.claimed_by(worker, kind)).collect())
}

/// Has a run that somebody owns be counted no more until its owner writes; false when it is not so
/// owned, or was not counted anyway.
///
/// Who goes on after a wait is not asked whether there is room: the caps may be passed by as many
/// as wait.
pub async fn await_another(conn: &mut PgConnection, waiter: &Waiter) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        r#"
            update runs
            set awaits = true
            where run_id = $1
              and worker_id = $2
              and fence = $3
              and status in ('running', 'interrupting')
              and not awaits
        "#,
        waiter.run.uuid(),
        waiter.token.worker.uuid(),
        waiter.token.fence.0,
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Says whether a claim would find something that the caps leave room for.
pub async fn is_any_allowed(
    conn: &mut PgConnection,
    kind: &RunKind,
    caps: Caps,
) -> sqlx::Result<bool> {
    let (of_owner, of_all) = caps.limits();
    with_allowed!(
        query_scalar,
        r#"select exists (select from allowed) as "allowed!""#,
        kind.as_str(),
        1_i64,
        of_owner,
        of_all,
        SUSPECT_ATTEMPTS.cast_signed(),
        0_i16,
    )
    .fetch_one(conn)
    .await
}
