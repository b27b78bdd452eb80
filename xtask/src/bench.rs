//! `cargo xtask bench NAME`: ours against the naive form and the original's.
//!
//! A benchmark is a question and the arms that answer it: ways of doing the same work.
//! Arms run alternately, so that whatever slows the machine slows all of them; the first round
//! warms up and is thrown away. Counts, which do not wobble, are told before times.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::PathBuf;

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, ValueEnum};
use comfy_table::{Table, presets};
use musterbeat_testkit::TestDatabase;
use serde_json::{Value, json};

use crate::{postgres, product, workspace};

mod agents;
mod arm;
#[cfg(feature = "product")]
mod awaiting;
mod busy;
mod calls;
mod chart;
#[cfg(feature = "product")]
mod claim;
#[cfg(feature = "product")]
mod heartbeat;
mod idle;
#[cfg(feature = "product")]
mod lineage;
mod machine;
#[cfg(feature = "product")]
mod messages;
mod metadata;
mod meter;
mod notify;
#[cfg(feature = "product")]
mod original;
mod quiet;
mod reconcile;
mod replica;
mod report;
#[cfg(feature = "product")]
mod stamping;
mod stats;
#[cfg(feature = "product")]
mod stream;
mod takeover;
#[cfg(feature = "product")]
mod usage;
mod wait;
#[cfg(feature = "product")]
mod wake;

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

    /// Print tables as Markdown has them.
    #[arg(long, conflicts_with = "json")]
    markdown: bool,

    /// Rounds that count, after one to warm up [default: 5]; kills of `takeover` [default: 20];
    /// samples of `wake` [default: 300] and of `await` [default: 200]; batches of `metadata`'s
    /// watchers [default: 10].
    #[arg(long)]
    rounds: Option<NonZeroUsize>,

    #[command(flatten)]
    takeover: takeover::Options,

    #[command(flatten)]
    metadata: metadata::Options,

    /// Parts to measure, of `agents` (families, history), of `notify` (fan-out, commit, codec, dispatch), of `metadata`
    /// (ceiling, steady, watchers) or of `reconcile` (noops, contention, mix, snapshot); all of
    /// them unless told otherwise.
    #[arg(long = "part", value_delimiter = ',')]
    parts: Vec<String>,

    /// How many runs to work on, where a benchmark has runs, or messages a step, or families of
    /// `agents`; one report for each.
    #[arg(long, value_delimiter = ',')]
    runs: Vec<NonZeroU64>,

    /// Folder for charts, NAME.svg or NAME-RUNS.svg, and for NAME.jsonl, which grows by a line a run.
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
}

/// Rounds of a benchmark with arms, and kills of `takeover`.
const ROUNDS: NonZeroUsize = NonZeroUsize::new(5).expect("a default is not zero");
const KILLS: NonZeroUsize = NonZeroUsize::new(20).expect("a default is not zero");
#[cfg(feature = "product")]
const SAMPLES: NonZeroUsize = NonZeroUsize::new(300).expect("a default is not zero");
#[cfg(feature = "product")]
const WAITS: NonZeroUsize = NonZeroUsize::new(200).expect("a default is not zero");

/// The benchmarks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Name {
    Agents,
    Await,
    Claim,
    Heartbeat,
    Lineage,
    Messages,
    Metadata,
    Reconcile,
    Takeover,
    Idle,
    Notify,
    Stream,
    Wake,
    Quiet,
}

/// What a benchmark works on.
#[cfg_attr(not(feature = "product"), expect(dead_code, reason = "for those that run the product"))]
struct Ground<'a> {
    server: &'a postgres::Durable,
    database: &'a TestDatabase,
    /// How many runs there are, or messages a step, where a benchmark has sizes.
    runs: u64,
}

impl Name {
    fn text(self) -> String {
        self.to_possible_value().map_or(String::new(), |value| value.get_name().into())
    }

