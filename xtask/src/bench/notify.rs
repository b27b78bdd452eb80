//! `notify`: what it costs to tell others what changed.
//!
//! Four parts: the way of many changes to many listeners, a notice inside a transaction that
//! writes, the codecs alone, and the way from a payload to those who watch.

#[cfg(feature = "product")]
use std::num::NonZeroUsize;

#[cfg(feature = "product")]
use anyhow::Result;
use clap::ValueEnum;
#[cfg(feature = "product")]
use musterbeat_testkit::TestDatabase;
#[cfg(feature = "product")]
use serde_json::json;

#[cfg(feature = "product")]
use super::{Keep, Name, Output, report::Section};

#[cfg(feature = "product")]
mod audience;
#[cfg(feature = "product")]
mod codec;
#[cfg(feature = "product")]
mod commit;
#[cfg(feature = "product")]
mod dispatch;
#[cfg(feature = "product")]
mod fan_out;
#[cfg(feature = "product")]
mod ids;
#[cfg(feature = "product")]
mod tellers;

#[cfg(feature = "product")]
pub(super) use tellers::connected;

pub(super) const QUESTION: &str = "What does it cost to tell other replicas what changed?";

/// A part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Part {
    /// 10,000 changes told to 1, 10 and 100 listening sessions.
    FanOut,
    /// Inserts by 32 writers, with a notice inside their transaction or after it.
    Commit,
    /// What a payload holds, and how long it takes to pack and to read.
    Codec,
    /// One payload brought to 10,000 watchers.
    Dispatch,
}

/// Measures the parts that are asked for, or all.
#[cfg(feature = "product")]
pub(super) async fn run(
    database: &TestDatabase,
    parts: &[Part],
    rounds: NonZeroUsize,
    keep: &mut Keep<'_>,
) -> Result<()> {
    for part in if parts.is_empty() { Part::value_variants() } else { parts } {
        match part {
            Part::FanOut => fan_out::run(database, rounds, keep).await?,
            Part::Commit => commit::run(database, rounds, keep).await?,
            Part::Codec => {
                let (section, violations) = codec::measure()?;
                keep(shown(&section, violations).headed(Name::Notify, database).await?)?;
            }
            Part::Dispatch => {
                let section = dispatch::measure().await?;
                keep(shown(&section, Vec::new()).headed(Name::Notify, database).await?)?;
            }
        }
    }
    Ok(())
}

#[cfg(feature = "product")]
fn shown(section: &Section, violations: Vec<String>) -> Output {
    let (text, json) = (section.text(), json!({ "sections": [section.json()] }));
    Output { text, json, svg: None, violations }
}
