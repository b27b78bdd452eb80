//! `cargo xtask bench NAME`: ours against the naive form and the original's.
//!
//! A benchmark is a question and the arms that answer it: ways of doing the same work.
//! Arms run alternately, so that whatever slows the machine slows all of them; the first round
//! warms up and is thrown away. Counts, which do not wobble, are told before times.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;

#[cfg(not(feature = "product"))]
use anyhow::bail;
use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use comfy_table::{Table, presets};
use musterbeat_testkit::TestDatabase;

use crate::{postgres, product, workspace};

mod arm;
mod chart;
#[cfg(feature = "product")]
mod claim;
#[cfg(feature = "product")]
mod heartbeat;
mod machine;
mod messages;
mod meter;
#[cfg(feature = "product")]
mod original;
mod report;
mod stats;
#[cfg(feature = "product")]
mod usage;

/// Measures ours against the naive form and the original's.
#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// What to measure.
    #[arg(value_enum, required_unless_present = "list")]
    name: Option<Name>,

    /// List the benchmarks and the questions they answer.
    #[arg(long)]
    list: bool,

    /// Print the line of JSON instead of the table.
    #[arg(long)]
    json: bool,

    /// Rounds that count, after one to warm up.
    #[arg(long, default_value = "5")]
    rounds: NonZeroUsize,

    /// How many runs to work on, where a benchmark has runs; one report for each.
    #[arg(long, value_delimiter = ',')]
    runs: Vec<NonZeroU64>,

    /// Folder for charts, NAME.svg or NAME-RUNS.svg, and for NAME.jsonl, which grows by a line a run.
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
}

/// The benchmarks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Name {
    Claim,
    Heartbeat,
    Messages,
}

/// What a benchmark works on.
#[cfg_attr(not(feature = "product"), expect(dead_code, reason = "for those that run the product"))]
struct Ground<'a> {
    server: &'a postgres::Durable,
    database: &'a TestDatabase,
    /// How many runs there are, where there are runs.
    runs: u64,
}

impl Name {
    fn text(self) -> String {
        self.to_possible_value().map_or(String::new(), |value| value.get_name().into())
    }

    fn question(self) -> &'static str {
        match self {
            Self::Claim => "How close is a claim to what PostgreSQL can do?",
            Self::Heartbeat => "What does it cost to say that all runs of a worker are alive?",
            Self::Messages => messages::QUESTION,
        }
    }

    /// Says whether it runs the crates of the product.
    fn needs_product(self) -> bool {
        matches!(self, Self::Claim | Self::Heartbeat)
    }

    /// How many runs it works on unless told otherwise, one report for each.
    fn runs(self) -> &'static [u64] {
        match self {
            Self::Heartbeat => &[1_000, 10_000, 100_000],
            Self::Claim => &[100_000],
            Self::Messages => &[0],
        }
    }

    /// Builds what the benchmark needs.
    async fn prepare(self, ground: &Ground<'_>) -> Result<arm::Contest> {
        match self {
            #[cfg(feature = "product")]
            Self::Claim => claim::prepare(ground).await,
            #[cfg(feature = "product")]
            Self::Heartbeat => heartbeat::prepare(ground).await,
            #[cfg(not(feature = "product"))]
            Self::Claim | Self::Heartbeat => bail!("{self:?} needs the feature `product` of xtask"),
            Self::Messages => messages::prepare(ground.database).await,
        }
    }

    /// Measures what rounds cannot show, after them.
    #[cfg(feature = "product")]
    async fn witness(self, ground: &Ground<'_>) -> Result<Vec<report::Section>> {
        match self {
            Self::Claim => claim::witness(ground).await,
            Self::Heartbeat => heartbeat::witness(ground).await,
            Self::Messages => Ok(Vec::new()),
        }
    }
}

impl Bench {
    /// Lists the benchmarks, or runs one and keeps what it found.
    pub(crate) async fn run(&self) -> Result<()> {
        let Some(name) = self.name.filter(|_| !self.list) else {
            println!("{}", list());
            return Ok(());
        };
        if name.needs_product() && !product::MEASURABLE {
            return product::relaunch_optimised(std::env::args_os().skip(1)).await;
        }
        let server = postgres::Durable::start().await?;
        let given: Vec<_> = self.runs.iter().map(|runs| runs.get()).collect();
        for runs in if given.is_empty() { name.runs() } else { &given } {
            let report = self.measure(name, &server, *runs).await?;
            self.keep(&report)?;
        }
        Ok(())
    }

    async fn measure(
        &self,
        name: Name,
        server: &postgres::Durable,
        runs: u64,
    ) -> Result<report::Report> {
        let database = TestDatabase::create_on(server.url()).await?;
        let ground = Ground { server, database: &database, runs };
        let mut contest = name.prepare(&ground).await?;
        let (subject, rounds) = arm::alternate(&mut contest, self.rounds).await?;
        #[cfg(feature = "product")]
        let sections = name.witness(&ground).await?;
        #[cfg(not(feature = "product"))]
        let sections = Vec::new();
        let server = contest.meter.server().await?;
        Ok(report::Report {
            name: name.text(),
            question: name.question(),
            subject,
            rounds: self.rounds,
            arms: report::compare(rounds),
            sections,
            commit: machine::commit(),
            machine: machine::Machine::read(server),
        })
    }

    /// Prints the report and writes its chart and its line of JSON.
    fn keep(&self, report: &report::Report) -> Result<()> {
        let folder = workspace::root().join(&self.out);
        let failed = || format!("failed to write to {}: choose another --out", folder.display());
        std::fs::create_dir_all(&folder).with_context(failed)?;
        let svg = folder.join(format!("{}.svg", report.chart_name()));
        std::fs::write(&svg, chart::svg(report)?).with_context(failed)?;
        let line = report.json().to_string();
        let jsonl = folder.join(format!("{}.jsonl", report.name));
        let mut log =
            OpenOptions::new().append(true).create(true).open(&jsonl).with_context(failed)?;
        writeln!(log, "{line}").with_context(failed)?;
        if self.json {
            println!("{line}");
        } else {
            println!("{}\nchart: {}", report.text(), svg.display());
        }
        Ok(())
    }
}

fn list() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    for name in Name::value_variants() {
        table.add_row([name.text(), name.question().to_owned()]);
    }
    table
}