    fn question(self) -> &'static str {
        match self {
            Self::Agents => agents::QUESTION,
            Self::Claim => "How close is a claim to what PostgreSQL can do?",
            Self::Heartbeat => "What does it cost to say that all runs of a worker are alive?",
            Self::Await => "How soon does a parent learn of its child's end on another replica?",
            Self::Lineage => "What does it cost to ask whether a chat descends from another?",
            Self::Messages => "What does storing many messages in one statement save?",
            Self::Metadata => metadata::QUESTION,
            Self::Reconcile => reconcile::QUESTION,
            Self::Takeover => takeover::QUESTION,
            Self::Idle => idle::QUESTION,
            Self::Notify => notify::QUESTION,
            Self::Stream => "What does it cost to tell an answer to many as it comes?",
            Self::Wake => {
                "How soon does a chat start on another replica than the one it is posted on?"
            }
            Self::Quiet => quiet::QUESTION,
        }
    }

    /// Says whether it runs the crates of the product.
    fn needs_product(self) -> bool {
        !matches!(self, Self::Agents | Self::Takeover | Self::Idle | Self::Quiet)
    }

    /// How many runs it works on unless told otherwise, one report for each.
    fn runs(self) -> &'static [u64] {
        match self {
            Self::Heartbeat => &[1_000, 10_000, 100_000],
            Self::Claim => &[100_000],
            Self::Messages => &[1, 10, 100, 256],
            Self::Agents => &[1_000],
            _ => &[0],
        }
    }

    /// Builds what the benchmark needs.
    #[cfg(feature = "product")]
    async fn prepare(self, ground: &Ground<'_>) -> Result<arm::Contest> {
        match self {
            Self::Claim => claim::prepare(ground).await,
            Self::Heartbeat => heartbeat::prepare(ground).await,
            Self::Lineage => lineage::prepare(ground).await,
            Self::Messages => messages::prepare(ground).await,
            _ => bail!("{self:?} has no arms of its own"),
        }
    }

    #[cfg(not(feature = "product"))]
    #[expect(clippy::unused_async, reason = "its other form waits")]
    async fn prepare(self, _: &Ground<'_>) -> Result<arm::Contest> {
        bail!("{self:?} needs the feature `product` of xtask")
    }

    /// Measures what rounds cannot show, after them.
    #[cfg(feature = "product")]
    async fn witness(self, ground: &Ground<'_>) -> Result<Vec<report::Section>> {
        match self {
            Self::Claim => claim::witness(ground).await,
            Self::Heartbeat => heartbeat::witness(ground).await,
            _ => Ok(Vec::new()),
        }
    }
}

/// Prints a report and stores it.
type Keep<'a> = dyn FnMut(Output) -> Result<()> + Send + 'a;

