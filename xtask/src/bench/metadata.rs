//! `metadata`: what it costs to store what agents report, and how soon their watchers know.
//!
//! Three parts: how fast rows can be written, what a steady load asks of the database, and a
//! batch told to ten thousand who watch. With `--hold` nothing is measured: agents report to a
//! server until Ctrl-C.

#[cfg(feature = "product")]
use std::num::NonZeroUsize;
#[cfg(feature = "product")]
use std::path::PathBuf;
use std::time::Duration;

#[cfg(feature = "product")]
use anyhow::Result;
use clap::{Args, ValueEnum};
#[cfg(feature = "product")]
use musterbeat_testkit::TestDatabase;

#[cfg(feature = "product")]
use super::{Ground, Keep, Name};
use fleet::Load;

#[cfg(feature = "product")]
mod ceiling;
mod fleet;
mod hold;
#[cfg(feature = "product")]
mod listener;
#[cfg(feature = "product")]
mod stage;
#[cfg(feature = "product")]
mod steady;
#[cfg(feature = "product")]
mod watchers;

pub(super) use hold::hold;

pub(super) const QUESTION: &str =
    "What does it cost to store what agents report, and how soon do watchers know?";

/// A part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Part {
    /// Rows a second: the product's way against a bare client, the original's batch and single
    /// writes.
    Ceiling,
    /// Statements that a steady load of agents costs, and what is lost of it.
    Steady,
    /// A batch of 500 agents told to 10,000 watchers.
    Watchers,
}

/// How agents report.
#[derive(Clone, Debug, Args)]
#[group(id = "reports")]
pub(super) struct Options {
    /// Seconds for which `metadata` counts what a steady load costs.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(10..))]
    seconds: u32,

    /// Measure nothing: keep the agents of `metadata` reporting until Ctrl-C.
    #[arg(long)]
    pub(super) hold: bool,

    /// With --hold: the server to report to, as http://HOST:PORT; unless told, one is started.
    #[arg(long, requires = "hold")]
    url: Option<String>,

    /// With --url: the token of a user, who is to own the agents; none for a server in `dev`.
    #[arg(long, env = "MUSTERBEAT_TOKEN", hide_env_values = true)]
    token: Option<String>,

    /// Agents that report, of the steady load and with --hold.
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u32).range(1..))]
    agents: u32,

    /// Keys that each of them reports.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..=128))]
    keys: u32,

    /// Time from one report of an agent to the next, such as 10s or 500ms.
    #[arg(long, default_value = "10s", value_parser = time)]
    interval: Duration,
}

impl Options {
    fn load(&self) -> Load {
        Load { agents: self.agents, keys: self.keys, interval: self.interval }
    }
}

/// Reads a time; an agent may report five times a second.
fn time(text: &str) -> Result<Duration, String> {
    let (number, millis) = match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(number), _) => (number, 1),
        (None, Some(number)) => (number, 1_000),
        (None, None) => return Err("write a whole number and its unit, such as 10s".to_owned()),
    };
    let number: u64 = number.parse().map_err(|error| format!("{error}"))?;
    let time = Duration::from_millis(number.saturating_mul(millis));
    let shortest = Duration::from_millis(200);
    (shortest <= time).then_some(time).ok_or(format!("{shortest:?} is the shortest"))
}

/// Measures the parts that are asked for, or all.
#[cfg(feature = "product")]
pub(super) async fn run(
    ground: &Ground<'_>,
    parts: &[Part],
    options: &Options,
    rounds: Option<NonZeroUsize>,
    logs: PathBuf,
    keep: &mut Keep<'_>,
) -> Result<()> {
    for part in if parts.is_empty() { Part::value_variants() } else { parts } {
        // Each has a database of its own: none pays for what the one before has left.
        let database = TestDatabase::create_on(ground.server.url()).await?;
        let found = match part {
            Part::Ceiling => ceiling::run(&database, rounds).await?,
            Part::Steady => {
                let time = Duration::from_secs(options.seconds.into());
                let found = steady::run(&database, options.load(), time, logs.clone()).await?;
                found.headed(Name::Metadata, &database).await?
            }
            Part::Watchers => {
                let found = watchers::run(&database, rounds, logs.clone()).await?;
                found.headed(Name::Metadata, &database).await?
            }
        };
        keep(found)?;
    }
    Ok(())
}

/// Returns what an agent reports under a key in a round: 35 to 45 bytes that no other round has.
fn value(agent: usize, key: usize, round: u64) -> String {
    let filler = "x".repeat(2 + (agent + key) % 11);
    format!("agent {agent:05} key {key:02} {}{filler}", mark(round))
}

/// Returns what the values of a round have in common.
fn mark(round: u64) -> String {
    format!("round {round:07} ")
}

/// Returns the name of a key.
fn key(number: usize) -> String {
    format!("key-{number:02}")
}

/// Returns a count as tables show it.
#[cfg(feature = "product")]
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn float(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_the_size_that_is_told() {
        let sizes: Vec<_> = (0..11).map(|key| value(7, key, 3).len()).collect();
        assert_eq!((sizes.iter().min(), sizes.iter().max()), (Some(&35), Some(&45)));
        assert_ne!(value(7, 1, 3), value(7, 1, 4));
    }

    #[test]
    fn times_are_read_with_their_unit() {
        assert_eq!(time("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(time("250ms"), Ok(Duration::from_millis(250)));
        for text in ["10", "0s", "-1s", "s", "199ms", "1m"] {
            assert!(time(text).is_err(), "{text}");
        }
    }
}
