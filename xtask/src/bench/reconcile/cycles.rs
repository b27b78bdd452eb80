//! Cycles that find nothing to do, much, or a little: what they ask of the database and its pool.

use std::num::NonZeroUsize;
use std::time::Duration;

use anyhow::{Context, Result};
use musterbeat_testkit::TestDatabase;
use tokio::time::sleep;

use super::super::arm::{Arm, Contest, Subject};
use super::super::meter::{Meter, STATEMENTS};
use super::super::report::{Report, Section};
use super::super::stats::percentile;
use super::super::{Output, report_on};
use super::trips::Trips;
use super::watch::{Waits, millis};
use super::way::{OURS, Way, Ways};
use super::{Load, Part, QUESTION, stage};

/// What is asked for: statements of a cycle with nothing to do, connections that are held, and how
/// long all but one of a hundred others wait for one beside so many presets.
const STATEMENTS_MAX: f64 = 1.0;
const HELD_MAX: u32 = 5;
const WAIT_MAX_MS: f64 = 5.0;
const WAIT_PRESETS: u32 = 1_000;

/// Others who waited, at least, and repetitions until there are so many, at most.
const WAITS: usize = 300;
const REPEATS: usize = 50;

/// How long others are watched while nothing is supplied.
const QUIET: Duration = Duration::from_secs(2);

/// After so long, a pool has tested each connection that came back.
const CALM: Duration = Duration::from_millis(100);

/// Runs the ways alternately, and then each among others.
pub(super) async fn run(
    database: &TestDatabase,
    part: Part,
    load: Load,
    rounds: NonZeroUsize,
) -> Result<Output> {
    stage::presets(&mut database.connect().await?, load).await?;
    let trips = trips(database, load).await?;
    let ways = Ways::new(database, database.url(), load).await?;
    let arms: Vec<Box<dyn Arm>> =
        ways.all.iter().map(|way| Box::new(way.clone()) as Box<dyn Arm>).collect();
    let (unit, count) = match load.wanted() {
        0 => ("cycle", 1),
        wanted => ("prebuild", u64::from(wanted)),
    };
    let size = Some((u64::from(load.presets()), "presets"));
    let subject = Subject { unit, count, size };
    let mut contest = Contest { subject, arms, meter: Meter::connect(database).await? };
    let mut report = report_on(part.name(), QUESTION, &mut contest, rounds).await?;
    let waits = waits(&ways.all, rounds.get()).await?;
    report.sections.push(connections(&ways, &trips));
    report.sections.push(others(&ways.all, &waits));
    let violations = violations(&report, &ways.all, &waits, load);
    ways.end().await;
    let mut output = Output { violations, ..Output::of(&report)? };
    output.json["part"] = part.name().into();
    output.json["violations"] = output.violations.clone().into();
    Ok(output)
}

/// Counts the round trips of a cycle of each way, on connections that have done the same before.
async fn trips(database: &TestDatabase, load: Load) -> Result<Vec<f64>> {
    let trips = Trips::start(database.url()).await?;
    let ways = Ways::new(database, trips.url(), load).await?;
    let mut found = Vec::new();
    for way in &ways.all {
        // The first one prepares the statements.
        let mut before = 0;
        for _ in 0..2 {
            way.clear().await?;
            sleep(CALM).await;
            before = trips.count();
            way.cycle().await?;
            sleep(CALM).await;
        }
        found.push(float(trips.count() - before));
        way.check().await?;
    }
    ways.end().await;
    Ok(found)
}

/// Returns how long others waited beside each way, and in the end beside none.
async fn waits(ways: &[Way], rounds: usize) -> Result<Vec<Waits>> {
    let mut found = vec![Waits::default(); ways.len()];
    for round in 0..REPEATS {
        let enough = |waits: &Waits| waits.pool.len().min(waits.store.len()) >= WAITS;
        if round >= rounds && found.iter().all(enough) {
            break;
        }
        for (way, found) in ways.iter().zip(&mut found) {
            let among = way.cycle_among_others().await;
            let waits = among.with_context(|| format!("among others \"{}\"", way.name()))?;
            found.pool.extend(waits.pool);
            found.store.extend(waits.store);
        }
    }
    let ours = ways.iter().find(|way| way.name() == OURS).context("ours is no way")?;
    found.push(ours.others_alone(QUIET).await?);
    Ok(found)
}

