//! The supply of pools.

use std::num::NonZeroU32;
use std::time::Duration;

use async_trait::async_trait;
use musterbeat_core::id::{BuildId, PresetId, WorkspaceId};
use musterbeat_core::port::{
    Deleted, DeletionOf, GlobalSnapshot, Prebuild, PrebuildStore, StoreError,
};
use sqlx::{Connection, PgConnection};
use tokio::time::timeout;
use uuid::Uuid;

use super::PgStore;
use crate::prebuilds::Shown;
use crate::{prebuilds, presets};

#[async_trait]
impl PrebuildStore for PgStore {
    async fn create(&self, preset: PresetId, wanted: u32) -> Result<Vec<BuildId>, StoreError> {
        let mut call = self.call("order prebuilds").await?;
        let created = timeout(self.answer_time, create(&mut call.conn, preset, wanted)).await;
        call.given_back(created).await
    }

    async fn delete(
        &self,
        preset: PresetId,
        which: DeletionOf,
        limit: u32,
    ) -> Result<Vec<BuildId>, StoreError> {
        let mut call = self.call("order the deletion of prebuilds").await?;
        let delete = delete(&mut call.conn, preset, which, limit);
        let deleted = timeout(self.answer_time, delete).await;
        call.given_back(deleted).await
    }

    async fn cancel(&self, preset: PresetId, limit: u32) -> Result<u64, StoreError> {
        let mut call = self.call("take prebuilds back").await?;
        let cancelled = timeout(self.answer_time, cancel(&mut call.conn, preset, limit)).await;
        call.given_back(cancelled).await
    }

    async fn mark_hard_limited(
        &self,
        preset: PresetId,
        failures: NonZeroU32,
    ) -> Result<bool, StoreError> {
        let mut call = self.call("mark a preset as hard limited").await?;
        let mark = presets::mark_hard_limited(&mut call.conn, preset, failures);
        let marked = timeout(self.answer_time, mark).await;
        call.given_back(marked).await
    }

    async fn pools(&self, preset: Option<PresetId>) -> Result<GlobalSnapshot, StoreError> {
        let mut call = self.call("look at the pools").await?;
        let shown = Shown { preset, while_paused: true, lookback: None };
        let read = timeout(self.answer_time, prebuilds::snapshot(&mut call.conn, shown)).await;
        call.ended(read)
    }

    async fn prebuilds(&self, preset: PresetId) -> Result<Vec<Prebuild>, StoreError> {
        let mut call = self.call("list prebuilds").await?;
        let listed = timeout(self.answer_time, prebuilds::list(&mut call.conn, preset)).await;
        call.ended(listed)
    }

    async fn forget(
        &self,
        which: Deleted,
        history: Duration,
        limit: u32,
    ) -> Result<u64, StoreError> {
        let mut call = self.call("forget deleted workspaces").await?;
        let forget = prebuilds::forget(&mut call.conn, which, history, limit);
        let forgotten = timeout(self.answer_time, forget).await;
        call.ended(forgotten)
    }

    async fn pause(&self, paused: bool) -> Result<(), StoreError> {
        let mut call = self.call("pause the supply of pools").await?;
        let written = timeout(self.answer_time, prebuilds::pause(&mut call.conn, paused)).await;
        call.ended(written)
    }
}

async fn create(
    conn: &mut PgConnection,
    preset: PresetId,
    wanted: u32,
) -> sqlx::Result<Vec<BuildId>> {
    let mut tx = conn.begin().await?;
    let Some(buildable) = presets::lock_buildable(&mut tx, preset).await? else {
        return Ok(vec![]);
    };
    let missing = wanted.saturating_sub(prebuilds::supply(&mut tx, preset).await?);
    if missing == 0 {
        return Ok(vec![]);
    }
    let new = (0..missing).map(|_| new_build(WorkspaceId::new(Uuid::now_v7())));
    let new: Vec<_> = new.collect();
    prebuilds::insert(&mut tx, preset, buildable.version, &new).await?;
    tx.commit().await?;
    Ok(new.into_iter().map(|(build, _)| build).collect())
}

async fn delete(
    conn: &mut PgConnection,
    preset: PresetId,
    which: DeletionOf,
    limit: u32,
) -> sqlx::Result<Vec<BuildId>> {
    let mut tx = conn.begin().await?;
    let condemned = prebuilds::condemn(&mut tx, preset, which, limit).await?;
    if condemned.is_empty() {
        return Ok(vec![]);
    }
    let dead = condemned.iter().filter(|condemned| condemned.is_dead_start).count();
    let new: Vec<_> =
        condemned.into_iter().map(|condemned| new_build(condemned.workspace)).collect();
    prebuilds::order_deletion(&mut tx, &new).await?;
    if dead > 0 {
        // Nobody was left to count them.
        let dead = u32::try_from(dead).unwrap_or(u32::MAX);
        presets::count_failures(&mut tx, preset, dead, false).await?;
    }
    tx.commit().await?;
    Ok(new.into_iter().map(|(build, _)| build).collect())
}

fn new_build(workspace: WorkspaceId) -> (BuildId, WorkspaceId) {
    (BuildId::new(Uuid::now_v7()), workspace)
}

async fn cancel(conn: &mut PgConnection, preset: PresetId, limit: u32) -> sqlx::Result<u64> {
    let mut tx = conn.begin().await?;
    let builds = prebuilds::lock_pending(&mut tx, preset, limit).await?;
    if builds.is_empty() {
        return Ok(0);
    }
    let cancelled = prebuilds::cancel(&mut tx, &builds).await?;
    tx.commit().await?;
    Ok(cancelled)
}
