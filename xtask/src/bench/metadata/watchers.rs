//! A batch of changed agents, told to ten thousand who watch one agent each.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use musterbeat_testkit::TestDatabase;
use reqwest::StatusCode;
use serde_json::{Value, json};
use sqlx::PgConnection;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::super::calls::{self, Calls};
use super::super::replica::{Replica, Site, client};
use super::super::report::Section;
use super::super::stats::Summary;
use super::super::{Output, quiet};
use super::fleet::progress;
use super::listener::{Listener, address};
use super::{key, stage, value};

/// Agents, each of which one watches.
const AGENTS: usize = 10_000;
const KEYS: usize = 15;

/// Agents of a batch, and the keys of which each reports: together as many values as the
/// product's default writes at once, so that the last report makes the batch due.
const CHANGED: usize = 500;
const REPORTED: usize = 10;

const BATCHES: NonZeroUsize = NonZeroUsize::new(10).expect("a default is not zero");

/// What is asked for, in the worst batch.
const READS_MAX: f64 = 5.0;
const MILLIS_MAX: f64 = 1_500.0;

/// Streams that are opened at once.
const CALLERS: usize = 50;

/// Nothing here takes longer on a machine that can be measured on.
const PATIENCE: Duration = Duration::from_mins(2);

/// After so long nobody is told anything any more: a watcher is told at most once a second.
const CALM: Duration = Duration::from_millis(1_500);

/// Counts the statements and the time of a few batches.
pub(super) async fn run(
    database: &TestDatabase,
    batches: Option<NonZeroUsize>,
    logs: PathBuf,
) -> Result<Output> {
    let mut conn = database.connect().await?;
    calls::count(&mut conn).await?;
    let agents = stage::fill(&mut conn, AGENTS, KEYS).await?;
    let site = Site::prepare(database.url(), logs).await?;
    let plenty = "1000000".to_owned();
    let settings = [
        ("MUSTERBEAT_CONNECTIONS_MAX", plenty.clone()),
        ("MUSTERBEAT_CONNECTIONS_PER_ADDRESS", plenty.clone()),
        ("MUSTERBEAT_RATE_PER_SECOND", plenty.clone()),
        ("MUSTERBEAT_RATE_BURST", plenty),
        // Nothing is due until the batch is full.
        ("MUSTERBEAT_METADATA_FLUSH_INTERVAL", "1h".to_owned()),
    ];
    let replica = site.start("watchers", &settings).await?;
    let mut crowd = Crowd::gather(address(&replica)?, &agents).await?;
    let http = client()?;
    let mut found = Vec::new();
    for number in 0..=batches.unwrap_or(BATCHES).get() {
        let batch = Batch { replica: &replica, http: &http, agents: &agents, number };
        let cost = batch.measure(&mut conn, &mut crowd).await?;
        // The first one warms up.
        if 0 < number {
            found.push(cost);
        }
    }
    Ok(output(&found))
}

/// Everybody who watches.
struct Crowd {
    told: mpsc::UnboundedReceiver<Result<(usize, Instant)>>,
    _listeners: JoinSet<()>,
}

impl Crowd {
    /// Opens a stream of each agent, and waits until each has told what is known.
    async fn gather(server: SocketAddr, agents: &[Uuid]) -> Result<Self> {
        let bar = progress(agents.len() as u64, "opening streams");
        let mut callers = JoinSet::new();
        for caller in 0..CALLERS {
            let mine = agents.iter().copied().enumerate().skip(caller).step_by(CALLERS);
            let (mine, bar) = (mine.collect::<Vec<_>>(), bar.clone());
            callers.spawn(async move {
                let mut streams = Vec::new();
                for (number, agent) in mine {
                    let opened = timeout(PATIENCE, Listener::open(server, agent, None)).await;
                    streams.push((number, opened.context("a first event does not come")??));
                    bar.inc(1);
                }
                anyhow::Ok(streams)
            });
        }
        let (tell, told) = mpsc::unbounded_channel();
        let mut listeners = JoinSet::new();
        while let Some(opened) = callers.join_next().await {
            for (number, listener) in opened.context("a caller panicked")?? {
                listeners.spawn(listen(number, listener, tell.clone()));
            }
        }
        bar.finish_and_clear();
        ensure!(listeners.len() == agents.len(), "{} streams are open", listeners.len());
        Ok(Self { told, _listeners: listeners })
    }

    /// Waits until the watchers of all these have been told; returns when the first and the last
    /// was.
    async fn all_told(&mut self, mut agents: BTreeSet<usize>) -> Result<(Instant, Instant)> {
        let (mut first, mut last) = (None, None);
        while !agents.is_empty() {
            let told = timeout(PATIENCE, self.told.recv()).await;
            let told = told.with_context(|| format!("{} are never told", agents.len()))?;
            let (agent, at) = told.context("nobody watches any more")??;
            ensure!(agents.remove(&agent), "one was told twice, or of nothing");
            first = Some(first.map_or(at, |first: Instant| first.min(at)));
            last = last.max(Some(at));
        }
        first.zip(last).context("nobody was to be told")
    }
}

async fn listen(
    number: usize,
    mut listener: Listener,
    tell: mpsc::UnboundedSender<Result<(usize, Instant)>>,
) {
    loop {
        let told = match listener.next().await {
            Ok(Some(_)) => Ok((number, Instant::now())),
            Ok(None) => Err(anyhow::anyhow!("a stream ended")),
            Err(error) => Err(error),
        };
        let failed = told.is_err();
        if tell.send(told).is_err() || failed {
            return;
        }
    }
}

