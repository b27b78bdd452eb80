//! How fast rows can be written: the product's way, and others that do the same work.
//!
//! All arms write to the product's own tables. Each round gives every key of every agent another
//! value, and no two rounds the same one.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher as _};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use musterbeat_core::id::AgentId;
use musterbeat_core::metadata::{Key, Sample};
use musterbeat_core::port::KeyedSample;
use musterbeat_core::timestamp::Timestamp;
use musterbeat_db::agent_metadata;
use musterbeat_testkit::TestDatabase;
use sqlx::{PgConnection, Row};
use time::OffsetDateTime;
use uuid::Uuid;

use super::super::arm::{Arm, Contest, Subject};
use super::super::meter::{Counts, Meter};
use super::super::report::{Report, Section};
use super::super::usage::{self, Sessions, micros};
use super::super::{Output, ROUNDS, report_on};
use super::{QUESTION, key, mark, stage, value};

mod batcher;
mod clients;

const AGENTS: usize = 10_000;
const KEYS: usize = 15;

/// What the product writes in one statement.
const BATCH: usize = 5_000;

/// Ours is at least so many times as fast as the bare client, and writes so many rows a second.
const SHARE_MIN: f64 = 0.7;
const ROWS_PER_SECOND_MIN: f64 = 80_000.0;

/// Vacuum would work in some rounds and not in others; each round begins after one instead.
const TABLE: &str = "alter table agent_metadata set (autovacuum_enabled = off)";

/// Runs the arms alternately.
pub(super) async fn run(database: &TestDatabase, rounds: Option<NonZeroUsize>) -> Result<Output> {
    let mut contest = prepare(database).await?;
    let rounds = rounds.unwrap_or(ROUNDS);
    let name = "metadata-ceiling".to_owned();
    let mut report = report_on(name, QUESTION, &mut contest, rounds).await?;
    let (section, violations) = compared(&report);
    report.sections.push(section);
    Ok(Output { violations, ..Output::of(&report)? })
}

/// Builds the tables and the arms; the first one is what the server can do.
async fn prepare(database: &TestDatabase) -> Result<Contest> {
    let mut conn = database.connect().await?;
    sqlx::raw_sql(TABLE).execute(&mut conn).await.context("failed to set up the table")?;
    let agents = stage::fill(&mut conn, AGENTS, KEYS).await?;
    let keys = (0..KEYS).map(|number| Key::new(key(number))).collect::<Result<_, _>>()?;
    let source = Arc::new(Source { agents, keys, rounds: AtomicU64::new(0) });
    // As the agents' first reports come to lie when the product writes them.
    let first: Vec<KeyedSample> = source.round().rows().collect();
    for batch in first.chunks(BATCH) {
        let mut batch = batch.to_vec();
        batch.sort_by(|(one, _), (other, _)| one.cmp(other));
        agent_metadata::write(&mut conn, &batch).await.context("failed to fill the table")?;
    }
    let arms: Vec<Box<dyn Arm>> = vec![
        Box::new(clients::Bare::new(database, &source).await?),
        Box::new(batcher::Ours::new(database, &source).await?),
        Box::new(clients::Original::new(database, &source).await?),
        Box::new(clients::Single::new(database, &source).await?),
    ];
    let subject = Subject { unit: "row", count: (AGENTS * KEYS) as u64, size: None };
    Ok(Contest { subject, arms, meter: Meter::connect(database).await? })
}

/// Compares ours with what is asked for; returns what is missed, too.
///
/// Where the bare client alone does not write as many rows a second, the machine is too slow or
/// too busy to tell of ours.
fn compared(report: &Report) -> (Section, Vec<String>) {
    let rate = |name| {
        let arm = report.arms.iter().find(|arm| arm.name == name);
        arm.map_or((0.0, 0.0), |arm| (arm.speed.median, report.rate(arm)))
    };
    let ((share, ours), (_, bare)) = (rate(batcher::NAME), rate(clients::BARE));
    let mut missed = Vec::new();
    if share < SHARE_MIN {
        missed
            .push(format!("ours is {share:.2} times as fast as the bare client, not {SHARE_MIN}"));
    }
    if ours < ROWS_PER_SECOND_MIN && ROWS_PER_SECOND_MIN <= bare {
        missed.push(format!("ours writes {ours:.0} rows a second, not {ROWS_PER_SECOND_MIN}"));
    }
    let rows = vec![
        ("of the bare client's speed", vec![share, SHARE_MIN]),
        ("rows a second", vec![ours.round(), ROWS_PER_SECOND_MIN]),
    ];
    let columns = ["ours", "asked for"].map(str::to_owned).to_vec();
    (Section { title: "what is asked for".to_owned(), columns, rows }, missed)
}

