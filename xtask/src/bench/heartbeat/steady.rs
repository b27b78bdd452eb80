//! Beats that follow each other, each measured by itself.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use musterbeat_testkit::TestDatabase;
use uuid::Uuid;

use super::super::meter::{Meter, STATEMENTS};
use super::super::report::Section;
use super::super::stats::Summary;
use super::super::usage;
use super::ours::{Trouble, Worker, told};
use super::roster;
use crate::postgres::say;

/// Beats that count, after some to warm up.
const BEATS: usize = 100;
const WARMUP: usize = 20;

/// Time between beats, so that what goes on elsewhere goes on for seconds.
const PAUSE: Duration = Duration::from_millis(20);

const TROUBLES: [Trouble; 3] = [Trouble::None, Trouble::Snapshot, Trouble::Lock];

/// What one beat cost.
#[derive(Debug)]
struct Sample {
    wal: u64,
    images: u64,
    time: Duration,
    roll_call: Duration,
    server: Duration,
    client: Duration,
}

/// What the beats cost under one trouble.
struct Series {
    samples: Vec<Sample>,
    statements: Option<u64>,
    commits: u64,
    lasted: Duration,
}

/// Beats again and again under each trouble.
pub(super) async fn measure(database: &TestDatabase, believed: &[Uuid]) -> Result<Section> {
    let mut series = Vec::new();
    for trouble in TROUBLES {
        say(&format!("{BEATS} beats: {}", trouble.name()));
        series.push(beat(database, believed, trouble).await?);
    }
    Ok(section(&series))
}

async fn beat(database: &TestDatabase, believed: &[Uuid], trouble: Trouble) -> Result<Series> {
    let mut meter = Meter::connect(database).await?;
    let mut elsewhere = database.connect().await?;
    let mut worker = Worker::new(database, roster(believed))?;
    trouble.begin(&mut elsewhere).await?;
    let begun = Instant::now();
    let mut expected = String::new();
    for _ in 0..WARMUP {
        expected = told(&worker.beat().await?.0);
    }
    let sessions = worker.sessions(&mut meter.conn).await?;
    let before = meter.start().await?;
    // The first beat after a checkpoint writes images of the pages it touches.
    worker.beat().await?;
    let mut marks = vec![meter.wal_end().await?];
    let mut samples = Vec::new();
    for _ in 0..BEATS {
        let (server, client) = (sessions.used(), usage::own()?);
        let start = Instant::now();
        let (muster, roll_call) = worker.beat().await?;
        let time = start.elapsed();
        let (server, client) =
            (sessions.used().saturating_sub(server), usage::own()?.saturating_sub(client));
        marks.push(meter.wal_end().await?);
        ensure!(told(&muster) == expected, "a beat found something else than those before");
        samples.push(Sample { wal: 0, images: 0, time, roll_call, server, client });
        tokio::time::sleep(PAUSE).await;
    }
    let counts = meter.since(before).await?;
    let lasted = begun.elapsed();
    trouble.end(&mut elsewhere).await?;
    for (sample, mark) in samples.iter_mut().zip(marks.windows(2)) {
        (sample.wal, sample.images) = meter.wal(mark[0], mark[1]).await?;
    }
    let count = |name| counts.0.iter().find(|(other, _)| *other == name).map(|(_, count)| *count);
    Ok(Series {
        samples,
        statements: count(STATEMENTS),
        commits: count("commits").unwrap_or(0),
        lasted,
    })
}

fn section(series: &[Series]) -> Section {
    // One more beat was counted than was sampled.
    let share = |count: u64| float(count) / float(BEATS as u64 + 1);
    let row = |value: &dyn Fn(&Series) -> f64| series.iter().map(value).collect::<Vec<_>>();
    let of = |values: fn(&[Sample]) -> Vec<f64>| {
        move |series: &Series| Summary::of(&values(&series.samples))
    };
    let wal = of(|samples| samples.iter().map(|sample| float(sample.wal)).collect());
    let images = of(|samples| samples.iter().map(|sample| float(sample.images)).collect());
    let time = of(|samples| times(samples, |sample| sample.time));
    let roll_call = of(|samples| times(samples, |sample| sample.roll_call));
    let server = of(|samples| times(samples, |sample| sample.server));
    let client = of(|samples| times(samples, |sample| sample.client));
    let mut rows = Vec::new();
    if series.iter().all(|one| one.statements.is_some()) {
        let statements = row(&|one| share(one.statements.unwrap_or(0)));
        rows.push(("statements a beat, counted by the server", statements));
    }
    rows.extend([
        ("commits a beat", row(&|one| share(one.commits))),
        ("WAL bytes, median", row(&|one| wal(one).median)),
        ("WAL bytes, highest", row(&|one| wal(one).high)),
        ("bytes of page images, highest", row(&|one| images(one).high)),
        ("milliseconds, median", row(&|one| time(one).median)),
        ("milliseconds, highest", row(&|one| time(one).high)),
        ("of it the roll call, median", row(&|one| roll_call(one).median)),
        ("server CPU ms, median", row(&|one| server(one).median)),
        ("client CPU ms, median", row(&|one| client(one).median)),
        ("seconds that it went on", row(&|one| one.lasted.as_secs_f64())),
    ]);
    Section {
        title: format!("{BEATS} steady beats"),
        columns: TROUBLES.map(|trouble| trouble.name().to_owned()).to_vec(),
        rows,
    }
}

fn times(samples: &[Sample], time: fn(&Sample) -> Duration) -> Vec<f64> {
    milliseconds(&samples.iter().map(time).collect::<Vec<_>>())
}

pub(super) fn milliseconds(times: &[Duration]) -> Vec<f64> {
    times.iter().map(|time| time.as_secs_f64() * 1000.0).collect()
}

#[expect(clippy::cast_precision_loss, reason = "counts of some beats are far below 2^52")]
fn float(count: u64) -> f64 {
    count as f64
}
