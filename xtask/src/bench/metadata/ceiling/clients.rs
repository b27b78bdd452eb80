//! Clients without a batcher: the product's statement, the original's batch, and single writes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use async_trait::async_trait;
use musterbeat_core::port::KeyedSample;
use musterbeat_db::agent_metadata;
use musterbeat_pubsub::codec::original;
use musterbeat_testkit::TestDatabase;
use serde_json::json;
use sqlx::postgres::PgArguments;
use sqlx::query::Query;
use sqlx::{AssertSqlSafe, PgConnection, Postgres};
use time::OffsetDateTime;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::super::super::arm::Arm;
use super::super::super::meter::{self, Counts};
use super::super::super::usage::Sessions;
use super::{AGENTS, BATCH, Cost, KEYS, Round, Source, hash, vacuum};

pub(super) const BARE: &str = "bare client: our statement";

/// What the original writes in one statement.
const ORIGINAL_BATCH: usize = 500;

/// Connections of who writes each report by itself: those of the original's pool.
const WRITERS: usize = 10;

/// The original's batch.
const UPDATE: &str = "
    with given as (
        select unnest($1::uuid[]) as agent_id, unnest($2::text[]) as key,
               unnest($3::text[]) as value, unnest($4::text[]) as error,
               unnest($5::timestamptz[]) as collected_at
    )
    update agent_metadata as stored
    set value = given.value, error = given.error, collected_at = given.collected_at
    from given
    where stored.agent_id = given.agent_id and stored.key = given.key";

const NOTIFY: &str = "select pg_notify($1, $2)";

/// Rows as a statement takes them.
#[derive(Default)]
struct Columns {
    agents: Vec<Uuid>,
    keys: Vec<String>,
    values: Vec<String>,
    errors: Vec<String>,
    times: Vec<OffsetDateTime>,
}

impl Columns {
    fn of(rows: impl IntoIterator<Item = KeyedSample>) -> Self {
        let mut columns = Self::default();
        for ((agent, key), sample) in rows {
            columns.agents.push(agent.uuid());
            columns.keys.push(key.as_str().to_owned());
            columns.values.push(sample.value);
            columns.errors.push(sample.error);
            columns.times.push(sample.collected_at.time());
        }
        columns
    }

    fn bind<'q>(
        &'q self,
        query: Query<'q, Postgres, PgArguments>,
    ) -> Query<'q, Postgres, PgArguments> {
        let Self { agents, keys, values, errors, times } = self;
        query.bind(agents).bind(keys).bind(values).bind(errors).bind(times)
    }

    /// Returns the agents, each once.
    fn named(&self) -> Vec<Uuid> {
        let mut named = self.agents.clone();
        named.sort_unstable();
        named.dedup();
        named
    }
}

/// The product's statement, sent by a client that does nothing else.
pub(super) struct Bare {
    conn: PgConnection,
    sessions: Sessions,
    statement: Arc<str>,
    source: Arc<Source>,
    round: Option<Round>,
    batches: Vec<Columns>,
}

impl Bare {
    pub(super) async fn new(database: &TestDatabase, source: &Arc<Source>) -> Result<Self> {
        let mut conn = database.connect().await?;
        let sessions = Sessions::of(&mut conn).await?;
        let statement = statement(&mut conn).await?.into();
        let (source, batches) = (Arc::clone(source), Vec::new());
        Ok(Self { conn, sessions, statement, source, round: None, batches })
    }
}

/// Returns the text of the product's write, as its session has prepared it.
async fn statement(conn: &mut PgConnection) -> Result<String> {
    agent_metadata::write(conn, &[]).await.context("failed to write")?;
    let query = "
        select statement from pg_prepared_statements
        where statement ~ 'insert into agent_metadata' and statement !~ 'pg_prepared_statements'";
    let texts: Vec<String> = sqlx::query_scalar(query)
        .fetch_all(conn)
        .await
        .context("failed to ask the session for its statements")?;
    match &texts[..] {
        [text] => Ok(text.clone()),
        _ => bail!("the write is {} statements: mend the benchmark", texts.len()),
    }
}

#[async_trait]
impl Arm for Bare {
    fn name(&self) -> &'static str {
        BARE
    }

    async fn prepare(&mut self) -> Result<()> {
        let round = self.source.round();
        let rows: Vec<_> = round.rows().collect();
        self.batches.clear();
        for batch in rows.chunks(BATCH) {
            let mut batch = batch.to_vec();
            batch.sort_by(|(one, _), (other, _)| one.cmp(other));
            self.batches.push(Columns::of(batch));
        }
        self.round = Some(round);
        vacuum(&mut self.conn).await
    }

    async fn run(&mut self) -> Result<Counts> {
        let (mut cost, mut changed) = (Cost::begin(&self.sessions)?, 0);
        for batch in &self.batches {
            let text = AssertSqlSafe(Arc::clone(&self.statement));
            let rows = batch.bind(sqlx::query(text)).fetch_all(&mut self.conn).await;
            changed += rows.context("failed to write")?.len();
        }
        cost.end(&self.sessions)?;
        ensure!(AGENTS <= changed, "{changed} agents were changed, of {AGENTS}");
        Ok(cost.counts())
    }

    async fn settle(&mut self) -> Result<()> {
        meter::settle(&mut self.conn).await
    }

    async fn digest(&mut self) -> Result<String> {
        self.round.take().context("there was no round")?.digest(&mut self.conn).await
    }
}

