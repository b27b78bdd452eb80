//! Templates, their presets and prebuilds, for tests that tell of them in a few lines.

use std::time::Duration;

use musterbeat_core::build::{Provisioned, Transition};
use musterbeat_core::id::{
    BuildId, PresetId, TemplateId, TemplateVersionId, WorkerId, WorkspaceId,
};
use musterbeat_core::port::{
    BuildStore, Claimed, Deleted, DeletionOf, Ended, NewTemplate, Pool, Prebuild, PrebuildStatus,
    PrebuildStore, ProvisionError, Reach, Room, RunStore, TemplateStore, WorkspaceError,
    WorkspaceStore,
};
use musterbeat_core::prebuild::{Action, Limits};
use musterbeat_core::run::{Run, RunKind};
use musterbeat_core::template::{NewPreset, NewVersion, PoolWish, TemplatePatch, TemplateRules};
use musterbeat_core::workspace::{Life, Order, Workspace};
use sqlx::{AssertSqlSafe, Postgres, Transaction};
use uuid::Uuid;

use crate::setup::{Fixture, owner};

pub(crate) type End = Result<Provisioned, ProvisionError>;

pub(crate) fn template(number: u128) -> TemplateId {
    TemplateId::new(Uuid::from_u128((1 << 96) + number))
}

pub(crate) fn version(number: u128) -> TemplateVersionId {
    TemplateVersionId::new(Uuid::from_u128((2 << 96) + number))
}

pub(crate) fn preset(number: u128) -> PresetId {
    PresetId::new(Uuid::from_u128((3 << 96) + number))
}

pub(crate) fn build(number: u128) -> BuildId {
    BuildId::new(Uuid::from_u128((4 << 96) + number))
}

/// A preset that wants `desired` prebuilds at any time.
pub(crate) fn new_preset(number: u128, desired: u32) -> NewPreset {
    NewPreset {
        id: preset(number),
        name: format!("preset {number}"),
        parameters: [("size".to_owned(), number.to_string())].into(),
        pool: PoolWish { desired, ..PoolWish::default() },
    }
}

/// A version that becomes active, with one preset of its number.
pub(crate) fn new_version(number: u128, desired: u32) -> NewVersion {
    NewVersion {
        id: version(number),
        name: format!("version {number}"),
        source: "rust".to_owned(),
        presets: vec![new_preset(number, desired)],
        activate: true,
    }
}

/// A template with one version of its number, which has one preset of its number.
pub(crate) fn new_template(number: u128, desired: u32) -> NewTemplate {
    NewTemplate {
        id: template(number),
        name: format!("template {number}"),
        rules: TemplateRules::default(),
        version: new_version(number, desired),
    }
}

/// What owner `number` orders with build `number`.
pub(crate) fn order(number: u128, preset: PresetId) -> Order {
    let name = format!("workspace {number}");
    Order { build: build(number), owner: owner(number), preset, name, life: Life::default() }
}

#[expect(clippy::unnecessary_wraps, reason = "the shape of an end")]
pub(crate) const fn succeeds() -> End {
    Ok(Provisioned { replacements: vec![] })
}

pub(crate) fn fails() -> End {
    Err(ProvisionError::Failed("no room".to_owned()))
}

pub(crate) fn is_invalid() -> End {
    Err(ProvisionError::Invalid("no such size".to_owned()))
}

