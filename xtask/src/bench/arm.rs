//! Arms, and running them alternately.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use indicatif::{ProgressBar, ProgressStyle};

use super::meter::{Counts, Meter};

/// One way of doing the work.
#[async_trait]
pub(super) trait Arm: Send {
    /// Returns what the way is called in tables and charts.
    fn name(&self) -> &'static str;

    /// Brings everything into the state from which a round starts; not measured.
    async fn prepare(&mut self) -> Result<()>;

    /// Does the work, and counts what only the client can see.
    async fn run(&mut self) -> Result<Counts>;

    /// Returns how long the last run took, where the arm knows better than its caller.
    fn time(&self) -> Option<Duration> {
        None
    }

    /// Makes the server account for the work, where it would do so later; not measured.
    async fn settle(&mut self) -> Result<()> {
        Ok(())
    }

    /// Returns a digest of the work done, the same for every arm; not measured.
    async fn digest(&mut self) -> Result<String>;
}

/// What the work is done on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Subject {
    /// What one of the things is called.
    pub(super) unit: &'static str,
    /// How many of them are worked on in a round.
    pub(super) count: u64,
    /// What tells a report from others of its benchmark: a number, and what it is of.
    pub(super) size: Option<(u64, &'static str)>,
}

/// Arms and what measures them.
pub(super) struct Contest {
    pub(super) subject: Subject,
    /// INVARIANT: the first is the baseline of all ratios.
    pub(super) arms: Vec<Box<dyn Arm>>,
    pub(super) meter: Meter,
}

/// What one arm did in the rounds that count.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) name: &'static str,
    pub(super) times: Vec<Duration>,
    pub(super) counts: Vec<Counts>,
}

/// Runs the arms in turn, one round to warm up and then `rounds` that count.
pub(super) async fn alternate(
    contest: &mut Contest,
    rounds: NonZeroUsize,
) -> Result<(Subject, Vec<Record>)> {
    let Contest { subject, arms, meter } = contest;
    let record = |name| Record { name, times: Vec::new(), counts: Vec::new() };
    let mut records: Vec<_> = arms.iter().map(|arm| record(arm.name())).collect();
    let bar = progress((rounds.get() + 1) * arms.len());
    let mut agreed = None;
    for round in 0..=rounds.get() {
        for (arm, record) in arms.iter_mut().zip(&mut records) {
            bar.set_message(record.name);
            let measured = measure(arm.as_mut(), meter).await;
            let (time, counts, digest) =
                measured.with_context(|| format!("the arm \"{}\" failed", record.name))?;
            ensure!(
                *agreed.get_or_insert_with(|| digest.clone()) == digest,
                "the arm \"{}\" did other work than the first: mend the benchmark",
                record.name,
            );
            if round > 0 {
                record.times.push(time);
                record.counts.push(counts);
            }
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    Ok((subject.clone(), records))
}

async fn measure(arm: &mut dyn Arm, meter: &mut Meter) -> Result<(Duration, Counts, String)> {
    arm.prepare().await?;
    let before = meter.start().await?;
    let start = Instant::now();
    let mut counts = arm.run().await?;
    let elapsed = start.elapsed();
    let time = arm.time().unwrap_or(elapsed);
    arm.settle().await?;
    counts.0.extend(meter.since(before).await?.0);
    Ok((time, counts, arm.digest().await?))
}

fn progress(steps: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {pos}/{len} {elapsed} {msg}")
        .expect("the template is a constant that parses");
    ProgressBar::new(steps as u64).with_style(style)
}
