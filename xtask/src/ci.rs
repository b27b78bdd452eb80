//! `cargo xtask ci`: everything that a change must pass, in the order of what it costs.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};
use comfy_table::{Table, presets};
use musterbeat_testkit::TestServer;

use crate::check::Check;
use crate::codegen::Codegen;
use crate::test::Test;
use crate::{postgres, workspace};

/// Runs everything that a change must pass: what CI runs.
#[derive(Debug, Args)]
pub(crate) struct Ci {
    /// Begin with this step, to go on after a failure.
    #[arg(long, value_enum)]
    from: Option<Step>,
}

/// One of the things that a change must pass, in their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Step {
    Fmt,
    Layers,
    Shape,
    Clippy,
    Docs,
    Codegen,
    Test,
}

impl Ci {
    /// Runs the steps up to the first that fails, and tells how long each took.
    pub(crate) async fn run(&self) -> Result<()> {
        let mut times = Vec::new();
        let mut server = None;
        let done = self.steps(&mut times, &mut server).await;
        println!("\n{}", table(&times));
        match server {
            Some(server) => done.and(server.stop().await),
            None => done,
        }
    }

    /// Runs the steps; the server, once started, is kept for the later ones in `server`.
    async fn steps(
        &self,
        times: &mut Vec<(Step, Duration)>,
        server: &mut Option<TestServer>,
    ) -> Result<()> {
        let first = |step: &&Step| self.from.is_some_and(|from| from != **step);
        for step in Step::value_variants().iter().skip_while(first) {
            println!("\n== {}: {}", step.name(), step.command());
            let start = Instant::now();
            let done = step.run(server).await;
            times.push((*step, start.elapsed()));
            done.with_context(|| {
                format!("{} failed; repeat it with `{}`", step.name(), step.command())
            })?;
        }
        Ok(())
    }
}

impl Step {
    fn name(self) -> String {
        format!("{self:?}").to_lowercase()
    }

    /// The command that repeats this step alone.
    fn command(self) -> String {
        match self {
            Self::Layers => "cargo xtask check layers".into(),
            Self::Shape => "cargo xtask check shape".into(),
            Self::Codegen => "cargo xtask codegen --check".into(),
            Self::Test => "cargo xtask test".into(),
            Self::Docs => format!("RUSTDOCFLAGS='-D warnings' {}", workspace::shown(&docs())),
            Self::Fmt => workspace::shown(&fmt()),
            Self::Clippy => workspace::shown(&clippy()),
        }
    }

    async fn run(self, server: &mut Option<TestServer>) -> Result<()> {
        match self {
            Self::Fmt => workspace::run(fmt()).await,
            Self::Layers => Check::Layers.run(),
            Self::Shape => Check::Shape.run(),
            Self::Clippy => workspace::run(clippy()).await,
            Self::Docs => workspace::run(docs()).await,
            Self::Codegen => Codegen::check_all().run_on(Some(started(server).await?)).await,
            Self::Test => Test::default().run_on(started(server).await?).await,
        }
    }
}

/// Returns the server, which the first step that needs it starts.
async fn started(server: &mut Option<TestServer>) -> Result<&TestServer> {
    let running = match server.take() {
        Some(running) => running,
        None => postgres::start(None).await?,
    };
    Ok(server.insert(running))
}

fn fmt() -> Command {
    workspace::cargo(["fmt", "--all", "--", "--check"])
}

fn clippy() -> Command {
    let scope = ["clippy", "--workspace", "--all-targets", "--all-features"];
    workspace::cargo(scope.into_iter().chain(["--", "-D", "warnings"]))
}

fn docs() -> Command {
    let mut command = workspace::cargo(["doc", "--workspace", "--no-deps"]);
    command.env("RUSTDOCFLAGS", "-D warnings");
    command
}

fn table(times: &[(Step, Duration)]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY);
    for (step, time) in times {
        table.add_row([step.name(), format!("{:.1} s", time.as_secs_f64())]);
    }
    let sum: Duration = times.iter().map(|(_, time)| *time).sum();
    table.add_row(["all".to_owned(), format!("{:.1} s", sum.as_secs_f64())]);
    table
}