/// The original's batch: rows in the order of a hash map, and a notification after it.
pub(super) struct Original {
    conn: PgConnection,
    sessions: Sessions,
    source: Arc<Source>,
    round: Option<Round>,
    batches: Vec<Columns>,
}

impl Original {
    pub(super) async fn new(database: &TestDatabase, source: &Arc<Source>) -> Result<Self> {
        let mut conn = database.connect().await?;
        let sessions = Sessions::of(&mut conn).await?;
        let (source, batches) = (Arc::clone(source), Vec::new());
        Ok(Self { conn, sessions, source, round: None, batches })
    }
}

#[async_trait]
impl Arm for Original {
    fn name(&self) -> &'static str {
        "the original: batches of 500"
    }

    async fn prepare(&mut self) -> Result<()> {
        let round = self.source.round();
        let rows: Vec<_> = round.rows().collect();
        self.batches.clear();
        for batch in rows.chunks(ORIGINAL_BATCH) {
            let mut batch = batch.to_vec();
            batch.sort_by_key(|(key, _)| hash((round.number, key)));
            self.batches.push(Columns::of(batch));
        }
        self.round = Some(round);
        vacuum(&mut self.conn).await
    }

    async fn run(&mut self) -> Result<Counts> {
        let mut cost = Cost::begin(&self.sessions)?;
        for batch in &self.batches {
            let update = batch.bind(sqlx::query(UPDATE)).execute(&mut self.conn).await;
            update.context("failed to write")?;
            for payload in original::encode(&batch.named()) {
                cost.bytes_told += payload.len() as u64;
                let notify = sqlx::query(NOTIFY).bind(original::CHANNEL).bind(payload);
                notify.execute(&mut self.conn).await.context("failed to notify")?;
            }
        }
        cost.end(&self.sessions)?;
        Ok(cost.counts())
    }

    async fn settle(&mut self) -> Result<()> {
        meter::settle(&mut self.conn).await
    }

    async fn digest(&mut self) -> Result<String> {
        self.round.take().context("there was no round")?.digest(&mut self.conn).await
    }
}

/// A write and a notification a report, as they come: the original before it had batches.
pub(super) struct Single {
    conns: Vec<PgConnection>,
    sessions: Sessions,
    conn: PgConnection,
    source: Arc<Source>,
    round: Option<Round>,
    /// What each of the connections writes.
    shares: Vec<Vec<Columns>>,
    time: Duration,
}

impl Single {
    pub(super) async fn new(database: &TestDatabase, source: &Arc<Source>) -> Result<Self> {
        let (mut conns, mut sessions) = (Vec::new(), Sessions::default());
        for _ in 0..WRITERS {
            let mut conn = database.connect().await?;
            sessions.extend(Sessions::of(&mut conn).await?);
            conns.push(conn);
        }
        let (conn, source) = (database.connect().await?, Arc::clone(source));
        let (shares, time) = (Vec::new(), Duration::ZERO);
        Ok(Self { conns, sessions, conn, source, round: None, shares, time })
    }
}

#[async_trait]
impl Arm for Single {
    fn name(&self) -> &'static str {
        "single: a write and a NOTIFY a report"
    }

    async fn prepare(&mut self) -> Result<()> {
        let round = self.source.round();
        let rows: Vec<_> = round.rows().collect();
        self.shares = (0..WRITERS).map(|_| Vec::new()).collect();
        for (place, report) in rows.chunks(KEYS).enumerate() {
            self.shares[place % WRITERS].push(Columns::of(report.to_vec()));
        }
        self.round = Some(round);
        vacuum(&mut self.conn).await
    }

    async fn run(&mut self) -> Result<Counts> {
        let mut cost = Cost::begin(&self.sessions)?;
        let start = Instant::now();
        let mut writers = JoinSet::new();
        for (conn, share) in self.conns.drain(..).zip(self.shares.drain(..)) {
            writers.spawn(write_each(conn, share));
        }
        while let Some(writer) = writers.join_next().await {
            let (conn, told) = writer.context("a writer's task broke off")??;
            self.conns.push(conn);
            cost.bytes_told += told;
        }
        self.time = start.elapsed();
        cost.end(&self.sessions)?;
        Ok(cost.counts())
    }

    fn time(&self) -> Option<Duration> {
        Some(self.time)
    }

    async fn settle(&mut self) -> Result<()> {
        for conn in &mut self.conns {
            meter::settle(conn).await?;
        }
        Ok(())
    }

    async fn digest(&mut self) -> Result<String> {
        self.round.take().context("there was no round")?.digest(&mut self.conn).await
    }
}

/// Writes reports one by one, and tells of each on its agent's channel; returns the bytes told.
async fn write_each(mut conn: PgConnection, reports: Vec<Columns>) -> Result<(PgConnection, u64)> {
    let mut bytes = 0;
    for report in reports {
        let update = report.bind(sqlx::query(UPDATE)).execute(&mut conn).await;
        update.context("failed to write")?;
        let (agent, at) = (report.agents[0], report.times[0].to_string());
        let payload = json!({ "collected_at": at, "keys": report.keys }).to_string();
        bytes += payload.len() as u64;
        let channel = format!("workspace_agent_metadata:{agent}");
        let notify = sqlx::query(NOTIFY).bind(channel).bind(payload);
        notify.execute(&mut conn).await.context("failed to notify")?;
    }
    Ok((conn, bytes))
}