impl Fixture {
    pub(crate) async fn sql(&self, sql: &str) {
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&self.pool).await.unwrap();
    }

    pub(crate) async fn number(&self, sql: &str) -> i64 {
        sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&self.pool).await.unwrap()
    }

    /// Returns how many rows each table has.
    pub(crate) async fn rows<const N: usize>(&self, tables: [&str; N]) -> [i64; N] {
        let mut counts = [0; N];
        for (count, table) in counts.iter_mut().zip(tables) {
            *count = self.number(&format!("select count(*) from {table}")).await;
        }
        counts
    }

    /// Makes a template whose preset wants `desired` prebuilds.
    pub(crate) async fn template(&self, number: u128, desired: u32) -> PresetId {
        TemplateStore::create(&self.store, &new_template(number, desired)).await.unwrap();
        preset(number)
    }

    /// Makes version `number` the active one of a template, with a preset of its own.
    pub(crate) async fn move_on(&self, of: u128, number: u128) -> PresetId {
        self.store.add_version(template(of), &new_version(number, 0)).await.unwrap();
        preset(number)
    }

    /// Sets how a template's workspaces live.
    pub(crate) async fn rule(&self, number: u128, rules: TemplateRules) {
        let patch = TemplatePatch { rules: Some(rules), ..TemplatePatch::default() };
        TemplateStore::update(&self.store, template(number), &patch).await.unwrap();
    }

    pub(crate) async fn order(&self, preset: PresetId, wanted: u32) -> Vec<BuildId> {
        PrebuildStore::create(&self.store, preset, wanted).await.unwrap()
    }

    pub(crate) async fn condemn(&self, preset: PresetId, which: DeletionOf) -> usize {
        PrebuildStore::delete(&self.store, preset, which, 1_000).await.unwrap().len()
    }

    /// Has a worker begin the builds that wait, up to `limit`, the one that was ordered first first.
    pub(crate) async fn begin(&self, limit: u32) -> Vec<Run> {
        let worker: WorkerId = self.worker(900).await;
        let mut runs =
            RunStore::claim(&self.store, worker, &RunKind::BUILD, Room::of(limit)).await.unwrap();
        runs.sort_by_key(|run| run.id);
        runs
    }

    pub(crate) async fn end(&self, run: &Run, end: &End) -> Ended {
        BuildStore::end(&self.store, run, end).await.unwrap()
    }

    /// Carries all builds out that wait.
    pub(crate) async fn build_all(&self, end: &End) -> Vec<Ended> {
        let mut ended = Vec::new();
        for run in self.begin(1_000).await {
            ended.push(self.end(&run, end).await);
        }
        ended
    }

    /// Has prebuilds of a preset ready to be claimed; returns their workspaces, the oldest first.
    pub(crate) async fn ready(&self, preset: PresetId, count: u32) -> Vec<WorkspaceId> {
        self.order(preset, count).await;
        self.build_all(&succeeds()).await;
        self.prebuilds(preset).await.into_iter().map(|prebuild| prebuild.workspace).collect()
    }

    pub(crate) async fn prebuilds(&self, preset: PresetId) -> Vec<Prebuild> {
        self.store.prebuilds(preset).await.unwrap()
    }

    /// Returns where a preset's prebuilds stand, the oldest first, such as `ready deleting`.
    pub(crate) async fn standing(&self, preset: PresetId) -> String {
        let prebuilds = self.prebuilds(preset).await;
        let words: Vec<_> = prebuilds.iter().map(|prebuild| prebuild.status.as_str()).collect();
        words.join(" ")
    }

    pub(crate) async fn count(&self, preset: PresetId, status: PrebuildStatus) -> usize {
        let prebuilds = self.prebuilds(preset).await;
        prebuilds.into_iter().filter(|prebuild| prebuild.status == status).count()
    }

    /// Makes a prebuild older, as if it had been ordered before.
    pub(crate) async fn age(&self, workspace: WorkspaceId, age: Duration) {
        sqlx::query("update prebuilds set created_at = created_at - $2 where workspace_id = $1")
            .bind(workspace.uuid())
            .bind(sqlx::postgres::types::PgInterval::try_from(age).unwrap())
            .execute(&self.pool)
            .await
            .unwrap();
    }

    pub(crate) async fn claim_prebuild(&self, order: &Order) -> Result<Claimed, WorkspaceError> {
        WorkspaceStore::claim(&self.store, order).await
    }

    /// Claims the oldest prebuild of a preset.
    pub(crate) async fn claimed(&self, number: u128, preset: PresetId) -> WorkspaceId {
        self.claim_prebuild(&order(number, preset)).await.unwrap().workspace
    }

    pub(crate) async fn look_at(&self, workspace: WorkspaceId) -> Option<Workspace> {
        WorkspaceStore::get(&self.store, workspace, Reach::Everything).await.unwrap()
    }

    /// Has somebody's workspace built once more.
    pub(crate) async fn rebuild(
        &self,
        workspace: WorkspaceId,
        number: u128,
        transition: Transition,
    ) -> Result<(), WorkspaceError> {
        let (reach, build) = (Reach::Everything, build(number));
        WorkspaceStore::build(&self.store, workspace, reach, build, transition).await
    }

    /// Forgets builds of what was deleted so many days ago.
    pub(crate) async fn forget(&self, which: Deleted, days: u64, limit: u32) -> u64 {
        let history = Duration::from_hours(24 * days);
        PrebuildStore::forget(&self.store, which, history, limit).await.unwrap()
    }

    /// Returns how a preset's pool stands; `None` when it neither wants nor has prebuilds.
    pub(crate) async fn pool_of(&self, preset: PresetId) -> Option<Pool> {
        self.store.pools(Some(preset)).await.unwrap().pools.pop()
    }

    /// Looks at one pool and does what is to be done; returns that in words.
    pub(crate) async fn reconcile(&self, preset: PresetId) -> String {
        let summary = self.store.pools(Some(preset)).await.unwrap();
        let Some(pool) = summary.pools.first() else { return String::new() };
        let (now, pool) = (summary.taken_at, &pool.preset);
        let wanted = pool.state(now).desired;
        let mut done = Vec::new();
        for action in pool.plan(now, &Limits::DEFAULT).actions {
            let (word, count) = match action {
                Action::Create(_) => ("create", self.order(preset, wanted).await.len()),
                Action::CancelPending(limit) => {
                    let cancelled = self.store.cancel(preset, limit).await.unwrap();
                    ("cancel", usize::try_from(cancelled).unwrap())
                }
                Action::DeleteOutdated(_) => {
                    ("outdated", self.condemn(preset, DeletionOf::Outdated).await)
                }
                Action::DeleteExpired(_) => {
                    ("expired", self.condemn(preset, DeletionOf::Expired).await)
                }
                Action::DeleteFailed(_) => {
                    ("failed", self.condemn(preset, DeletionOf::Failed).await)
                }
                Action::DeleteExtraneous(_) => {
                    let which = DeletionOf::Extraneous { wanted };
                    ("extraneous", self.condemn(preset, which).await)
                }
            };
            done.push(format!("{word} {count}"));
        }
        done.join(", ")
    }

    /// Holds a prebuild locked until the transaction ends.
    pub(crate) async fn hold_prebuild(
        &self,
        workspace: WorkspaceId,
    ) -> Transaction<'static, Postgres> {
        let mut holder = self.pool.begin().await.unwrap();
        sqlx::query("select from prebuilds where workspace_id = $1 for update")
            .bind(workspace.uuid())
            .execute(&mut *holder)
            .await
            .unwrap();
        holder
    }

    /// Makes each transaction that changes the workspace called `name`, or calls it so, wait in its
    /// commit for advisory lock 1.
    pub(crate) async fn hold_commits_of_workspace(&self, name: &str) {
        self.sql(&format!(
            "create function wait_for_the_gate() returns trigger language plpgsql as
                $$ begin perform pg_advisory_xact_lock(1); return null; end $$;
            create constraint trigger gate after update on workspaces deferrable initially deferred
                for each row when (new.name = '{name}') execute function wait_for_the_gate();"
        ))
        .await;
    }
}