fn connections(ways: &Ways, trips: &[f64]) -> Section {
    let Ways { all: ways, first_look, .. } = ways;
    let first_look = |way: &Way| match way.name() {
        OURS => millis(*first_look),
        _ => f64::NAN,
    };
    let row = |value: &dyn Fn(&Way) -> f64| ways.iter().map(value).collect::<Vec<_>>();
    let peak_of = |way: &Way| way.seen().peaks;
    let rows = vec![
        ("presets worked on", row(&|way| float(way.seen().presets))),
        ("round trips, tests of the pool among them", trips.to_vec()),
        (
            "connections out of the pool or on their way back at the peak",
            row(&|way| f64::from(peak_of(way).held)),
        ),
        (
            "sessions at work or in a transaction at the peak",
            row(&|way| f64::from(i32::try_from(peak_of(way).busy).unwrap_or(i32::MAX))),
        ),
        ("oldest open transaction, ms", row(&|way| peak_of(way).open_ms)),
        ("first look of a new leader, ms", row(&first_look)),
        ("looks at the pool, 10 ms apart", row(&|way| float(peak_of(way).samples))),
    ];
    Section { title: "a cycle; peaks of all rounds".to_owned(), columns: names(ways), rows }
}

fn others(ways: &[Way], waits: &[Waits]) -> Section {
    let pool =
        |percent| waits.iter().map(|waits| percentile_of(&waits.pool, percent)).collect::<Vec<_>>();
    let store = |percent| {
        waits.iter().map(|waits| percentile_of(&waits.store, percent)).collect::<Vec<_>>()
    };
    let count = |waits: &Waits| float(waits.pool.len() as u64);
    let rows = vec![
        ("wait for a connection, median", pool(50)),
        ("wait for a connection, p99", pool(99)),
        ("wait for a connection, worst", pool(100)),
        ("answer to a call of the store, median", store(50)),
        ("answer to a call of the store, p99", store(99)),
        ("answer to a call of the store, worst", store(100)),
        ("others who waited", waits.iter().map(count).collect()),
    ];
    let columns = names(ways).into_iter().chain(["nothing is supplied".to_owned()]).collect();
    Section { title: "others on the same pool, ms".to_owned(), columns, rows }
}

fn names(ways: &[Way]) -> Vec<String> {
    ways.iter().map(|way| way.name().to_owned()).collect()
}

/// Returns a value that so many of a hundred do not exceed, if there is any.
fn percentile_of(values: &[f64], percent: usize) -> f64 {
    if values.is_empty() { f64::NAN } else { percentile(values, percent) }
}

/// Returns in what ours is not as it is asked for.
fn violations(report: &Report, ways: &[Way], waits: &[Waits], load: Load) -> Vec<String> {
    let size = format!("{} presets, {} prebuilds", load.presets(), load.wanted());
    let mut missed = Vec::new();
    let ours = ways.iter().zip(waits).find(|(way, _)| way.name() == OURS);
    let Some((way, waits)) = ours else { return missed };
    let seen = way.seen();
    if load.wanted() == 0 {
        let arm = report.arms.iter().find(|arm| arm.name == OURS);
        let counts = arm.into_iter().flat_map(|arm| &arm.counts);
        let statements = counts.filter(|(name, _)| *name == STATEMENTS).map(|(_, count)| *count);
        let statements = statements.fold(0.0, f64::max);
        if STATEMENTS_MAX < statements || 0 < seen.presets {
            missed.push(format!("{size}: {statements} statements, {} tasks", seen.presets));
        }
    }
    if HELD_MAX < seen.peaks.held {
        missed.push(format!("{size}: {} connections were held at once", seen.peaks.held));
    }
    let wait = percentile_of(&waits.pool, 99);
    if WAIT_PRESETS <= load.active && WAIT_MAX_MS <= wait {
        missed.push(format!("{size}: others wait {wait:.1} ms for a connection at p99"));
    }
    missed
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn float(count: u64) -> f64 {
    count as f64
}
