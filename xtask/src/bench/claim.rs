//! `claim`: runs claimed by some workers at once, against `pgbench` sending the same statement.
//!
//! `pgbench` is PostgreSQL's own client for benchmarks and does nothing with the answers, so it
//! shows what the server can do. It is sent the text of the product's statement, read back from
//! a session that has prepared it.

use std::num::NonZeroU32;

use anyhow::{Context, Result, ensure};
use musterbeat_core::id::WorkerId;
use musterbeat_core::run::RunKind;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::arm::{Arm, Contest, Subject};
use super::meter::Meter;
use super::report::Section;
use super::{Ground, original};
use former::Former;
use ours::{Direct, Pooled};
use pgbench::Pgbench;

mod former;
mod ours;
mod pgbench;

/// Who claim at once, each on a connection of its own.
const CLAIMERS: u32 = 8;

/// The product's default.
const BATCH: NonZeroU32 = NonZeroU32::new(100).expect("it is not zero");

/// What the original takes in a claim.
const FORMER_BATCH: NonZeroU32 = NonZeroU32::new(10).expect("it is not zero");

const KIND: &str = "chat";

/// Owners that the runs belong to, in turn: claims are fair between them.
const OWNERS: i64 = 100;

/// Returns the arms, of which `pgbench` is the first.
pub(super) async fn prepare(ground: &Ground<'_>) -> Result<Contest> {
    let each = u64::from(CLAIMERS * BATCH.get());
    ensure!(
        ground.runs > 0 && ground.runs.is_multiple_of(each),
        "--runs must be a multiple of {each}: {CLAIMERS} claimers take {BATCH} at a time"
    );
    let database = ground.database;
    let mut conn = database.connect().await?;
    fill(&mut conn, ground.runs).await?;
    let programs = ground.server.programs().await?;
    let claims = u32::try_from(ground.runs / each).context("there are too many runs")?;
    let arms: Vec<Box<dyn Arm>> = vec![
        Box::new(Pgbench::new(database, &programs, claims).await?),
        Box::new(Direct::new(database, claims).await?),
        Box::new(Pooled::new(database, claims).await?),
        Box::new(Former::new(database, ground.runs, FORMER_BATCH).await?),
        Box::new(Former::new(database, ground.runs, NonZeroU32::MIN).await?),
    ];
    let subject = Subject { unit: "run", count: ground.runs, size: None };
    Ok(Contest { subject, arms, meter: Meter::connect(database).await? })
}

/// Has all runs claimed once more, by claimers who go on until nothing is left.
pub(super) async fn witness(ground: &Ground<'_>) -> Result<Vec<Section>> {
    let mut conn = ground.database.connect().await?;
    refill(&mut conn).await?;
    let mut shares = ours::until_empty(ground.database).await?;
    let counts: Vec<_> = shares.iter().map(|share| float(share.len())).collect();
    let mut all = shares.concat();
    let answered = all.len();
    all.sort_unstable();
    all.dedup();
    shares.clear();
    let state = State::read(&mut conn).await?;
    let one = |value: f64| vec![value];
    let rows = vec![
        ("runs in answers", one(float(answered))),
        ("different runs in answers", one(float(all.len()))),
        ("runs in more than one answer", one(float(answered - all.len()))),
        ("runs whose fence rose more than once", one(float(usize::try_from(state.twice)?))),
        ("runs left pending", one(float(usize::try_from(state.left)?))),
        ("fewest of a claimer", one(counts.iter().copied().fold(f64::MAX, f64::min))),
        ("most of a claimer", one(counts.iter().copied().fold(0.0, f64::max))),
    ];
    let title = format!("{} runs, until nothing is left", ground.runs);
    Ok(vec![Section { title, columns: vec![format!("{CLAIMERS} claimers")], rows }])
}

#[expect(clippy::cast_precision_loss, reason = "there are far less than 2^52 runs")]
fn float(count: usize) -> f64 {
    count as f64
}

fn worker(number: u32) -> WorkerId {
    WorkerId::new(Uuid::from_u128(u128::from(number) + 1))
}

fn kind() -> Result<RunKind> {
    RunKind::new(KIND).context("the kind is no kind")
}

/// Makes the leases, and the runs that each round begins with.
async fn fill(conn: &mut PgConnection, runs: u64) -> Result<()> {
    let failed = "failed to fill the tables";
    let tables = "
        create table bench_runs (
            number bigint primary key,
            run_id uuid not null default gen_random_uuid(),
            owner_id uuid not null,
            worker_id uuid,
            ready_at timestamptz not null
        );
        alter table runs set (autovacuum_enabled = off);
        alter table worker_leases set (autovacuum_enabled = off);";
    sqlx::raw_sql(tables).execute(&mut *conn).await.context(failed)?;
    let numbers = "
        insert into bench_runs (number, owner_id, ready_at)
        select number, md5((number % $2)::text)::uuid,
               now() - interval '1 hour' + number * interval '1 millisecond'
        from generate_series(1, $1) as number";
    let runs = i64::try_from(runs).context("there are not so many runs")?;
    let numbers = sqlx::query(numbers).bind(runs).bind(OWNERS);
    numbers.execute(&mut *conn).await.context(failed)?;
    let workers: Vec<_> = (0..CLAIMERS).map(|number| worker(number).uuid()).collect();
    let leases = "
        insert into worker_leases (worker_id, name)
        select worker_id, 'claimer' from unnest($1::uuid[]) as worker_id";
    sqlx::query(leases).bind(workers).execute(&mut *conn).await.context(failed)?;
    original::create(conn).await
}

/// Makes all runs pending, the owners' turns one round after the other.
async fn refill(conn: &mut PgConnection) -> Result<()> {
    let failed = "failed to make the runs pending";
    sqlx::query("truncate runs cascade").execute(&mut *conn).await.context(failed)?;
    let runs = "
        insert into runs (run_id, kind, status, owner_id, version, ready_at, round)
        select run_id, $1, 'pending', owner_id, 1, ready_at, number / $2
        from bench_runs
        order by number";
    let runs = sqlx::query(runs).bind(KIND).bind(OWNERS);
    runs.execute(&mut *conn).await.context(failed)?;
    sqlx::query("vacuum analyze runs").execute(&mut *conn).await.context(failed)?;
    Ok(())
}

/// What became of the runs of a round.
#[derive(Debug)]
struct State {
    claimed: i64,
    /// Each claim raises the fence by one, from zero.
    twice: i64,
    left: i64,
}

impl State {
    async fn read(conn: &mut PgConnection) -> Result<Self> {
        let query = "
            select count(*) filter (where status = 'running' and worker_id is not null),
                   count(*) filter (where fence > 1),
                   count(*) filter (where status = 'pending')
            from runs";
        let failed = "failed to read the runs";
        let row = sqlx::query(query).fetch_one(conn).await.context(failed)?;
        let value = |index: usize| row.try_get(index).context(failed);
        Ok(Self { claimed: value(0)?, twice: value(1)?, left: value(2)? })
    }

    /// Says the same for every arm that claimed all runs once.
    fn told(&self) -> String {
        let Self { claimed, twice, left } = self;
        format!("{claimed} claimed, {twice} twice, {left} left")
    }
}
