//! `reconcile`: the supply of pools of prebuilds, against the original's way.
//!
//! Four parts: pools that need nothing, pools that all want prebuilds at once, both together, and
//! the look at all pools where many workspaces are. The first three count what a cycle asks of the
//! database and how long others wait for a connection meanwhile; the last what a look costs the
//! server.

#[cfg(feature = "product")]
use std::num::NonZeroUsize;

#[cfg(feature = "product")]
use anyhow::Result;
use clap::ValueEnum;
#[cfg(feature = "product")]
use musterbeat_testkit::TestDatabase;

#[cfg(feature = "product")]
use super::{Ground, Keep, Name};

#[cfg(feature = "product")]
mod cycles;
#[cfg(feature = "product")]
mod former;
#[cfg(feature = "product")]
mod ours;
#[cfg(feature = "product")]
mod snapshot;
#[cfg(feature = "product")]
mod stage;
#[cfg(feature = "product")]
mod trips;
#[cfg(feature = "product")]
mod watch;
#[cfg(feature = "product")]
mod way;

pub(super) const QUESTION: &str =
    "What does it cost to keep pools of prebuilds supplied, and who waits for it?";

/// A part of the benchmark.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Part {
    /// Presets of versions that are not active, which have nothing.
    Noops,
    /// Presets that all want prebuilds at once, on a pool of ten connections.
    Contention,
    /// Many presets that need nothing, and a few that do.
    Mix,
    /// The look at 1,000 presets with 10,000 prebuilds among 50,000 workspaces.
    Snapshot,
}

/// Presets, and what they want.
#[cfg(feature = "product")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Load {
    /// Presets of versions that are not active.
    inactive: u32,
    /// Presets of active versions, without any prebuild yet.
    active: u32,
    /// Prebuilds that each preset wants.
    each: u32,
}

#[cfg(feature = "product")]
impl Load {
    const fn presets(self) -> u32 {
        self.inactive + self.active
    }

    /// Returns how many prebuilds are to be ordered.
    const fn wanted(self) -> u32 {
        self.active * self.each
    }
}

#[cfg(feature = "product")]
impl Part {
    /// Returns the loads of the original's own benchmark.
    fn loads(self) -> Vec<Load> {
        let loads: &[(u32, u32, u32)] = match self {
            Self::Noops => &[(100, 0, 1), (1_000, 0, 1), (5_000, 0, 1)],
            Self::Contention => &[(0, 10, 5), (0, 50, 5), (0, 100, 5), (0, 1_000, 10)],
            Self::Mix => &[(490, 10, 2), (975, 25, 2), (4_950, 50, 2)],
            Self::Snapshot => &[],
        };
        loads.iter().map(|&(inactive, active, each)| Load { inactive, active, each }).collect()
    }

    fn name(self) -> String {
        let name = self.to_possible_value();
        format!("reconcile-{}", name.as_ref().map_or("", |name| name.get_name()))
    }
}

/// Measures the parts that are asked for, or all.
#[cfg(feature = "product")]
pub(super) async fn run(
    ground: &Ground<'_>,
    parts: &[Part],
    rounds: NonZeroUsize,
    keep: &mut Keep<'_>,
) -> Result<()> {
    for part in if parts.is_empty() { Part::value_variants() } else { parts } {
        // Each load has a database of its own: none pays for what the one before has left.
        for load in part.loads() {
            let database = TestDatabase::create_on(ground.server.url()).await?;
            keep(cycles::run(&database, *part, load, rounds).await?)?;
        }
        if *part == Part::Snapshot {
            let database = TestDatabase::create_on(ground.server.url()).await?;
            let found = snapshot::run(&database).await?;
            keep(found.headed(Name::Reconcile, &database).await?)?;
        }
    }
    Ok(())
}

#[cfg(all(test, feature = "product"))]
mod tests {
    use super::*;

    #[test]
    fn loads_are_those_of_the_original() {
        let told = |part: Part| {
            let loads = part.loads().into_iter();
            loads.map(|load| (load.presets(), load.wanted())).collect::<Vec<_>>()
        };
        assert_eq!(told(Part::Noops), [(100, 0), (1_000, 0), (5_000, 0)]);
        assert_eq!(told(Part::Contention), [(10, 50), (50, 250), (100, 500), (1_000, 10_000)]);
        assert_eq!(told(Part::Mix), [(500, 20), (1_000, 50), (5_000, 100)]);
        assert_eq!(Part::Mix.name(), "reconcile-mix");
    }
}
