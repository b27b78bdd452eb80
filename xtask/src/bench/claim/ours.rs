//! The product's claim, on connections of its own and through its port.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use musterbeat_core::port::{Room, RunStore as _};
use musterbeat_db::{PgPool, PgStore, PoolLimits, runs};
use musterbeat_testkit::TestDatabase;
use sqlx::{Connection as _, PgConnection};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::super::arm::Arm;
use super::super::meter::Counts;
use super::{BATCH, CLAIMERS, State, kind, refill, worker};

/// `runs::claim`, a connection a claimer.
pub(super) struct Direct {
    url: String,
    /// Claims of each claimer.
    claims: u32,
    conn: PgConnection,
    conns: Vec<PgConnection>,
    answered: Vec<Uuid>,
    time: Duration,
}

impl Direct {
    pub(super) async fn new(database: &TestDatabase, claims: u32) -> Result<Self> {
        let conn = database.connect().await?;
        let (url, conns, answered) = (database.url().to_owned(), Vec::new(), Vec::new());
        Ok(Self { url, claims, conn, conns, answered, time: Duration::ZERO })
    }
}

#[async_trait]
impl Arm for Direct {
    fn name(&self) -> &'static str {
        "ours: runs::claim"
    }

    /// Connections are new in each round, as those of `pgbench` are.
    async fn prepare(&mut self) -> Result<()> {
        refill(&mut self.conn).await?;
        self.conns = connections(&self.url).await?;
        Ok(())
    }

    async fn run(&mut self) -> Result<Counts> {
        let claims = self.claims;
        let start = Instant::now();
        let mut tasks = JoinSet::new();
        for (number, conn) in (0..).zip(self.conns.drain(..)) {
            tasks.spawn(claim(conn, number, Some(claims)));
        }
        self.answered = joined(tasks).await?.concat();
        self.time = start.elapsed();
        Ok(Counts::default())
    }

    fn time(&self) -> Option<Duration> {
        Some(self.time)
    }

    async fn digest(&mut self) -> Result<String> {
        digest(&mut self.conn, std::mem::take(&mut self.answered)).await
    }
}

/// Opens a connection for each claimer.
pub(super) async fn connections(url: &str) -> Result<Vec<PgConnection>> {
    let mut conns = Vec::new();
    for _ in 0..CLAIMERS {
        conns.push(PgConnection::connect(url).await.context("failed to connect a claimer")?);
    }
    Ok(conns)
}

/// Claims so many times, or until an answer is empty; returns the runs of the answers.
async fn claim(mut conn: PgConnection, number: u32, claims: Option<u32>) -> Result<Vec<Uuid>> {
    let (kind, mut answered, mut left) = (kind()?, Vec::new(), claims);
    while left != Some(0) {
        let claimed = runs::claim(&mut conn, worker(number), &kind, BATCH.get(), None).await;
        let claimed = claimed.context("failed to claim")?;
        if claims.is_none() && claimed.is_empty() {
            break;
        }
        answered.extend(claimed.iter().map(|claimed| claimed.run.id.uuid()));
        left = left.map(|left| left - 1);
    }
    Ok(answered)
}

/// Has all claimers go on until nothing is left; returns what each got.
pub(super) async fn until_empty(database: &TestDatabase) -> Result<Vec<Vec<Uuid>>> {
    let mut tasks = JoinSet::new();
    for number in 0..CLAIMERS {
        tasks.spawn(claim(database.connect().await?, number, None));
    }
    joined(tasks).await
}

/// `RunStore::claim` on the product's pool, as a worker calls it.
pub(super) struct Pooled {
    url: String,
    claims: u32,
    conn: PgConnection,
    pool: Option<PgPool>,
    answered: Vec<Uuid>,
    time: Duration,
}

impl Pooled {
    pub(super) async fn new(database: &TestDatabase, claims: u32) -> Result<Self> {
        let conn = database.connect().await?;
        let (url, answered) = (database.url().to_owned(), Vec::new());
        Ok(Self { url, claims, conn, pool: None, answered, time: Duration::ZERO })
    }
}

#[async_trait]
impl Arm for Pooled {
    fn name(&self) -> &'static str {
        "ours: the port, on the pool"
    }

    async fn prepare(&mut self) -> Result<()> {
        refill(&mut self.conn).await?;
        let limits = PoolLimits { connections_max: CLAIMERS, ..PoolLimits::default() };
        let pool = musterbeat_db::connect(&self.url, &limits).await?;
        // Opened before the round, as those of the other arms are.
        let mut open = Vec::new();
        for _ in 0..CLAIMERS {
            open.push(pool.acquire().await.context("failed to open the pool")?);
        }
        drop(open);
        self.pool = Some(pool);
        Ok(())
    }

    async fn run(&mut self) -> Result<Counts> {
        let pool = self.pool.clone().context("there is no pool")?;
        let (store, claims) = (PgStore::new(pool), self.claims);
        let start = Instant::now();
        let mut tasks = JoinSet::new();
        for number in 0..CLAIMERS {
            let store = store.clone();
            tasks.spawn(async move {
                let (kind, mut answered) = (kind()?, Vec::new());
                for _ in 0..claims {
                    let claimed = store.claim(worker(number), &kind, Room::of(BATCH.get())).await?;
                    answered.extend(claimed.iter().map(|run| run.id.uuid()));
                }
                Ok(answered)
            });
        }
        self.answered = joined(tasks).await?.concat();
        self.time = start.elapsed();
        Ok(Counts::default())
    }

    fn time(&self) -> Option<Duration> {
        Some(self.time)
    }

    /// Sessions account for the rest of their work when they end.
    async fn settle(&mut self) -> Result<()> {
        if let Some(pool) = self.pool.take() {
            pool.close().await;
        }
        Ok(())
    }

    async fn digest(&mut self) -> Result<String> {
        digest(&mut self.conn, std::mem::take(&mut self.answered)).await
    }
}

/// Waits for all claimers; returns what each got.
pub(super) async fn joined(mut tasks: JoinSet<Result<Vec<Uuid>>>) -> Result<Vec<Vec<Uuid>>> {
    let mut shares = Vec::new();
    while let Some(share) = tasks.join_next().await {
        shares.push(share.context("a claimer's task broke off")??);
    }
    Ok(shares)
}

/// Says what became of the runs, once the answers agree with the table.
async fn digest(conn: &mut PgConnection, mut answered: Vec<Uuid>) -> Result<String> {
    let state = State::read(conn).await?;
    let all = answered.len();
    answered.sort_unstable();
    answered.dedup();
    ensure!(answered.len() == all, "{} runs were claimed twice", all - answered.len());
    ensure!(i64::try_from(all) == Ok(state.claimed), "{all} runs in answers: {}", state.told());
    Ok(state.told())
}
