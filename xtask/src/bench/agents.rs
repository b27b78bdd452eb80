//! `agents`: chats that a model answers, with children that they wait for.
//!
//! Two parts: families of a parent and two children on three replicas, one of which is killed in
//! the middle, and turns in chats with histories of different lengths. The model is a stand-in in
//! this very process, so that nothing is measured of a provider.

use std::path::PathBuf;

use anyhow::Result;
use clap::ValueEnum;
use musterbeat_testkit::TestDatabase;

use super::replica::{Replica, Site};
use super::{Keep, Name};

mod chart;
mod check;
mod families;
mod history;
mod ledger;
mod statements;
mod story;

pub(super) const QUESTION: &str =
    "Does every parent get its reports though a replica dies, and what does a turn cost?";

/// A part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Part {
    /// Parents that have two children each work for them, with and without a kill.
    Families,
    /// Statements of a turn by the length of the history before it.
    History,
}

/// Measures the parts that are asked for, or all.
pub(super) async fn run(
    server: &str,
    parts: &[Part],
    families: u64,
    logs: PathBuf,
    keep: &mut Keep<'_>,
) -> Result<()> {
    for part in if parts.is_empty() { Part::value_variants() } else { parts } {
        // Each has a database of its own, and so its own counts of statements.
        let database = TestDatabase::create_on(server).await?;
        let site = Site::prepare(database.url(), logs.clone()).await?;
        let found = match part {
            Part::Families => families::run(&database, &site, families).await?,
            Part::History => history::run(&database, &site).await?,
        };
        keep(found.headed(Name::Agents, &database).await?)?;
    }
    Ok(())
}

/// Starts a replica whose chats the model at `url` answers.
async fn start(site: &Site, name: &str, url: String) -> Result<Replica> {
    let settings = [
        ("MUSTERBEAT_RUNNER", "agent".to_owned()),
        ("MUSTERBEAT_MODEL_URL", url),
        ("MUSTERBEAT_MODEL", "story".to_owned()),
        // The chats come from one caller at once.
        ("MUSTERBEAT_RATE_PER_SECOND", "1000000".to_owned()),
        ("MUSTERBEAT_RATE_BURST", "1000000".to_owned()),
    ];
    site.start(name, &settings).await
}

/// Counts stay far below the 2^52 where this would round.
#[expect(clippy::cast_precision_loss, reason = "counts of a round are far below 2^52")]
fn float(count: u64) -> f64 {
    count as f64
}
