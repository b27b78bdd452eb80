//! `cargo xtask bench NAME`: ours against the naive form and the original's.
//!
//! A benchmark is a question and the arms that answer it: ways of doing the same work.
//! Arms run alternately, so that whatever slows the machine slows all of them; the first round
//! warms up and is thrown away. Counts, which do not wobble, are told before times.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use comfy_table::{Table, presets};
use musterbeat_testkit::TestDatabase;

use crate::{postgres, workspace};

mod arm;
mod chart;
mod machine;
mod messages;
mod meter;
mod report;
mod stats;

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

    /// Folder for NAME.svg, and for NAME.jsonl, which grows by a line a run.
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
}

/// The benchmarks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Name {
    Messages,
}

impl Name {
    fn question(self) -> &'static str {
        match self {
            Self::Messages => messages::QUESTION,
        }
    }

    /// Builds what the benchmark needs in `database`.
    async fn prepare(self, database: &TestDatabase) -> Result<arm::Contest> {
        match self {
            Self::Messages => messages::prepare(database).await,
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
        let server = postgres::Durable::start().await?;
        let report = self.measure(name, server.url()).await;
        self.keep(&report?)
    }

    async fn measure(&self, name: Name, server_url: &str) -> Result<report::Report> {
        let database = TestDatabase::create_on(server_url).await?;
        let mut contest = name.prepare(&database).await?;
        let (subject, rounds) = arm::alternate(&mut contest, self.rounds).await?;
        let server = contest.meter.server().await?;
        Ok(report::Report {
            name: name.to_possible_value().map_or(String::new(), |value| value.get_name().into()),
            question: name.question(),
            subject,
            rounds: self.rounds,
            arms: report::compare(rounds),
            commit: machine::commit(),
            machine: machine::Machine::read(server),
        })
    }

    /// Prints the report and writes its chart and its line of JSON.
    fn keep(&self, report: &report::Report) -> Result<()> {
        let folder = workspace::root().join(&self.out);
        let failed = || format!("failed to write to {}: choose another --out", folder.display());
        std::fs::create_dir_all(&folder).with_context(failed)?;
        let svg = folder.join(format!("{}.svg", report.name));
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
        let value = name.to_possible_value();
        table.add_row([
            value.map_or(String::new(), |value| value.get_name().to_owned()),
            name.question().to_owned(),
        ]);
    }
    table
}
