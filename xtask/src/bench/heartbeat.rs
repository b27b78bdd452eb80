//! `heartbeat`: one lease and a roll call, against a time stamp a run.
//!
//! Every arm tells the database that the runs of one worker are alive, and learns which of them
//! it has lost: a few that the worker believes to own belong to another.

use anyhow::{Context, Result};
use musterbeat_core::id::{Fence, RunId, WorkerId};
use musterbeat_core::roster::Roster;
use sqlx::PgConnection;
use uuid::Uuid;

use super::arm::{Arm, Contest, Subject};
use super::meter::Meter;
use super::report::Section;
use super::{Ground, original};
use ours::{Ours, Trouble};
use stamps::{AtOnce, Each};

mod ours;
mod roll;
mod stamps;
mod steady;

const WORKER: WorkerId = WorkerId::new(Uuid::from_u128(1));

/// Owns what [`WORKER`] believes to own and has lost.
const THIEF: Uuid = Uuid::from_u128(2);

/// How many runs were lost.
const LOST: i64 = 10;

/// Connections of the arm that commits for each run, as many as a small pool has.
const CONNECTIONS: usize = 10;

/// Returns the arms; the tables hold three times as many runs as the worker believes to own,
/// scattered, with random ids.
pub(super) async fn prepare(ground: &Ground<'_>) -> Result<Contest> {
    let database = ground.database;
    let mut conn = database.connect().await?;
    fill(&mut conn, ground.runs).await?;
    let believed = believed(&mut conn).await?;
    let mut arms: Vec<Box<dyn Arm>> = vec![
        Box::new(Each::new(database, believed.clone()).await?),
        Box::new(AtOnce::new(database, believed.clone()).await?),
    ];
    for trouble in [Trouble::None, Trouble::Snapshot, Trouble::Lock] {
        arms.push(Box::new(Ours::new(database, roster(&believed), trouble).await?));
    }
    let subject = Subject { unit: "run", count: ground.runs, size: None };
    Ok(Contest { subject, arms, meter: Meter::connect(database).await? })
}

/// Measures beats that follow each other, and the roll call alone.
pub(super) async fn witness(ground: &Ground<'_>) -> Result<Vec<Section>> {
    let mut conn = ground.database.connect().await?;
    let believed = believed(&mut conn).await?;
    Ok(vec![steady::measure(ground.database, &believed).await?, roll::measure(ground.runs)])
}

/// Fills the tables of ours and of the original with the same runs.
async fn fill(conn: &mut PgConnection, runs: u64) -> Result<()> {
    let failed = "failed to fill the tables";
    let tables = "
        create table bench_runs (
            number bigint primary key,
            run_id uuid not null default gen_random_uuid(),
            owner_id uuid not null default gen_random_uuid(),
            worker_id uuid,
            believed boolean not null,
            ready_at timestamptz not null default now()
        );
        alter table runs set (autovacuum_enabled = off);
        alter table worker_leases set (autovacuum_enabled = off);";
    sqlx::raw_sql(tables).execute(&mut *conn).await.context(failed)?;
    let numbers = "
        insert into bench_runs (number, believed, worker_id)
        select number, number % 3 = 0,
               case when number % 3 <> 0 then null when number <= 3 * $2 then $4 else $3 end
        from generate_series(1, 3 * $1) as number";
    let runs = i64::try_from(runs).context("there are not so many runs")?;
    let numbers = sqlx::query(numbers).bind(runs).bind(LOST).bind(WORKER.uuid()).bind(THIEF);
    numbers.execute(&mut *conn).await.context(failed)?;
    let leases = "insert into worker_leases (worker_id, name) values ($1, 'ours'), ($2, 'other')";
    let leases = sqlx::query(leases).bind(WORKER.uuid()).bind(THIEF);
    leases.execute(&mut *conn).await.context(failed)?;
    let ours = "
        insert into runs (run_id, kind, status, worker_id, fence, version, owner_id, started_at)
        select run_id, 'chat',
               case when worker_id is null then 'waiting' else 'running' end::run_status,
               worker_id, 1, 2, owner_id, case when worker_id is not null then now() end
        from bench_runs
        order by number";
    sqlx::query(ours).execute(&mut *conn).await.context(failed)?;
    for vacuum in ["vacuum analyze runs", "vacuum analyze worker_leases"] {
        sqlx::query(vacuum).execute(&mut *conn).await.context(failed)?;
    }
    original::create(conn).await?;
    original::fill(conn, "waiting").await
}

/// Returns the runs that the worker believes to own.
async fn believed(conn: &mut PgConnection) -> Result<Vec<Uuid>> {
    let query = "select run_id from bench_runs where believed order by number";
    sqlx::query_scalar(query).fetch_all(conn).await.context("failed to read the runs")
}

fn roster(believed: &[Uuid]) -> Roster {
    let mut roster = Roster::default();
    for run in believed {
        roster.enter(RunId::new(*run), Fence(1));
    }
    roster
}

/// Says what a beat found; the same for every arm.
fn found(held: usize, lost: impl Iterator<Item = Uuid>) -> String {
    let mut lost: Vec<_> = lost.collect();
    lost.sort_unstable();
    format!("{held} held, lost: {lost:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_lost_is_told_in_order() {
        let lost = [Uuid::from_u128(2), Uuid::from_u128(1)];
        let sorted = [Uuid::from_u128(1), Uuid::from_u128(2)];
        assert_eq!(found(3, lost.into_iter()), format!("3 held, lost: {sorted:?}"));
    }
}