/// What a benchmark leaves behind.
struct Output {
    text: String,
    json: Value,
    /// A chart, and its name.
    svg: Option<(String, String)>,
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
        self.check_parts(name)?;
        if self.holds() {
            return metadata::hold(&self.metadata, self.logs(name)).await;
        }
        if name.needs_product() && !product::MEASURABLE {
            return product::relaunch_optimised(std::env::args_os().skip(1)).await;
        }
        let server = postgres::Durable::start().await?;
        let mut violations = Vec::new();
        let mut keep = |output: Output| {
            self.keep(&name.text(), &output)?;
            violations.extend(output.violations);
            Ok(())
        };
        let given: Vec<_> = self.runs.iter().map(|runs| runs.get()).collect();
        for runs in if given.is_empty() { name.runs() } else { &given } {
            self.measure(name, &server, *runs, &mut keep).await?;
        }
        if !violations.is_empty() {
            bail!("this must not happen:\n  {}", violations.join("\n  "));
        }
        Ok(())
    }

    /// Says whether it goes on until it is interrupted, and then has something to clear away.
    pub(crate) fn holds(&self) -> bool {
        self.name == Some(Name::Metadata) && !self.list && self.metadata.hold
    }

    /// Refuses parts that the benchmark does not have, before anything takes long.
    fn check_parts(&self, name: Name) -> Result<()> {
        match name {
            Name::Agents => parts::<agents::Part>(&self.parts).map(drop),
            Name::Notify => parts::<notify::Part>(&self.parts).map(drop),
            Name::Metadata => parts::<metadata::Part>(&self.parts).map(drop),
            Name::Reconcile => parts::<reconcile::Part>(&self.parts).map(drop),
            _ if self.parts.is_empty() => Ok(()),
            _ => bail!("`{}` has no parts: leave --part out", name.text()),
        }
    }

    /// Returns the folder for what replicas say.
    fn logs(&self, name: Name) -> PathBuf {
        workspace::root().join(&self.out).join(format!("{}-logs", name.text()))
    }

    /// Measures, and has each report kept as soon as it is there.
    async fn measure(
        &self,
        name: Name,
        server: &postgres::Durable,
        runs: u64,
        keep: &mut Keep<'_>,
    ) -> Result<()> {
        let database = TestDatabase::create_on(server.url()).await?;
        let logs = self.logs(name);
        let ground = Ground { server, database: &database, runs };
        let found = match name {
            Name::Agents => {
                let parts = parts(&self.parts)?;
                return agents::run(server.url(), &parts, runs, logs, keep).await;
            }
            Name::Takeover => {
                let kills = u32::try_from(self.rounds.unwrap_or(KILLS).get())?;
                let found = takeover::run(&database, kills, &self.takeover, logs).await?;
                let (text, json, svg) = (found.text(), found.json(), (name.text(), found.svg()?));
                Output { text, json, svg: Some(svg), violations: found.violations() }
            }
            Name::Idle => {
                let found = idle::run(&database, &self.takeover, logs).await?;
                let (text, json, violations) = (found.text(), found.json(), found.violations());
                Output { text, json, svg: None, violations }
            }
            Name::Quiet => {
                let found = quiet::run(&database, logs).await?;
                let (text, json, violations) = (found.text(), found.json(), found.violations());
                Output { text, json, svg: None, violations }
            }
            Name::Claim | Name::Heartbeat | Name::Lineage | Name::Messages => {
                return keep(self.contest(name, &ground).await?);
            }
            Name::Await
            | Name::Metadata
            | Name::Notify
            | Name::Reconcile
            | Name::Stream
            | Name::Wake => {
                return self.product(name, &ground, logs, keep).await;
            }
        };
        keep(found.headed(name, &database).await?)
    }

    /// Runs the arms of a contest alternately.
    async fn contest(&self, name: Name, ground: &Ground<'_>) -> Result<Output> {
        let mut contest = name.prepare(ground).await?;
        let rounds = self.rounds.unwrap_or(ROUNDS);
        let report = report_on(name.text(), name.question(), &mut contest, rounds).await?;
        #[cfg(feature = "product")]
        let report = report::Report { sections: name.witness(ground).await?, ..report };
        Output::of(&report)
    }

    /// Runs a benchmark of the product that arranges its arms by itself.
    #[cfg(feature = "product")]
    async fn product(
        &self,
        name: Name,
        ground: &Ground<'_>,
        logs: PathBuf,
        keep: &mut Keep<'_>,
    ) -> Result<()> {
        let (database, rounds) = (ground.database, self.rounds.unwrap_or(ROUNDS));
        match name {
            Name::Notify => notify::run(database, &parts(&self.parts)?, rounds, keep).await,
            Name::Metadata => {
                let parts = parts(&self.parts)?;
                metadata::run(ground, &parts, &self.metadata, self.rounds, logs, keep).await
            }
            Name::Reconcile => reconcile::run(ground, &parts(&self.parts)?, rounds, keep).await,
            Name::Stream => stream::run(ground, rounds, logs, keep).await,
            Name::Await => {
                let waits = self.rounds.unwrap_or(WAITS);
                keep(Output::of(&awaiting::run(name, database, waits).await?)?)
            }
            _ => {
                let found = wake::run(database, self.rounds.unwrap_or(SAMPLES)).await?;
                let (text, json, violations) = (found.text(), found.json(), found.violations());
                keep(Output { text, json, svg: None, violations }.headed(name, database).await?)
            }
        }
    }

    #[cfg(not(feature = "product"))]
    #[expect(clippy::unused_async, reason = "its other form waits")]
    async fn product(
        &self,
        name: Name,
        _: &Ground<'_>,
        _: PathBuf,
        _: &mut Keep<'_>,
    ) -> Result<()> {
        bail!("{name:?} needs the feature `product` of xtask")
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
        match (self.json, self.markdown) {
            (true, _) => println!("{line}"),
            (false, true) => println!("{}", report::markdown(&output.text)),
            (false, false) => println!("{}", output.text),
        }
        if let Some((name, chart)) = &output.svg {
            let svg = folder.join(format!("{name}.svg"));
            std::fs::write(&svg, chart).with_context(failed)?;
            if !self.json {
                println!("chart: {}", svg.display());
            }
        }
        Ok(())
    }
}

/// Reads the parts of a benchmark.
fn parts<P: ValueEnum>(names: &[String]) -> Result<Vec<P>> {
    let part = |name: &String| {
        P::from_str(name, true).map_err(|_| {
            let all = P::value_variants().iter().filter_map(ValueEnum::to_possible_value);
            let all: Vec<_> = all.map(|part| part.get_name().to_owned()).collect();
            anyhow!("{name:?} is no part of it; there are {}", all.join(", "))
        })
    };
    names.iter().map(part).collect()
}

/// Runs the arms of a contest alternately, and reports on them.
async fn report_on(
    name: String,
    question: &'static str,
    contest: &mut arm::Contest,
    rounds: NonZeroUsize,
) -> Result<report::Report> {
    let (subject, records) = arm::alternate(contest, rounds).await?;
    let server = contest.meter.server().await?;
    Ok(report::Report {
        name,
        question,
        subject,
        rounds,
        arms: report::compare(records),
        sections: Vec::new(),
        commit: machine::commit(),
        machine: machine::Machine::read(server),
    })
}

impl Output {
    /// Shows what arms came to.
    fn of(report: &report::Report) -> Result<Self> {
        let svg = Some((report.chart_name(), chart::svg(report)?));
        Ok(Self { text: report.text(), json: report.json(), svg, violations: Vec::new() })
    }

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
        table.add_row([name.text(), name.question().to_owned()]);
    }
    table
}
