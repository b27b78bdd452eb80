//! 10,000 changes told to listening sessions, each of which decodes them all.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use async_trait::async_trait;
use musterbeat_pubsub::codec::Policy;
use musterbeat_testkit::TestDatabase;
use tokio::sync::Mutex;
use uuid::Uuid;

use super::super::arm::{Arm, Contest, Subject};
use super::super::meter::{Counts, Meter};
use super::super::report::{Report, Section};
use super::super::{Keep, Output, report_on};
use super::audience::{Audience, Heard};
use super::ids;
use super::tellers::{AtOnce, Chunks, Each, FINGERPRINTS, Packed, Publisher, Teller};

const QUESTION: &str = "How long until every listening session has decoded 10,000 changed ids?";

const CHANGES: usize = 10_000;

const LISTENERS: [usize; 3] = [1, 10, 100];

/// With so many listeners the naive form takes half a minute a round, so fewer rounds do.
const CROWD: usize = 100;
const CROWD_ROUNDS: NonZeroUsize = NonZeroUsize::new(2).expect("it is not zero");

/// What is asked for with [`BAR_LISTENERS`]: speed against one by one, bytes against the original.
const BAR_LISTENERS: usize = 10;
const BARS: [Bar; 2] =
    [Bar { arm: EXACT, speed: 200.0, bytes: 1.2 }, Bar { arm: PRINTS, speed: 500.0, bytes: 3.0 }];

const NAIVE: &str = "one NOTIFY an id, a commit each";
const ORIGINAL: &str = "the original: chunks of 363";
const EXACT: &str = "ours: exact";
const PRINTS: &str = "ours: fingerprints";

/// Names of counts.
const BYTES: &str = "bytes to a listener";

struct Bar {
    arm: &'static str,
    speed: f64,
    bytes: f64,
}

/// Measures with each number of listeners.
pub(super) async fn run(
    database: &TestDatabase,
    rounds: NonZeroUsize,
    keep: &mut Keep<'_>,
) -> Result<()> {
    for listeners in LISTENERS {
        let mut contest = prepare(database, listeners).await?;
        let name = format!("notify-fan-out-{listeners}");
        let rounds = if listeners < CROWD { rounds } else { rounds.min(CROWD_ROUNDS) };
        let mut report = report_on(name, QUESTION, &mut contest, rounds).await?;
        let (section, missed) = compared(&report);
        report.sections.push(section);
        let violations = if listeners == BAR_LISTENERS { missed } else { Vec::new() };
        keep(Output { violations, ..Output::of(&report)? })?;
    }
    Ok(())
}

async fn prepare(database: &TestDatabase, listeners: usize) -> Result<Contest> {
    let meter = Meter::connect(database).await?;
    let url = database.url();
    let ids = Arc::new(ids::v4(CHANGES));
    let audience = Audience::gather(url, listeners, Arc::clone(&ids)).await?;
    let audience = Arc::new(Mutex::new(audience));
    let exact = Packed::new(database.connect().await?, url, Policy::EXACT).await?;
    let prints = Packed::new(database.connect().await?, url, FINGERPRINTS).await?;
    let tellers: Vec<(_, Box<dyn Teller>)> = vec![
        (NAIVE, Box::new(Each(database.connect().await?))),
        ("a payload an id, one statement", Box::new(AtOnce(database.connect().await?))),
        (ORIGINAL, Box::new(Chunks(database.connect().await?))),
        (EXACT, Box::new(exact)),
        (PRINTS, Box::new(prints)),
        ("ours: the publisher, exact", Box::new(Publisher::new(url, Policy::EXACT))),
        ("ours: the publisher, by default", Box::new(Publisher::new(url, Policy::DEFAULT))),
    ];
    let mut arms: Vec<Box<dyn Arm>> = Vec::new();
    for (name, teller) in tellers {
        let (ids, audience) = (Arc::clone(&ids), Arc::clone(&audience));
        let (heard, time) = (Vec::new(), Duration::ZERO);
        arms.push(Box::new(Telling { name, teller, ids, audience, heard, time }));
    }
    let subject = Subject { unit: "change", count: CHANGES as u64, size: None };
    Ok(Contest { subject, arms, meter })
}

/// An arm: one way to tell, and all who listen.
struct Telling {
    name: &'static str,
    teller: Box<dyn Teller>,
    ids: Arc<Vec<Uuid>>,
    audience: Arc<Mutex<Audience>>,
    heard: Vec<Heard>,
    time: Duration,
}

#[async_trait]
impl Arm for Telling {
    fn name(&self) -> &'static str {
        self.name
    }

    async fn prepare(&mut self) -> Result<()> {
        self.teller.begin().await
    }

    async fn run(&mut self) -> Result<Counts> {
        let mut audience = self.audience.lock().await;
        let start = Instant::now();
        self.teller.tell(&self.ids).await?;
        let (heard, last) = audience.heard().await?;
        self.time = last - start;
        self.heard = heard;
        Ok(Counts(vec![
            ("payloads", self.each(|heard| heard.payloads)),
            (BYTES, self.each(|heard| heard.bytes)),
            ("wakes of a listener", self.each(|heard| heard.wakes)),
        ]))
    }

    fn time(&self) -> Option<Duration> {
        Some(self.time)
    }

    async fn settle(&mut self) -> Result<()> {
        self.teller.end().await
    }

    async fn digest(&mut self) -> Result<String> {
        self.audience.lock().await.digest(&std::mem::take(&mut self.heard))
    }
}

impl Telling {
    /// Returns the mean over the listeners.
    fn each(&self, count: impl Fn(&Heard) -> u64) -> u64 {
        let all: u64 = self.heard.iter().map(count).sum();
        all / (self.heard.len() as u64).max(1)
    }
}

/// Compares ours with what is asked for; returns what is missed, too.
fn compared(report: &Report) -> (Section, Vec<String>) {
    let original = count(report, ORIGINAL, BYTES);
    let of = |value: &dyn Fn(&Bar) -> f64| BARS.iter().map(value).collect::<Vec<_>>();
    let speeds = of(&|bar| speed(report, bar.arm));
    let bytes = of(&|bar| original / count(report, bar.arm, BYTES));
    let mut missed = Vec::new();
    for (bar, (speed, bytes)) in BARS.iter().zip(speeds.iter().zip(&bytes)) {
        let Bar { arm, .. } = bar;
        if *speed < bar.speed {
            missed.push(format!("{arm}: {speed:.0} times as fast, not {}", bar.speed));
        }
        if *bytes < bar.bytes {
            missed.push(format!("{arm}: bytes {bytes:.2} times as few, not {}", bar.bytes));
        }
    }
    let rows = vec![
        ("times as fast as one NOTIFY an id", speeds),
        ("asked for, with 10 listeners", of(&|bar| bar.speed)),
        ("times as few bytes as the original's", bytes),
        ("asked for, with 10 listeners ", of(&|bar| bar.bytes)),
    ];
    let columns = BARS.iter().map(|bar| bar.arm.to_owned()).collect();
    (Section { title: "what is asked for".to_owned(), columns, rows }, missed)
}

fn speed(report: &Report, arm: &str) -> f64 {
    report.arms.iter().find(|it| it.name == arm).map_or(0.0, |arm| arm.speed.median)
}

fn count(report: &Report, arm: &str, name: &str) -> f64 {
    let counts = report.arms.iter().filter(|it| it.name == arm).flat_map(|arm| &arm.counts);
    counts.into_iter().find(|(it, _)| *it == name).map_or(f64::NAN, |(_, count)| *count)
}
