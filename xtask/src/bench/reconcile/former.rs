//! The original's cycle, on our tables.
//!
//! One read-only transaction holds a lock and a connection from the first query to the end of the
//! last task. Seven queries read everything as lists, each preset is filtered out of all of them,
//! and creates of a preset come one after the other, a transaction each. Its builder asks and
//! writes more for each of them; here it is the four rows that ours writes.

use std::num::NonZeroU32;

use anyhow::{Context, Result, bail, ensure};
use async_trait::async_trait;
use musterbeat_core::id::OwnerId;
use musterbeat_core::prebuild::{Action, Limits};
use musterbeat_core::timestamp::Timestamp;
use sqlx::{PgPool, Postgres, Transaction};
use time::OffsetDateTime;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::way::Cycle;
use lists::Lists;

mod lists;

/// Names its lock.
const LOCK: i64 = 7_100;

const BEGIN: &str = "begin isolation level repeatable read read only";

/// Rows of one prebuild, in the order in which they refer to each other.
const RUN: &str = "
    insert into runs (run_id, kind, status, owner_id, version)
    values ($1, 'build', 'pending', $2, 1)";
const WORKSPACE: &str = "
    insert into workspaces (id, template_version_id, preset_id, name, build_id)
    values ($1, $2, $3, $4, $5)";
const BUILD: &str = "
    insert into builds (id, workspace_id, transition) values ($1, $2, 'start')";
const PREBUILD: &str = "
    insert into prebuilds (workspace_id, preset_id, status, build_id)
    values ($1, $2, 'starting', $3)";

/// The original's reconciler.
pub(super) struct Original {
    pool: PgPool,
    /// Presets that are worked on at once.
    concurrency: usize,
}

impl Original {
    pub(super) fn new(pool: &PgPool) -> Self {
        let connections = pool.options().get_max_connections();
        // With a cap that does not grow with the pool.
        let concurrency = (connections / 2).clamp(1, 5) as usize;
        Self { pool: pool.clone(), concurrency }
    }
}

#[async_trait]
impl Cycle for Original {
    async fn cycle(&self) -> Result<u64> {
        let failed = "the original's look at the pools failed";
        let mut tx = self.pool.begin_with(BEGIN).await.context(failed)?;
        let leads: bool = sqlx::query_scalar("select pg_try_advisory_xact_lock($1)")
            .bind(LOCK)
            .fetch_one(&mut *tx)
            .await
            .context(failed)?;
        ensure!(leads, "somebody else has the original's lock");
        let paused: bool = sqlx::query_scalar("select paused from prebuild_settings")
            .fetch_one(&mut *tx)
            .await
            .context(failed)?;
        ensure!(!paused, "the supply is paused");
        let lists = Lists::read(&mut tx).await.context(failed)?;
        let done = self.attend(&lists).await;
        // Held until here, as the original does.
        tx.commit().await.context("the original's look could not end")?;
        done
    }
}

impl Original {
    /// Does what is to be done for every preset; returns for how many a task was begun.
    async fn attend(&self, lists: &Lists) -> Result<u64> {
        let now = Timestamp::new(OffsetDateTime::now_utc());
        let (mut tasks, mut begun) = (JoinSet::new(), 0);
        for preset in &lists.presets {
            let snapshot = lists.of(preset, now);
            if snapshot.can_skip() {
                continue;
            }
            while self.concurrency <= tasks.len() {
                tasks.join_next().await.context("there is no task")?.context("one broke off")??;
            }
            let (pool, id, version) = (self.pool.clone(), preset.id, preset.version);
            tasks.spawn(async move {
                for action in snapshot.plan(now, &Limits::DEFAULT).actions {
                    let Action::Create(missing) = action else { bail!("{action:?} is not told") };
                    create(&pool, id, version, missing).await?;
                }
                Ok(())
            });
            begun += 1;
        }
        while let Some(task) = tasks.join_next().await {
            task.context("one broke off")??;
        }
        Ok(begun)
    }
}

/// Orders prebuilds of one preset, one after the other.
async fn create(pool: &PgPool, preset: Uuid, version: Uuid, missing: u32) -> Result<()> {
    for _ in 0..missing {
        let failed = "the original could not order a prebuild";
        let mut tx = pool.begin().await.context(failed)?;
        insert(&mut tx, preset, version).await.context(failed)?;
        tx.commit().await.context(failed)?;
    }
    Ok(())
}

async fn insert(
    tx: &mut Transaction<'_, Postgres>,
    preset: Uuid,
    version: Uuid,
) -> sqlx::Result<()> {
    let (workspace, build) = (Uuid::now_v7(), Uuid::now_v7());
    let name = format!("prebuild-{}", &workspace.simple().to_string()[20..]);
    sqlx::query(RUN).bind(build).bind(OwnerId::POOL.uuid()).execute(&mut **tx).await?;
    let row = sqlx::query(WORKSPACE).bind(workspace).bind(version).bind(preset);
    row.bind(name).bind(build).execute(&mut **tx).await?;
    sqlx::query(BUILD).bind(build).bind(workspace).execute(&mut **tx).await?;
    let row = sqlx::query(PREBUILD).bind(workspace).bind(preset);
    row.bind(build).execute(&mut **tx).await?;
    Ok(())
}

/// Failures after which it makes nothing any more.
const HARD_LIMIT: Option<NonZeroU32> = Limits::DEFAULT.failure_hard_limit;