/// Where rows come from.
struct Source {
    agents: Vec<Uuid>,
    keys: Vec<Key>,
    rounds: AtomicU64,
}

/// The rows of a round.
struct Round {
    source: Arc<Source>,
    number: u64,
    /// In which the agents report.
    order: Vec<usize>,
    collected_at: Timestamp,
}

impl Source {
    /// Begins a round that gives every key another value.
    fn round(self: &Arc<Self>) -> Round {
        let number = self.rounds.fetch_add(1, Ordering::Relaxed) + 1;
        let mut order: Vec<_> = (0..self.agents.len()).collect();
        order.sort_by_key(|agent| hash((number, agent)));
        let now = OffsetDateTime::now_utc();
        // As exact as the database stores it.
        let collected_at = Timestamp::new(now.truncate_to_microsecond());
        Round { source: Arc::clone(self), number, order, collected_at }
    }
}

impl Round {
    /// Returns each agent with what it reports, in the order in which they report.
    fn reports(&self) -> impl Iterator<Item = (AgentId, BTreeMap<Key, Sample>)> {
        self.order.iter().map(|agent| {
            let keys = self.source.keys.iter().enumerate();
            let samples = keys.map(|(place, key)| (key.clone(), self.sample(*agent, place)));
            (AgentId::new(self.source.agents[*agent]), samples.collect())
        })
    }

    fn rows(&self) -> impl Iterator<Item = KeyedSample> {
        self.reports().flat_map(|(agent, samples)| {
            samples.into_iter().map(move |(key, sample)| ((agent, key), sample))
        })
    }

    fn sample(&self, agent: usize, key: usize) -> Sample {
        let value = value(agent, key, self.number);
        Sample { value, error: String::new(), collected_at: self.collected_at }
    }

    /// Says what is stored, the same after each round that stored all of its values.
    async fn digest(&self, conn: &mut PgConnection) -> Result<String> {
        let query = "
            select
                count(*) filter (where value like '%' || $1 || '%' and collected_at = $2),
                md5(string_agg(
                    concat_ws(',', agent_id, key, replace(value, $1, ''), error), ';'
                    order by agent_id, key
                ))
            from agent_metadata";
        let failed = "failed to read what is stored";
        let row = sqlx::query(query)
            .bind(mark(self.number))
            .bind(self.collected_at.time())
            .fetch_one(conn)
            .await
            .context(failed)?;
        let count: i64 = row.try_get(0).context(failed)?;
        let all = AGENTS * KEYS;
        ensure!(usize::try_from(count) == Ok(all), "stored {count} values of {all}");
        row.try_get(1).context(failed)
    }
}

/// What a round cost, but for what the server counts; the same things for each arm.
struct Cost {
    /// Processor time of the arm's sessions, and of this program.
    server: Duration,
    client: Duration,
    bytes_told: u64,
    /// Keys for which there was no room at first.
    refused: u64,
}

impl Cost {
    /// Begins with what was used up to now.
    fn begin(sessions: &Sessions) -> Result<Self> {
        let (server, client) = (sessions.used(), usage::own()?);
        Ok(Self { server, client, bytes_told: 0, refused: 0 })
    }

    /// Ends with what was used since.
    fn end(&mut self, sessions: &Sessions) -> Result<()> {
        self.server = sessions.used().saturating_sub(self.server);
        self.client = usage::own()?.saturating_sub(self.client);
        Ok(())
    }

    fn counts(&self) -> Counts {
        Counts(vec![
            ("server CPU us", micros(self.server)),
            ("client CPU us", micros(self.client)),
            ("bytes of NOTIFY payloads", self.bytes_told),
            ("keys refused for a moment", self.refused),
        ])
    }
}

/// Brings the table into the state from which a round begins.
async fn vacuum(conn: &mut PgConnection) -> Result<()> {
    let vacuum = sqlx::query("vacuum analyze agent_metadata").execute(conn).await;
    vacuum.context("failed to vacuum the table")?;
    Ok(())
}

/// Orders things at random, and the same way in each run.
fn hash(of: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}
