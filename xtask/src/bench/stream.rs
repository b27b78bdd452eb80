//! `stream`: an answer as it comes, to many who follow it.
//!
//! Four parts: parts told within a process, a subscriber who never reads, parts over HTTP, on the
//! owner and through another replica, and what idle streams cost.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use anyhow::Result;
use serde_json::json;

use super::report::Section;
use super::{Ground, Keep, Name, Output};

mod fan_out;
mod follower;
mod http;
mod idle;
mod room;
mod site;
mod stuck;

/// Measures all parts.
pub(super) async fn run(
    ground: &Ground<'_>,
    rounds: NonZeroUsize,
    logs: PathBuf,
    keep: &mut Keep<'_>,
) -> Result<()> {
    for load in fan_out::LOADS {
        keep(Output::of(&fan_out::run(ground.database, load, rounds).await?)?)?;
    }
    let (section, violations) = stuck::measure().await?;
    keep(shown(&[section], violations).headed(Name::Stream, ground.database).await?)?;
    let sections = http::measure(ground.server).await?;
    keep(shown(&sections, Vec::new()).headed(Name::Stream, ground.database).await?)?;
    let idle = idle::measure(ground.database, logs).await?;
    keep(shown(&[idle], Vec::new()).headed(Name::Stream, ground.database).await?)
}

fn shown(sections: &[Section], violations: Vec<String>) -> Output {
    let text = sections.iter().map(Section::text).collect();
    let json = json!({ "sections": sections.iter().map(Section::json).collect::<Vec<_>>() });
    Output { text, json, svg: None, violations }
}
