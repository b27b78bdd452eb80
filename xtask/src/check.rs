//! `cargo xtask check`: rules about the source that no compiler knows.

use anyhow::{Result, bail};
use clap::Subcommand;

pub(crate) mod layers;
pub(crate) mod shape;

/// The rules that can be checked.
#[derive(Clone, Copy, Debug, Subcommand)]
pub(crate) enum Check {
    /// A crate uses only the floors below it, and nothing that its floor forbids.
    Layers,
    /// Files stay under 500 lines and functions under 70.
    Shape,
}

impl Check {
    /// Checks the rule and says so, or fails with every violation.
    pub(crate) fn run(self) -> Result<()> {
        let (what, violations) = match self {
            Self::Layers => ("layers", layers::violations()?),
            Self::Shape => ("shape", shape::violations()?),
        };
        if violations.is_empty() {
            println!("{what}: in order");
            return Ok(());
        }
        let list = violations.join("\n  ");
        bail!("{what}: {} to mend\n  {list}", violations.len());
    }
}
