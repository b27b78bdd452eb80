//! The table `runs`: which worker owns what.
//!
//! Each change of a run has one shape: the first statement locks its row
//! (`for no key update`), later ones read and write the rest. A statement that waited for a lock
//! has renewed only that row, so it must not read another table on the way.
//! Several runs are locked in the order of `run_id`, and `runs` before every other table.
//! Status words are literals: with a parameter the partial indexes are not used.

mod caps;
mod handover;
mod queue;

use std::time::Duration;

use musterbeat_core::id::{Fence, OwnerId, RunId, Step, Version, WorkerId};
use musterbeat_core::port::{Reach, Room};
use musterbeat_core::run::{Ownership, Run, RunKind, RunStatus, SUSPECT_ATTEMPTS, Token};
use musterbeat_core::timestamp::Timestamp;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::row::StatusColumn;

pub use caps::{Caps, await_another, claim_within, is_any_allowed};
pub use handover::{release, requeue, requeue_of};
pub use queue::{at_work, backlog, get, insert, insert_within, interrupt, next_ready};

/// A claimed run, and how long it had been ready.
#[derive(Clone, Debug)]
pub struct Claimed {
    /// The run.
    pub run: Run,
    /// Time from its being ready to its claim.
    pub waited: Duration,
}

/// A run's row, as a claim returns it.
struct ClaimedRow {
    run_id: Uuid,
    owner_id: Uuid,
    fence: i64,
    step: i64,
    stop: bool,
    attempts: i32,
    waited: f64,
}

impl ClaimedRow {
    fn claimed_by(self, worker: WorkerId, kind: &RunKind) -> Claimed {
        let run = Run {
            id: RunId::new(self.run_id),
            kind: kind.clone(),
            owner: OwnerId::new(self.owner_id),
            token: Token { worker, fence: Fence(self.fence), step: Step(self.step) },
            stop: self.stop,
            attempts: self.attempts.cast_unsigned(),
        };
        Claimed { run, waited: Duration::from_secs_f64(self.waited.max(0.0)) }
    }
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

/// A run's row, as the statements return it that lock it.
struct LockedRow {
    run_id: Uuid,
    owner_id: Uuid,
    status: StatusColumn,
    stop: bool,
    worker_id: Option<Uuid>,
    fence: i64,
    step: i64,
    version: i64,
}

impl From<LockedRow> for Locked {
    fn from(row: LockedRow) -> Self {
        Self {
            owner: OwnerId::new(row.owner_id),
            status: row.status.into(),
            stop: row.stop,
            ownership: Ownership {
                worker: row.worker_id.map(WorkerId::new),
                fence: Fence(row.fence),
                step: Step(row.step),
            },
            version: Version(row.version),
        }
    }
}

/// Where a run goes among the others that becomes pending.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rank {
    /// To the end of its owner's rounds.
    #[default]
    Last,
    /// To the round that is claimed next, behind those that are ready in it: somebody at work waits
    /// for it.
    Head,
}

/// How a new run belongs to others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Descent {
    /// The run that its whole family descends from; `None` for one without ancestors.
    pub family: Option<RunId>,
    /// How many ancestors it has.
    pub depth: u32,
    /// Where it goes among those that are pending.
    pub rank: Rank,
}

/// What a transition writes to its run.
#[derive(Clone, Debug)]
pub struct Transition {
    /// Where the run stands afterwards.
    pub status: RunStatus,
    /// Whether an interrupt is still to be finished.
    pub stop: bool,
    /// The error afterwards; none keeps the one it has, if it stays in error.
    pub error: Option<String>,
    /// Whether it is taken from whoever owns it.
    pub fences: bool,
    /// Whether its owner writes: that takes a step and proves the run harmless.
    pub by_owner: bool,
    /// Where it goes if it becomes pending.
    pub rank: Rank,
}

/// Claims; parameters are worker, kind, limit, now, and the attempts that make a run suspect. What
/// else a run must be, of which `head` and `ready` are, stands in two conditions.
macro_rules! claim {
    ($head:literal, $ready:literal $(, $argument:expr)* $(,)?) => {
        sqlx::query_as!(
            ClaimedRow,
            r#"
                with head as (
                    select attempts >= $5 as is_suspect
                    from runs
                    where status = 'pending'
                      and kind = $2
                      and ready_at <= coalesce($4::timestamptz, now())
            "# + $head + r#"
                    order by round, ready_at
                    limit 1
                )
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
            "# + $ready + r#"
                          and (ready.attempts < $5 or (select is_suspect from head))
                        order by ready.round, ready.ready_at
                        limit case when (select is_suspect from head) then 1 else $3::bigint end
                        for no key update skip locked
                    ))
                  and exists (
                        select from worker_leases as lease
                        where lease.worker_id = $1 and not lease.dead
                        for key share
                    )
                returning run_id, owner_id, fence, step, stop, attempts,
                          extract(epoch from started_at - ready_at)::float8 as "waited!"
            "#
            $(, $argument)*
        )
    };
}