/// What a batch cost.
#[derive(Clone, Copy, Debug)]
struct Cost {
    /// From before the report that made it due.
    first_millis: f64,
    last_millis: f64,
    reads: f64,
    writes: f64,
    notifies: f64,
    statements: f64,
}

/// Agents that report at once.
struct Batch<'a> {
    replica: &'a Replica,
    http: &'a reqwest::Client,
    agents: &'a [Uuid],
    number: usize,
}

impl Batch<'_> {
    /// Has all report, and waits until those who watch them know.
    async fn measure(&self, conn: &mut PgConnection, crowd: &mut Crowd) -> Result<Cost> {
        let changed: Vec<_> = changed(self.number).collect();
        let Some((filling, others)) = changed.split_last() else { bail!("nobody is to report") };
        let before = Calls::read(conn).await?;
        for agent in others {
            self.report(*agent).await?;
        }
        ensure!(crowd.told.is_empty(), "a batch was written before it was full");
        let due = Instant::now();
        self.report(*filling).await?;
        let (first, last) = crowd.all_told(changed.into_iter().collect()).await?;
        sleep(CALM).await;
        ensure!(crowd.told.is_empty(), "somebody was told twice, or of nothing");
        let calls = Calls::read(conn).await?.since(&before);
        let count = |is_meant: &dyn Fn(&str) -> bool| calls::per_second(calls.sum(is_meant), 1.0);
        let millis = |at: Instant| (at - due).as_secs_f64() * 1_000.0;
        Ok(Cost {
            first_millis: millis(first),
            last_millis: millis(last),
            reads: count(&|text| text.contains("left join agent_metadata ")),
            writes: count(&|text| text.contains("insert into agent_metadata ")),
            notifies: count(&|text| text.contains("pg_notify")),
            statements: count(&|text| quiet::kind(text) != quiet::BEAT),
        })
    }

    async fn report(&self, agent: usize) -> Result<()> {
        let round = self.number as u64 + 1;
        let entry = |place| json!({ "key": key(place), "value": value(agent, place, round) });
        let entries: Vec<_> = (0..REPORTED).map(entry).collect();
        let (url, id) = (self.replica.url(), self.agents[agent]);
        let url = format!("{url}/api/v1/agents/{id}/metadata");
        let answer = self.http.post(url).json(&entries).send().await;
        let answer = answer.context("a report has no answer")?;
        ensure!(answer.status() == StatusCode::ACCEPTED, "a report: {}", answer.status());
        let answer: Value = answer.json().await.context("a report's answer is no JSON")?;
        ensure!(answer["accepted"] == json!(REPORTED), "a report was answered {answer}");
        Ok(())
    }
}

/// Returns who reports in a batch; neighbours have nobody in common, so nobody is told twice
/// within a second.
fn changed(batch: usize) -> impl Iterator<Item = usize> {
    let step = AGENTS / CHANGED;
    (batch % step..AGENTS).step_by(step)
}

fn output(found: &[Cost]) -> Output {
    let of = |value: fn(&Cost) -> f64| -> Summary {
        Summary::of(&found.iter().map(value).collect::<Vec<_>>())
    };
    let row = |value: fn(&Cost) -> f64, most: f64| vec![of(value).median, of(value).high, most];
    let nothing = f64::NAN;
    let rows = vec![
        ("reads of what changed", row(|cost| cost.reads, READS_MAX)),
        ("writes of values", row(|cost| cost.writes, nothing)),
        ("NOTIFY", row(|cost| cost.notifies, nothing)),
        ("all statements but the beats", row(|cost| cost.statements, nothing)),
        ("ms until the first watcher knows", row(|cost| cost.first_millis, nothing)),
        ("ms until the last watcher knows", row(|cost| cost.last_millis, MILLIS_MAX)),
    ];
    let section = Section {
        title: format!("{CHANGED} of {AGENTS} watched agents change, {} batches", found.len()),
        columns: ["median", "worst", "at most"].map(str::to_owned).to_vec(),
        rows,
    };
    let mut violations = Vec::new();
    let (reads, millis) = (of(|cost| cost.reads).high, of(|cost| cost.last_millis).high);
    if READS_MAX < reads {
        violations.push(format!("a batch was read by {reads} statements, over {READS_MAX}"));
    }
    if MILLIS_MAX < millis {
        violations.push(format!("the last watcher knew after {millis:.0} ms, over {MILLIS_MAX}"));
    }
    let note = format!(
        "{} values make a batch due; times count from before the report that fills it: the write, \
         the notice, the read and the way to the watcher are all in them. Statements are those of \
         the time from the batch's first report until {} s after its last watcher knew.",
        CHANGED * REPORTED,
        CALM.as_secs_f64(),
    );
    let text = format!("{}\n{note}", section.text());
    let json =
        json!({ "part": "watchers", "sections": [section.json()], "violations": violations });
    Output { text, json, svg: None, violations }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_have_their_size_and_neighbours_nobody_in_common() {
        let [one, next] = [19, 20].map(|batch| changed(batch).collect::<BTreeSet<_>>());
        assert_eq!((one.len(), next.len()), (CHANGED, CHANGED));
        assert!(one.is_disjoint(&next));
    }
}
