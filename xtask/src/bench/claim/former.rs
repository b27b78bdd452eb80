//! The original's claim, from its wide table of chats.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use async_trait::async_trait;
use musterbeat_testkit::TestDatabase;
use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::super::arm::Arm;
use super::super::meter::Counts;
use super::super::original;
use super::ours::{connections, joined};
use super::{CLAIMERS, State, worker};

/// The form of the original, which returns whole rows.
const CLAIM: &str = "
    update bench_chats
    set status = 'running', started_at = $1, heartbeat_at = $1, updated_at = $1, worker_id = $2
    where id = any(
        select id from bench_chats
        where status = 'pending'
        order by updated_at
        for update skip locked
        limit $3::int
    )
    returning *
";

pub(super) struct Former {
    url: String,
    runs: u64,
    batch: NonZeroU32,
    conn: PgConnection,
    conns: Vec<PgConnection>,
    answered: Vec<Uuid>,
    time: Duration,
}

impl Former {
    pub(super) async fn new(database: &TestDatabase, runs: u64, batch: NonZeroU32) -> Result<Self> {
        let conn = database.connect().await?;
        let (url, conns, answered) = (database.url().to_owned(), Vec::new(), Vec::new());
        Ok(Self { url, runs, batch, conn, conns, answered, time: Duration::ZERO })
    }
}

#[async_trait]
impl Arm for Former {
    fn name(&self) -> &'static str {
        if self.batch.get() == 1 {
            "the original's first: one by one"
        } else {
            "the original: 10 at a time"
        }
    }

    async fn prepare(&mut self) -> Result<()> {
        original::fill(&mut self.conn, "pending").await?;
        self.conns = connections(&self.url).await?;
        Ok(())
    }

    async fn run(&mut self) -> Result<Counts> {
        let claims = self.runs / u64::from(self.batch.get() * CLAIMERS);
        let start = Instant::now();
        let mut tasks = JoinSet::new();
        for (number, conn) in (0..).zip(self.conns.drain(..)) {
            tasks.spawn(claim(conn, worker(number).uuid(), self.batch, claims));
        }
        self.answered = joined(tasks).await?.concat();
        self.time = start.elapsed();
        Ok(Counts::default())
    }

    fn time(&self) -> Option<Duration> {
        Some(self.time)
    }

    async fn digest(&mut self) -> Result<String> {
        let mut answered = std::mem::take(&mut self.answered);
        let all = answered.len();
        answered.sort_unstable();
        answered.dedup();
        let query = "
            select count(*) filter (where status = 'running'),
                   count(*) filter (where status = 'pending')
            from bench_chats";
        let failed = "failed to read the chats";
        let row = sqlx::query(query).fetch_one(&mut self.conn).await.context(failed)?;
        let twice = i64::try_from(all - answered.len())?;
        let (claimed, left) = (row.try_get(0).context(failed)?, row.try_get(1).context(failed)?);
        Ok(State { claimed, twice, left }.told())
    }
}

/// Claims so many times; returns the chats of the answers.
async fn claim(
    mut conn: PgConnection,
    worker: Uuid,
    batch: NonZeroU32,
    claims: u64,
) -> Result<Vec<Uuid>> {
    let batch = i32::try_from(batch.get())?;
    let mut answered = Vec::new();
    for _ in 0..claims {
        let now = time::OffsetDateTime::now_utc();
        let claim = sqlx::query(CLAIM).bind(now).bind(worker).bind(batch);
        let rows = claim.fetch_all(&mut conn).await.context("failed to claim")?;
        for row in rows {
            answered.push(id(&row)?);
        }
    }
    Ok(answered)
}

/// Decodes what an agent's turn needs first.
fn id(row: &PgRow) -> Result<Uuid> {
    row.try_get("id").context("a chat has no id")
}
