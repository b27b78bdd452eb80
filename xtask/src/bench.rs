//! `cargo xtask bench NAME`: ours against the naive form and the original's.
//!
//! A benchmark is a question and the arms that answer it: ways of doing the same work.
//! Arms run alternately, so that whatever slows the machine slows all of them; the first round
//! warms up and is thrown away. Counts, which do not wobble, are told before times.
//!
//! Two have no arms, since what they measure has a bar: `takeover` and `idle`.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::{Args, ValueEnum};
use comfy_table::{Table, presets};
use musterbeat_testkit::TestDatabase;
use serde_json::{Value, json};

use crate::{postgres, workspace};

mod arm;
mod busy;
mod chart;
mod idle;
mod machine;
mod messages;
mod meter;
mod replica;
mod report;
mod stats;
mod takeover;
mod wait;

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

    /// Rounds that count, after one to warm up [default: 5]; kills of `takeover` [default: 20].
    #[arg(long)]
    rounds: Option<NonZeroUsize>,

    #[command(flatten)]
    takeover: takeover::Options,

    /// Folder for NAME.svg, and for NAME.jsonl, which grows by a line a run.
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
}

/// Rounds of a benchmark with arms, and kills of `takeover`.
const ROUNDS: NonZeroUsize = NonZeroUsize::new(5).expect("a default is not zero");
const KILLS: NonZeroUsize = NonZeroUsize::new(20).expect("a default is not zero");

/// The benchmarks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Name {
    Messages,
    Takeover,
    Idle,
}

impl Name {
    fn text(self) -> String {
        self.to_possible_value().map_or(String::new(), |value| value.get_name().to_owned())
    }

    fn question(self) -> &'static str {
        match self {
            Self::Messages => messages::QUESTION,
            Self::Takeover => takeover::QUESTION,
            Self::Idle => idle::QUESTION,
        }
    }
}

/// What a benchmark leaves behind.
struct Output {
    text: String,
    json: Value,
    svg: Option<String>,
    /// What must not have happened.
    violations: Vec<String>,
}

impl Bench {
    /// Lists the benchmarks, or runs one and keeps what it found.
    pub(crate) async fn run(&self) -> Result<()> {
        let Some(name) = self.name.filter(|_| !self.list) else {
            println!("{}", list());
            return Ok(());
        };
        let server = postgres::Durable::start().await?;
        let output = self.measure(name, server.url()).await?;
        self.keep(&name.text(), &output)?;
        if !output.violations.is_empty() {
            bail!("this must not happen:\n  {}", output.violations.join("\n  "));
        }
        Ok(())
    }

    async fn measure(&self, name: Name, server_url: &str) -> Result<Output> {
        let database = TestDatabase::create_on(server_url).await?;
        let logs = workspace::root().join(&self.out).join(format!("{}-logs", name.text()));
        match name {
            Name::Messages => self.contest(name, messages::prepare(&database).await?).await,
            Name::Takeover => {
                let kills = u32::try_from(self.rounds.unwrap_or(KILLS).get())?;
                let found = takeover::run(&database, kills, &self.takeover, logs).await?;
                let (text, json, svg) = (found.text(), found.json(), Some(found.svg()?));
                let violations = found.violations();
                Output { text, json, svg, violations }.headed(name, &database).await
            }
            Name::Idle => {
                let found = idle::run(&database, &self.takeover, logs).await?;
                let (text, json, violations) = (found.text(), found.json(), found.violations());
                Output { text, json, svg: None, violations }.headed(name, &database).await
            }
        }
    }

    /// Runs the arms of a contest alternately.
    async fn contest(&self, name: Name, mut contest: arm::Contest) -> Result<Output> {
        let rounds = self.rounds.unwrap_or(ROUNDS);
        let (subject, records) = arm::alternate(&mut contest, rounds).await?;
        let server = contest.meter.server().await?;
        let report = report::Report {
            name: name.text(),
            question: name.question(),
            subject,
            rounds,
            arms: report::compare(records),
            commit: machine::commit(),
            machine: machine::Machine::read(server),
        };
        let svg = Some(chart::svg(&report)?);
        Ok(Output { text: report.text(), json: report.json(), svg, violations: Vec::new() })
    }

    /// Prints the output and writes its chart and its line of JSON.
    fn keep(&self, name: &str, output: &Output) -> Result<()> {
        let folder = workspace::root().join(&self.out);
        let failed = || format!("failed to write to {}: choose another --out", folder.display());
        std::fs::create_dir_all(&folder).with_context(failed)?;
        let line = output.json.to_string();
        let jsonl = folder.join(format!("{name}.jsonl"));
        let mut log =
            OpenOptions::new().append(true).create(true).open(&jsonl).with_context(failed)?;
        writeln!(log, "{line}").with_context(failed)?;
        println!("{}", if self.json { &line } else { &output.text });
        if let Some(chart) = &output.svg {
            let svg = folder.join(format!("{name}.svg"));
            std::fs::write(&svg, chart).with_context(failed)?;
            if !self.json {
                println!("chart: {}", svg.display());
            }
        }
        Ok(())
    }
}

impl Output {
    /// Adds what was measured, and on what.
    async fn headed(self, name: Name, database: &TestDatabase) -> Result<Self> {
        let server = meter::Meter::connect(database).await?.server().await?;
        let (commit, machine) = (machine::commit(), machine::Machine::read(server));
        let (question, on) = (name.question(), machine.text());
        let text = format!("{}: {question}\ncommit {commit}; {on}\n{}", name.text(), self.text);
        let at = report::now();
        let mut json =
            json!({ "bench": name.text(), "at": at, "commit": commit, "machine": machine.json() });
        if let (Value::Object(json), Value::Object(found)) = (&mut json, self.json) {
            json.extend(found);
        }
        Ok(Self { text, json, ..self })
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
