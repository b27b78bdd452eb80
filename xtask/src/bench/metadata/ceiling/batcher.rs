//! The product's way: its batcher, its store on its pool, and its notices.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use musterbeat_core::id::AgentId;
use musterbeat_core::metadata::{Key, Sample};
use musterbeat_core::port::{Interest, Publish as _, Topic, Watch as _, Watcher};
use musterbeat_db::{PgPool, PgStore, PoolLimits};
use musterbeat_engine::metadata::{MetadataBatcher, MetadataOptions};
use musterbeat_pubsub::PgTransport;
use musterbeat_pubsub::codec::Policy;
use musterbeat_testkit::TestDatabase;
use sqlx::PgConnection;
use sqlx::postgres::PgListener;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::super::super::arm::Arm;
use super::super::super::meter::{self, Counts};
use super::super::super::notify::connected;
use super::super::super::usage::Sessions;
use super::{Cost, Round, Source, vacuum};

pub(super) const NAME: &str = "ours: the batcher";

/// Where changes of agents are told.
const CHANNEL: &str = "musterbeat_agent_0";

/// What its sessions call themselves.
const APPLICATIONS: [&str; 3] = ["musterbeat", "musterbeat listener", "musterbeat publisher"];

/// Pause of who was refused, before the same is reported again.
const PAUSE: Duration = Duration::from_millis(1);

/// After so long without a notice, all have been heard.
const SILENCE: Duration = Duration::from_millis(200);

type Samples = BTreeMap<Key, Sample>;

pub(super) struct Ours {
    conn: PgConnection,
    sessions: Sessions,
    pool: PgPool,
    transport: PgTransport,
    /// A replica hears what it tells.
    _watcher: Box<dyn Watcher>,
    ear: PgListener,
    source: Arc<Source>,
    round: Option<Round>,
    reports: Vec<(AgentId, Samples)>,
    /// The same once more, for those who are refused.
    again: Vec<Samples>,
    time: Duration,
}

impl Ours {
    pub(super) async fn new(database: &TestDatabase, source: &Arc<Source>) -> Result<Self> {
        let url = database.url();
        let pool = opened(url).await?;
        let transport = connected(url, Policy::DEFAULT).await?;
        let watcher = transport.watch(Topic::Agent, Interest::All).await?;
        let mut ear = PgListener::connect(url).await.context("failed to connect a listener")?;
        ear.listen(CHANNEL).await.context("failed to listen")?;
        let (mut conn, mut sessions) = (database.connect().await?, Sessions::default());
        for application in APPLICATIONS {
            sessions.extend(Sessions::named(&mut conn, application).await?);
        }
        Ok(Self {
            conn,
            sessions,
            pool,
            transport,
            _watcher: watcher,
            ear,
            source: Arc::clone(source),
            round: None,
            reports: Vec::new(),
            again: Vec::new(),
            time: Duration::ZERO,
        })
    }

    /// Returns the bytes of payloads that were told.
    async fn heard(&mut self) -> Result<u64> {
        let mut bytes = 0;
        while let Ok(heard) = timeout(SILENCE, self.ear.recv()).await {
            bytes += heard.context("the listener lost its connection")?.payload().len() as u64;
        }
        Ok(bytes)
    }
}

/// Opens all connections of a pool: none is opened while a round runs, and each is accounted for.
async fn opened(url: &str) -> Result<PgPool> {
    let limits = PoolLimits::default();
    let pool = musterbeat_db::connect(url, &limits).await?;
    let mut open = Vec::new();
    for _ in 0..limits.connections_max {
        open.push(pool.acquire().await.context("failed to open the pool")?);
    }
    Ok(pool)
}

#[async_trait]
impl Arm for Ours {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn prepare(&mut self) -> Result<()> {
        let round = self.source.round();
        self.reports = round.reports().collect();
        self.again = self.reports.iter().map(|(_, samples)| samples.clone()).collect();
        self.round = Some(round);
        vacuum(&mut self.conn).await
    }

    async fn run(&mut self) -> Result<Counts> {
        let store = Arc::new(PgStore::new(self.pool.clone()));
        let publish = Arc::new(self.transport.clone());
        let mut cost = Cost::begin(&self.sessions)?;
        let start = Instant::now();
        let batcher = MetadataBatcher::new(store, publish, MetadataOptions::DEFAULT);
        let end = CancellationToken::new();
        let run = tokio::spawn(batcher.clone().run(end.clone()));
        for ((agent, samples), again) in self.reports.drain(..).zip(&mut self.again) {
            let mut refused = batcher.report(agent, samples);
            while !refused.is_empty() {
                cost.refused += refused.len() as u64;
                sleep(PAUSE).await;
                let missing = refused.iter().filter_map(|key| again.remove_entry(key));
                let missing: Samples = missing.collect();
                // Whoever is refused once more has it still.
                again.clone_from(&missing);
                refused = batcher.report(agent, missing);
            }
        }
        end.cancel();
        let unsaved = run.await.context("the batcher broke off")?;
        self.transport.flush().await.context("failed to publish")?;
        self.time = start.elapsed();
        cost.end(&self.sessions)?;
        ensure!(unsaved == 0, "{unsaved} values were not saved");
        cost.bytes_told = self.heard().await?;
        Ok(cost.counts())
    }

    fn time(&self) -> Option<Duration> {
        Some(self.time)
    }

    async fn settle(&mut self) -> Result<()> {
        let mut conns = Vec::new();
        for _ in 0..self.pool.size() {
            let mut conn = self.pool.acquire().await.context("the pool has ended")?;
            meter::settle(&mut conn).await?;
            conns.push(conn);
        }
        Ok(())
    }

    async fn digest(&mut self) -> Result<String> {
        self.round.take().context("there was no round")?.digest(&mut self.conn).await
    }
}
