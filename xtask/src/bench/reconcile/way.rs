//! Ways of supplying pools, as arms of a contest.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use async_trait::async_trait;
use musterbeat_core::port::PrebuildLead;
use musterbeat_core::prebuild::concurrency;
use musterbeat_db::{PgPrebuildLead, PgStore, PoolLimits};
use musterbeat_engine::prebuild::{INTERVAL, LOOKBACK};
use musterbeat_testkit::TestDatabase;
use sqlx::{PgConnection, PgPool};
use tokio::sync::Mutex as Held;

use super::super::arm::Arm;
use super::super::meter::Counts;
use super::former::Original;
use super::ours::Ours;
use super::watch::{Others, Peaks, Sampler, Waits};
use super::{Load, stage};

/// Connections of a pool, as many as the original's has.
const POOL: u32 = 10;

/// Looks of a leader before anything is measured: after five of them PostgreSQL may settle on a
/// plan for all that follow, and a leader lives for days.
const LOOKS: u32 = 10;

/// For so long others are watched beside cycles that have nothing to do, which follow each other
/// without a pause.
const IDLE_CYCLES: Duration = Duration::from_millis(300);

/// Nobody is to fail for want of a connection: how long they wait is what is measured.
const PATIENCE: Duration = Duration::from_mins(5);

pub(super) const ORIGINAL: &str = "the original: a held look, one by one";
pub(super) const OURS: &str = "ours: 5 presets at once";
pub(super) const UNLIMITED: &str = "ours without a limit";

/// One look at all pools, and what follows from it.
#[async_trait]
pub(super) trait Cycle: Send + Sync {
    /// Returns how many presets were worked on.
    async fn cycle(&self) -> Result<u64>;
}

/// A way of supplying pools, with a pool of connections of its own. Clones share it.
#[derive(Clone)]
pub(super) struct Way(Arc<Shared>);

struct Shared {
    name: &'static str,
    load: Load,
    cycle: Box<dyn Cycle>,
    pool: PgPool,
    /// Of the same pool, for others than those who supply.
    store: PgStore,
    /// One that works on the tables, and one that looks on.
    conn: Held<PgConnection>,
    looking: Held<Option<PgConnection>>,
    seen: Mutex<Seen>,
}

/// What was seen in the rounds so far, and how long the last one took.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seen {
    pub(super) peaks: Peaks,
    pub(super) presets: u64,
    time: Duration,
}

/// Ways that share the lead of one database.
pub(super) struct Ways {
    pub(super) all: Vec<Way>,
    /// How long a leader's first look takes, with connecting.
    pub(super) first_look: Duration,
    lead: Arc<PgPrebuildLead>,
}

impl Ways {
    /// Returns the original's way and then ours; `url` is that of the database or leads to it.
    pub(super) async fn new(database: &TestDatabase, url: &str, load: Load) -> Result<Self> {
        let lead = PgPrebuildLead::new(url, INTERVAL).context("the URL is none")?;
        let lead = Arc::new(lead);
        let start = Instant::now();
        lead.snapshot(LOOKBACK).await.context("the lead does not answer")?;
        let first_look = start.elapsed();
        for _ in 1..LOOKS {
            lead.snapshot(LOOKBACK).await.context("the lead does not answer")?;
        }
        let presets = NonZeroU32::new(load.presets()).unwrap_or(NonZeroU32::MIN);
        let mut all = Vec::new();
        for (name, at_once) in
            [(ORIGINAL, None), (OURS, Some(concurrency(POOL))), (UNLIMITED, Some(presets))]
        {
            let pool = connected(url, name).await?;
            let cycle: Box<dyn Cycle> = match at_once {
                None => Box::new(Original::new(&pool)),
                Some(at_once) => {
                    let lead = Arc::clone(&lead) as Arc<dyn PrebuildLead>;
                    Box::new(Ours::new(&pool, lead, at_once))
                }
            };
            all.push(Way(Arc::new(Shared {
                name,
                load,
                cycle,
                store: PgStore::new(pool.clone()),
                pool,
                conn: Held::new(database.connect().await?),
                looking: Held::new(Some(database.connect().await?)),
                seen: Mutex::default(),
            })));
        }
        Ok(Self { all, first_look, lead })
    }

    /// Ends them, so that others may lead in the same database.
    pub(super) async fn end(self) {
        self.lead.resign().await;
        for way in self.all {
            way.0.pool.close().await;
        }
    }
}

/// Connects a pool that calls itself `name`, and has it open all of its connections.
async fn connected(url: &str, name: &str) -> Result<PgPool> {
    let limits = PoolLimits {
        connections_max: POOL,
        acquire_timeout: PATIENCE,
        application_name: name.to_owned(),
        idle_in_transaction_timeout: PATIENCE,
        ..PoolLimits::default()
    };
    let failed = "a pool could not connect";
    let pool = musterbeat_db::connect(url, &limits).await.context(failed)?;
    let mut all = Vec::new();
    for _ in 0..POOL {
        all.push(pool.acquire().await.context(failed)?);
    }
    drop(all);
    Ok(pool)
}

impl Way {
    pub(super) fn name(&self) -> &'static str {
        self.0.name
    }

    pub(super) fn seen(&self) -> Seen {
        *self.0.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes away what was ordered, where anything is.
    pub(super) async fn clear(&self) -> Result<()> {
        if self.0.load.wanted() == 0 {
            return Ok(());
        }
        stage::clear(&mut *self.0.conn.lock().await).await
    }

    /// Looks once and does what is to be done; returns for how many presets.
    pub(super) async fn cycle(&self) -> Result<u64> {
        self.0.cycle.cycle().await
    }

    /// Does the same while others use the pool; returns how long they waited.
    pub(super) async fn cycle_among_others(&self) -> Result<Waits> {
        self.clear().await?;
        let others = Others::start(&self.0.pool, &self.0.store);
        let began = Instant::now();
        let mut done = self.cycle().await;
        while self.0.load.wanted() == 0 && done.is_ok() && began.elapsed() < IDLE_CYCLES {
            done = self.cycle().await;
        }
        let waits = others.stop().await?;
        done?;
        self.check().await?;
        Ok(waits)
    }

    /// Lets others use the pool while nobody supplies anything.
    pub(super) async fn others_alone(&self, time: Duration) -> Result<Waits> {
        let others = Others::start(&self.0.pool, &self.0.store);
        tokio::time::sleep(time).await;
        others.stop().await
    }

    /// Says what was ordered, which is all that was wanted.
    pub(super) async fn check(&self) -> Result<String> {
        stage::ordered(&mut *self.0.conn.lock().await, self.0.load).await
    }
}

#[async_trait]
impl Arm for Way {
    fn name(&self) -> &'static str {
        self.0.name
    }

    async fn prepare(&mut self) -> Result<()> {
        self.clear().await
    }

    async fn run(&mut self) -> Result<Counts> {
        let shared = &*self.0;
        let conn = shared.looking.lock().await.take().context("nobody looks on any more")?;
        let sampler = Sampler::start(shared.pool.clone(), conn, shared.name);
        let start = Instant::now();
        let done = self.cycle().await;
        let time = start.elapsed();
        let (peaks, conn) = sampler.stop().await?;
        *shared.looking.lock().await = Some(conn);
        let mut seen = shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.peaks.add(peaks);
        (seen.presets, seen.time) = (done?, time);
        Ok(Counts::default())
    }

    fn time(&self) -> Option<Duration> {
        Some(self.seen().time)
    }

    async fn digest(&mut self) -> Result<String> {
        self.check().await
    }
}
