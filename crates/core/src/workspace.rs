//! Workspaces: what is built of a template for somebody, or in advance for nobody yet.

use std::time::Duration;

use crate::build::Transition;
use crate::id::{BuildId, OwnerId, PresetId, TemplateId, TemplateVersionId, WorkspaceId};
use crate::invalid::{Invalid, check_text};
use crate::run::RunStatus;
use crate::template::{NAME_BYTES_MAX, check_time};
use crate::timestamp::Timestamp;

/// Bytes of an autostart schedule, at most.
pub const AUTOSTART_BYTES_MAX: usize = 200;

/// A workspace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workspace {
    /// Names it.
    pub id: WorkspaceId,
    /// Whose it is; `None` of a prebuild.
    pub owner: Option<OwnerId>,
    /// What people call it.
    pub name: String,
    /// Of which template.
    pub template: TemplateId,
    /// Of which version of it.
    pub version: TemplateVersionId,
    /// With what it was built.
    pub preset: Option<PresetId>,
    /// Its newest build.
    pub build: BuildState,
    /// How it lives.
    pub life: Life,
    /// When somebody or something last worked in it.
    pub last_used_at: Timestamp,
    /// Until when it is to run; `None` while it is stopped or for ever.
    pub deadline: Option<Timestamp>,
    /// Where activity stops moving the deadline.
    pub max_deadline: Option<Timestamp>,
    /// When it was created.
    pub created_at: Timestamp,
}

/// What a workspace's owner says about its life.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Life {
    /// When whoever starts workspaces is to start it; kept as it is.
    pub autostart_schedule: Option<String>,
    /// When that is next.
    pub next_start_at: Option<Timestamp>,
    /// How long it may run once started; `None` as its template says.
    pub ttl: Option<Duration>,
}

impl Life {
    /// Checks everything about it.
    ///
    /// # Errors
    /// Names the field and its limit.
    pub fn check(&self) -> Result<(), Invalid> {
        if let Some(schedule) = &self.autostart_schedule {
            check_text("autostart_schedule", schedule, AUTOSTART_BYTES_MAX)?;
        }
        self.ttl.map_or(Ok(()), |ttl| check_time("ttl", ttl))
    }
}

/// A workspace to make, or to claim: who asks, for what, and how it is to be called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Order {
    /// Names the build that makes or claims it; repeated with the same, nothing more happens.
    pub build: BuildId,
    /// For whom.
    pub owner: OwnerId,
    /// Of which preset.
    pub preset: PresetId,
    /// What people will call it; unique among the owner's.
    pub name: String,
    /// How it is to live.
    pub life: Life,
}

impl Order {
    /// Checks everything about it.
    ///
    /// # Errors
    /// Names the field and its limit.
    pub fn check(&self) -> Result<(), Invalid> {
        check_text("name", &self.name, NAME_BYTES_MAX)?;
        self.life.check()
    }
}

/// How a build stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildState {
    /// Its run.
    pub id: BuildId,
    /// What is built.
    pub workspace: WorkspaceId,
    /// Where it takes the workspace.
    pub transition: Transition,
    /// Where its run stands: in `Waiting` it has succeeded, in `Error` failed.
    pub status: RunStatus,
    /// Why it failed.
    pub error: Option<String>,
    /// What a claim would have to build anew, or had to.
    pub replacements: Vec<String>,
    /// When it was asked for.
    pub created_at: Timestamp,
    /// When its worker wrote its end.
    pub ended_at: Option<Timestamp>,
}

/// A line of a build's log, and where it stands: lines are sorted by that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Where it stands.
    pub place: LogPlace,
    /// What it says.
    pub text: String,
}

/// Where a line stands in a build's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogPlace {
    /// Under which ownership of the run it was said: a build may be begun again.
    pub fence: i64,
    /// Counts the lines of that ownership, from 0.
    pub line: i32,
}
