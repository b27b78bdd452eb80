//! What is said and shown of workspaces, builds and pools.

use std::time::Duration;

use musterbeat_core::build::Transition;
use musterbeat_core::id::{BuildId, OwnerId, PresetId};
use musterbeat_core::invalid::Invalid;
use musterbeat_core::page::Limit;
use musterbeat_core::port;
use musterbeat_core::run::RunStatus;
use musterbeat_core::timestamp::Timestamp;
use musterbeat_core::workspace::{self, Life, LogPlace, Order};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use super::template::Health;

/// A prebuild to claim.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({ "name": "blue" })))]
pub(crate) struct ClaimPrebuild {
    /// Names the claim, so that it may be sent again; by default a new one.
    #[serde(default)]
    #[schema(nullable = false)]
    build_id: Option<Uuid>,
    /// What to call the workspace, at most 64 bytes; unique among the caller's.
    #[schema(pattern = r"^[^\x00]*[^\s\x00][^\x00]*$", max_length = 64)]
    name: String,
    /// When whoever starts workspaces is to start it; kept as it is.
    #[serde(default)]
    #[schema(max_length = 200)]
    autostart_schedule: Option<String>,
    /// When that is next.
    #[serde(default, with = "time::serde::rfc3339::option")]
    next_start_at: Option<OffsetDateTime>,
    /// Seconds that it may run once started; by default as its template says.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 31_536_000)]
    ttl: Option<u32>,
}

impl ClaimPrebuild {
    pub(crate) fn checked(self, preset: PresetId, owner: OwnerId) -> Result<Order, Invalid> {
        let order = Order {
            build: BuildId::new(self.build_id.unwrap_or_else(Uuid::now_v7)),
            owner,
            preset,
            name: self.name,
            life: Life {
                autostart_schedule: self.autostart_schedule,
                next_start_at: self.next_start_at.map(Timestamp::new),
                ttl: self.ttl.map(|seconds| Duration::from_secs(seconds.into())),
            },
        };
        order.check()?;
        Ok(order)
    }
}

/// A workspace to make.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CreateWorkspace {
    /// The preset that it is built with; a prebuild of it is claimed if one is ready.
    preset_id: Uuid,
    /// Names its first build, so that it may be sent again; by default a new one.
    #[serde(default)]
    #[schema(nullable = false)]
    build_id: Option<Uuid>,
    /// What to call it, at most 64 bytes; unique among the caller's.
    #[schema(pattern = r"^[^\x00]*[^\s\x00][^\x00]*$", max_length = 64)]
    name: String,
    /// When whoever starts workspaces is to start it; kept as it is.
    #[serde(default)]
    #[schema(max_length = 200)]
    autostart_schedule: Option<String>,
    /// When that is next.
    #[serde(default, with = "time::serde::rfc3339::option")]
    next_start_at: Option<OffsetDateTime>,
    /// Seconds that it may run once started; by default as its template says.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 31_536_000)]
    ttl: Option<u32>,
}

impl CreateWorkspace {
    pub(crate) fn checked(self, owner: OwnerId) -> Result<Order, Invalid> {
        let preset = PresetId::new(self.preset_id);
        let Self { build_id, name, autostart_schedule, next_start_at, ttl, .. } = self;
        let claim = ClaimPrebuild { build_id, name, autostart_schedule, next_start_at, ttl };
        claim.checked(preset, owner)
    }
}

/// The workspace that was claimed or made.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Given {
    pub(crate) workspace_id: Uuid,
    /// The build that finishes it.
    pub(crate) build_id: Uuid,
}

/// A build that was ordered.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Ordered {
    pub(crate) build_id: Uuid,
}

/// A workspace.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Workspace {
    id: Uuid,
    name: String,
    /// Whose it is; null of a prebuild.
    #[schema(required)]
    owner_id: Option<Uuid>,
    template_id: Uuid,
    version_id: Uuid,
    #[schema(required)]
    preset_id: Option<Uuid>,
    /// Its newest build.
    build: Build,
    #[schema(required)]
    autostart_schedule: Option<String>,
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(required)]
    next_start_at: Option<OffsetDateTime>,
    /// Seconds that it may run once started; null as its template says.
    #[schema(required)]
    ttl: Option<u64>,
    /// When somebody or something last worked in it.
    #[serde(with = "time::serde::rfc3339")]
    last_used_at: OffsetDateTime,
    /// Until when it is to run; null while it is stopped or for ever.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(required)]
    deadline: Option<OffsetDateTime>,
    /// Where activity stops moving the deadline.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(required)]
    max_deadline: Option<OffsetDateTime>,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
}

impl From<workspace::Workspace> for Workspace {
    fn from(workspace: workspace::Workspace) -> Self {
        Self {
            id: workspace.id.uuid(),
            name: workspace.name,
            owner_id: workspace.owner.map(OwnerId::uuid),
            template_id: workspace.template.uuid(),
            version_id: workspace.version.uuid(),
            preset_id: workspace.preset.map(PresetId::uuid),
            build: workspace.build.into(),
            autostart_schedule: workspace.life.autostart_schedule,
            next_start_at: workspace.life.next_start_at.map(Timestamp::time),
            ttl: workspace.life.ttl.map(|ttl| ttl.as_secs()),
            last_used_at: workspace.last_used_at.time(),
            deadline: workspace.deadline.map(Timestamp::time),
            max_deadline: workspace.max_deadline.map(Timestamp::time),
            created_at: workspace.created_at.time(),
        }
    }
}

/// Workspaces of the caller, the youngest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WorkspacePage {
    workspaces: Vec<Workspace>,
    /// Send it as `after` for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    next: Option<Uuid>,
}