/// Makes `worker` the owner of up to `limit` pending runs of `kind`, round by round.
///
/// One statement, to be sent outside a transaction; its rows count once it is complete.
/// The inner select stands in `array(…)`, which runs once by construction: after `= any`
/// alone the planner may run it for each row and claim everything. The lock on the lease
/// excludes the one who marks it dead, and does not hold up a beat. When a suspect comes first
/// it is claimed alone, else suspects are left out.
pub async fn claim(
    conn: &mut PgConnection,
    worker: WorkerId,
    kind: &RunKind,
    limit: u32,
    now: Option<Timestamp>,
) -> sqlx::Result<Vec<Claimed>> {
    let rows = claim!(
        "",
        "",
        worker.uuid(),
        kind.as_str(),
        i64::from(limit),
        now.map(Timestamp::time),
        SUSPECT_ATTEMPTS.cast_signed(),
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| row.claimed_by(worker, kind)).collect())
}

/// Claims as [`claim`] does, only runs with `depth_min` ancestors or more.
pub async fn claim_deep(
    conn: &mut PgConnection,
    worker: WorkerId,
    kind: &RunKind,
    room: Room,
    now: Option<Timestamp>,
) -> sqlx::Result<Vec<Claimed>> {
    let rows = claim!(
        "and 0 < depth and $6 <= depth",
        "and 0 < ready.depth and $6 <= ready.depth",
        worker.uuid(),
        kind.as_str(),
        i64::from(room.runs),
        now.map(Timestamp::time),
        SUSPECT_ATTEMPTS.cast_signed(),
        stored_depth(room.depth_min),
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| row.claimed_by(worker, kind)).collect())
}

/// Returns a number of ancestors as its column has it; it is bounded.
fn stored_depth(depth: u32) -> i16 {
    i16::try_from(depth).unwrap_or(i16::MAX)
}

/// Locks a run within `reach`; `None` when it is not there or out of reach.
pub async fn lock(
    conn: &mut PgConnection,
    run: RunId,
    kind: &RunKind,
    reach: Reach,
) -> sqlx::Result<Option<Locked>> {
    let row = sqlx::query_as!(
        LockedRow,
        r#"
            select run_id, owner_id, status as "status: StatusColumn", stop, worker_id, fence, step,
                   version
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
    Ok(row.map(Locked::from))
}

/// Writes a transition of a run whose row is locked; returns its new version.
///
/// An owner that writes waits no longer for another run.
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
                error = case when $2::run_status = 'error' then coalesce($4, error) end,
                worker_id = case when $2::run_status in ('running', 'interrupting') then worker_id end,
                version = version + 1,
                fence = fence + case when $7 then 1 else 0 end,
                step = step + case when $5 then 1 else 0 end,
                attempts = case when $5 then 0 else attempts end,
                awaits = awaits and not $5,
                ready_at = case
                    when $2::run_status = 'pending' and status <> 'pending'
                    then coalesce($6::timestamptz, now())
                    else ready_at
                end,
                round = case
                    when $2::run_status = 'pending' and status <> 'pending'
                    then greatest(
                        case when not $8 then
                            (select max(own.round) + 1 from runs as own
                             where own.kind = runs.kind and own.owner_id = runs.owner_id
                               and own.status = 'pending')
                        end,
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
        transition.fences,
        transition.rank == Rank::Head,
    )
    .fetch_one(conn)
    .await?;
    Ok(Version(version))
}

/// Locks runs in the order of their ids; returns those that are there.
pub async fn lock_all(
    conn: &mut PgConnection,
    runs: &[RunId],
    kind: &RunKind,
) -> sqlx::Result<Vec<(RunId, Locked)>> {
    let ids: Vec<Uuid> = runs.iter().map(|run| run.uuid()).collect();
    let rows = sqlx::query_as!(
        LockedRow,
        r#"
            select run_id, owner_id, status as "status: StatusColumn", stop, worker_id, fence, step,
                   version
            from runs
            where run_id = any ($1)
              and kind = $2
            order by run_id
            for no key update
        "#,
        &ids,
        kind.as_str(),
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (RunId::new(row.run_id), row.into())).collect())
}

/// Writes transitions of runs whose rows are locked, in one statement; nobody owns them afterwards,
/// and none becomes pending.
pub async fn write_all(
    conn: &mut PgConnection,
    transitions: &[(RunId, Transition)],
) -> sqlx::Result<()> {
    fn column<T>(transitions: &[(RunId, Transition)], of: impl Fn(&Transition) -> T) -> Vec<T> {
        transitions.iter().map(|(_, transition)| of(transition)).collect()
    }
    sqlx::query!(
        r#"
            update runs
            set status = new.status,
                stop = false,
                error = case when new.status = 'error' then coalesce(new.error, runs.error) end,
                worker_id = null,
                fence = fence + case when new.fences then 1 else 0 end,
                version = version + 1
            from unnest($1::uuid[], $2::run_status[], $3::text[], $4::boolean[])
                as new (run_id, status, error, fences)
            where runs.run_id = new.run_id
        "#,
        &transitions.iter().map(|(run, _)| run.uuid()).collect::<Vec<_>>(),
        &column(transitions, |new| StatusColumn::from(new.status)) as &[StatusColumn],
        &column(transitions, |new| new.error.clone()) as &[Option<String>],
        &column(transitions, |new| new.fences),
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Returns the owner that a statement filters by, `None` for everything.
pub(crate) fn owner_of(reach: Reach) -> Option<Uuid> {
    match reach {
        Reach::Everything => None,
        Reach::Of(owner) => Some(owner.uuid()),
    }
}

/// Returns a kind as the table has it; only kinds that were checked are ever stored.
fn known_kind(name: String) -> sqlx::Result<RunKind> {
    RunKind::new(name).map_err(|invalid| sqlx::Error::Decode(Box::new(invalid)))
}
