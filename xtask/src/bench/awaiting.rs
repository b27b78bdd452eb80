//! `await`: a parent waits for the end of a child that runs on another replica.
//!
//! The original looks every 200 ms. Ours looks once, and again when a notice tells of the child.
//! Both read the same, with the same statement of the product; they take turns, a child each.

use std::num::NonZeroUsize;
use std::time::Duration;

use anyhow::Result;
use musterbeat_testkit::TestDatabase;

use super::Name;
use super::arm::{Record, Subject};
use super::machine::{self, Machine};
use super::meter::{Counts, Meter};
use super::report::{Report, Section, compare};
use super::stats::percentile;
use stage::{Sample, Stage, Way};

mod stage;

/// Samples that are thrown away: connections, statements and caches warm up.
const WARM_UP: usize = 4;

/// How long a child works at least.
const WORK: Duration = Duration::from_millis(400);

/// What the original waits between two looks.
const POLL: Duration = Duration::from_millis(200);

/// The arms, the baseline first.
const WAYS: [(&str, Way); 2] =
    [("the original: looks every 200 ms", Way::Poll), ("ours: a notice", Way::Notice)];

/// Waits for so many children in each way, alternately.
pub(super) async fn run(
    name: Name,
    database: &TestDatabase,
    samples: NonZeroUsize,
) -> Result<Report> {
    let mut meter = Meter::connect(database).await?;
    let mut stage = Stage::set(database).await?;
    let mut records = WAYS.map(|(name, _)| Record { name, times: vec![], counts: vec![] });
    for sample in 0..WARM_UP + samples.get() {
        for ((_, way), record) in WAYS.iter().zip(&mut records) {
            let Sample { late, looks, lineage } = stage.sample(*way, work(sample)).await?;
            if WARM_UP <= sample {
                record.times.push(late);
                record.counts.push(Counts(vec![
                    ("statements that look", looks),
                    ("statements that ask who descends from whom", lineage),
                ]));
            }
        }
    }
    stage.end().await?;
    let commit = machine::commit();
    let machine = Machine::read(meter.server().await?);
    let sections = vec![percentiles(&records)];
    let arms = compare(records.into());
    let subject = Subject { unit: "wait", count: 1, size: None };
    let (name, question) = (name.text(), name.question());
    Ok(Report { name, question, subject, rounds: samples, arms, sections, commit, machine })
}

/// Returns how long a child works: all phases of a poll come equally often.
fn work(sample: usize) -> Duration {
    // Has no divisor in common with the poll's milliseconds.
    let phase = (sample * 37) % 200;
    WORK + Duration::from_millis(phase as u64)
}

fn percentiles(records: &[Record]) -> Section {
    let percents = [50, 90, 99, 100];
    let millis = |record: &Record| -> Vec<f64> {
        record.times.iter().map(|time| time.as_secs_f64() * 1_000.0).collect()
    };
    let row = |record: &Record| {
        let times = millis(record);
        (record.name, percents.map(|percent| percentile(&times, percent)).to_vec())
    };
    Section {
        title: "ms from the child's commit until its parent has the answer".to_owned(),
        columns: ["p50", "p90", "p99", "highest"].map(str::to_owned).to_vec(),
        rows: records.iter().map(row).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn children_end_in_every_phase_of_a_poll() {
        let phases: BTreeSet<_> = (0..200).map(|sample| work(sample).as_millis() % 200).collect();
        assert_eq!(phases.len(), 200);
        assert_eq!(POLL.as_millis(), 200);
    }
}