impl WorkspacePage {
    /// Shows a page; one with as many workspaces as allowed goes on.
    pub(crate) fn of(workspaces: Vec<workspace::Workspace>, limit: Limit) -> Self {
        let next = limit.end_of(&workspaces).map(|last| last.id.uuid());
        Self { workspaces: workspaces.into_iter().map(Workspace::from).collect(), next }
    }
}

/// What takes a workspace from one state to another.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Build {
    id: Uuid,
    workspace_id: Uuid,
    #[schema(inline)]
    transition: TransitionWord,
    #[schema(inline)]
    status: BuildStatus,
    /// Why it failed.
    #[schema(required)]
    error: Option<String>,
    /// What a claim would have to build anew, or had to.
    replacements: Vec<String>,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(required)]
    ended_at: Option<OffsetDateTime>,
}

/// Where a build takes its workspace.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TransitionWord {
    Start,
    Claim,
    Stop,
    Delete,
}

/// Where a build stands.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BuildStatus {
    /// It waits for a worker.
    Pending,
    /// A worker carries it out.
    Running,
    /// A worker was asked to stop it.
    Stopping,
    /// It is done.
    Succeeded,
    /// It failed.
    Failed,
}

impl From<workspace::BuildState> for Build {
    fn from(build: workspace::BuildState) -> Self {
        Self {
            id: build.id.uuid(),
            workspace_id: build.workspace.uuid(),
            transition: match build.transition {
                Transition::Start => TransitionWord::Start,
                Transition::Claim => TransitionWord::Claim,
                Transition::Stop => TransitionWord::Stop,
                Transition::Delete => TransitionWord::Delete,
            },
            status: match build.status {
                RunStatus::Pending => BuildStatus::Pending,
                RunStatus::Running => BuildStatus::Running,
                RunStatus::Interrupting => BuildStatus::Stopping,
                RunStatus::Waiting => BuildStatus::Succeeded,
                RunStatus::Error => BuildStatus::Failed,
            },
            error: build.error,
            replacements: build.replacements,
            created_at: build.created_at.time(),
            ended_at: build.ended_at.map(Timestamp::time),
        }
    }
}

/// Builds of a workspace, the youngest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Builds {
    pub(crate) builds: Vec<Build>,
}

/// Lines of a build's log.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BuildLog {
    /// In the order in which they were said.
    lines: Vec<String>,
    /// Send it as `after` for what follows.
    #[schema(required)]
    next: Option<String>,
}

impl BuildLog {
    /// Shows lines that follow a place.
    pub(crate) fn of(lines: Vec<workspace::LogLine>, after: Option<LogPlace>) -> Self {
        let next = lines.last().map(|line| line.place).or(after);
        Self {
            next: next.map(|place| format!("{}-{}", place.fence, place.line)),
            lines: lines.into_iter().map(|line| line.text).collect(),
        }
    }
}

/// Reads a place of a log as a page shows it.
pub(crate) fn log_place(text: &str) -> Result<LogPlace, Invalid> {
    let parse = || {
        let (fence, line) = text.split_once('-')?;
        Some(LogPlace { fence: fence.parse().ok()?, line: line.parse().ok()? })
    };
    parse().ok_or_else(|| Invalid::new("after", "is not the `next` of an earlier page"))
}

/// How the pools stand.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Pools {
    /// Whether nothing is created or deleted.
    paused: bool,
    /// Presets that want or have prebuilds, by name.
    pools: Vec<Pool>,
}

/// A preset's prebuilds.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Pool {
    preset_id: Uuid,
    template_name: String,
    preset_name: String,
    /// Whether its version is active.
    is_active: bool,
    #[schema(inline)]
    health: Health,
    /// How many are wanted now.
    desired: u32,
    /// How many can be claimed.
    ready: u32,
    /// How many are being built, or wait for it.
    starting: u32,
    /// How many are too old and are to be replaced.
    expired: u32,
    /// How many are being deleted.
    deleting: u32,
    /// How many could not be built or deleted, and are to be deleted.
    failed: u32,
    /// How many builds failed in a row.
    failures: u32,
    /// Age of the oldest that can be claimed.
    #[schema(required)]
    oldest_seconds: Option<f64>,
}

impl Pools {
    pub(crate) fn of(snapshot: port::GlobalSnapshot) -> Self {
        let now = snapshot.taken_at;
        let pools = snapshot.pools.into_iter().map(|pool| {
            let preset = pool.preset;
            Pool {
                preset_id: preset.preset.uuid(),
                desired: preset.state(now).desired,
                template_name: pool.name.template,
                preset_name: pool.name.preset,
                is_active: preset.is_active,
                health: preset.health.into(),
                ready: preset.eligible,
                starting: preset.starting,
                expired: preset.expired,
                deleting: preset.deleting,
                failed: preset.failed,
                failures: preset.failures.in_a_row,
                oldest_seconds: pool.oldest.map(|age| age.as_secs_f64()),
            }
        });
        Self { paused: snapshot.paused, pools: pools.collect() }
    }
}

/// A prebuild.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Prebuild {
    workspace_id: Uuid,
    name: String,
    /// `starting`, `ready`, `deleting` or `failed`.
    status: &'static str,
    /// Its newest build.
    build_id: Uuid,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
}

impl From<port::Prebuild> for Prebuild {
    fn from(prebuild: port::Prebuild) -> Self {
        Self {
            workspace_id: prebuild.workspace.uuid(),
            name: prebuild.name,
            status: prebuild.status.as_str(),
            build_id: prebuild.build.uuid(),
            created_at: prebuild.created_at.time(),
        }
    }
}
