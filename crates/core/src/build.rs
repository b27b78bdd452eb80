//! Builds: what makes a workspace out of a version of a template, and takes it away again.

use std::collections::BTreeMap;

use crate::id::{BuildId, OwnerId, WorkspaceId};

/// Where a build takes its workspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transition {
    /// It is made, or started again.
    Start,
    /// A prebuild that runs becomes somebody's: it bears another name and has an owner.
    Claim,
    /// It is stopped; what it holds stays.
    Stop,
    /// It is taken away with all it holds.
    Delete,
}

impl Transition {
    /// Returns the word that metrics and programs use.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Claim => "claim",
            Self::Stop => "stop",
            Self::Delete => "delete",
        }
    }
}

/// One build of a workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Build {
    /// Its run.
    pub id: BuildId,
    /// What is built.
    pub workspace: WorkspaceId,
    /// Where it takes the workspace.
    pub transition: Transition,
    /// What the workspace is called.
    pub name: String,
    /// Whose it is; `None` of a prebuild.
    pub owner: Option<OwnerId>,
    /// What the version of the template is made of, as its provisioner reads it.
    pub source: String,
    /// What the preset sets.
    pub parameters: BTreeMap<String, String>,
}

/// What a build came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Provisioned {
    /// What a claim would have to build anew, or had to: each makes claims slower.
    pub replacements: Vec<String>,
}
