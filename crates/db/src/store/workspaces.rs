//! Workspaces: claimed, made and built.

use async_trait::async_trait;
use musterbeat_core::build::Transition;
use musterbeat_core::id::{BuildId, OwnerId, WorkspaceId};
use musterbeat_core::page::Limit;
use musterbeat_core::port::{Claimed, Reach, StoreError, WorkspaceError, WorkspaceStore};
use musterbeat_core::run::RunKind;
use musterbeat_core::workspace::{BuildState, Order, Workspace};
use sqlx::{Connection, PgConnection};
use tokio::time::timeout;
use uuid::Uuid;

use super::PgStore;
use crate::error::{failed, is_taken};
use crate::{builds, prebuilds, presets, runs, workspaces};

const CLAIM: &str = "claim a prebuild";
const CREATE: &str = "create a workspace";
const BUILD: &str = "order a build";

#[async_trait]
impl WorkspaceStore for PgStore {
    async fn claim(&self, order: &Order) -> Result<Claimed, WorkspaceError> {
        let mut call = self.call(CLAIM).await?;
        let claimed = timeout(self.answer_time, claim(&mut call.conn, order)).await;
        call.answered(claimed)?
    }

    async fn create(&self, order: &Order) -> Result<WorkspaceId, WorkspaceError> {
        let mut call = self.call(CREATE).await?;
        let created = timeout(self.answer_time, create(&mut call.conn, order)).await;
        call.answered(created)?
    }

    async fn build(
        &self,
        workspace: WorkspaceId,
        reach: Reach,
        build: BuildId,
        transition: Transition,
    ) -> Result<(), WorkspaceError> {
        let mut call = self.call(BUILD).await?;
        let order = order_build(&mut call.conn, workspace, reach, build, transition);
        let ordered = timeout(self.answer_time, order).await;
        call.answered(ordered)?
    }

    async fn get(
        &self,
        workspace: WorkspaceId,
        reach: Reach,
    ) -> Result<Option<Workspace>, StoreError> {
        let mut call = self.call("read a workspace").await?;
        let get = workspaces::get(&mut call.conn, workspace, reach);
        let got = timeout(self.answer_time, get).await;
        call.ended(got)
    }

    async fn list(
        &self,
        owner: OwnerId,
        after: Option<WorkspaceId>,
        limit: Limit,
    ) -> Result<Vec<Workspace>, StoreError> {
        let mut call = self.call("list workspaces").await?;
        let list = workspaces::list(&mut call.conn, owner, after, limit);
        let listed = timeout(self.answer_time, list).await;
        call.ended(listed)
    }

    async fn builds(
        &self,
        workspace: WorkspaceId,
        reach: Reach,
    ) -> Result<Option<Vec<BuildState>>, StoreError> {
        let mut call = self.call("list builds").await?;
        let list = builds::list(&mut call.conn, Some(workspace), None, reach);
        let listed = timeout(self.answer_time, list).await;
        // Every workspace has a build.
        Ok(Some(call.ended(listed)?).filter(|builds| !builds.is_empty()))
    }
}

/// Tells what a statement failed of that writes a name.
fn refused(operation: &'static str) -> impl Fn(sqlx::Error) -> WorkspaceError {
    move |error| {
        if is_taken(&error) { WorkspaceError::NameTaken } else { failed(operation)(error).into() }
    }
}

async fn claim(conn: &mut PgConnection, order: &Order) -> Result<Claimed, WorkspaceError> {
    let mut tx = conn.begin().await.map_err(failed(CLAIM))?;
    let claimed = take(&mut tx, order).await;
    if claimed.is_ok() {
        tx.commit().await.map_err(failed(CLAIM))?;
    } else {
        // Not left to the pool: whoever asks again with another name finds the prebuild free.
        let _ = tx.rollback().await;
    }
    claimed
}

async fn take(conn: &mut PgConnection, order: &Order) -> Result<Claimed, WorkspaceError> {
    if !insert_run(conn, order.build, order.owner).await.map_err(failed(CLAIM))? {
        let workspace = ordered_before(conn, order).await?;
        return Ok(Claimed { workspace, pool: None });
    }
    let taken = prebuilds::take_ready(conn, order.preset).await.map_err(failed(CLAIM))?;
    let Some((workspace, pool)) = taken else {
        let preset = presets::get(conn, order.preset).await.map_err(failed(CLAIM))?;
        return Err(match preset {
            None => WorkspaceError::NotFound,
            Some(_) => WorkspaceError::NoClaimable,
        });
    };
    let built = builds::insert(conn, order.build, workspace, Transition::Claim).await;
    built.map_err(failed(CLAIM))?;
    workspaces::give(conn, workspace, order).await.map_err(refused(CLAIM))?;
    presets::note_claim(conn, order.preset).await.map_err(failed(CLAIM))?;
    Ok(Claimed { workspace, pool: Some(pool) })
}

async fn create(conn: &mut PgConnection, order: &Order) -> Result<WorkspaceId, WorkspaceError> {
    let mut tx = conn.begin().await.map_err(failed(CREATE))?;
    if !insert_run(&mut tx, order.build, order.owner).await.map_err(failed(CREATE))? {
        return ordered_before(&mut tx, order).await;
    }
    let workspace = WorkspaceId::new(Uuid::now_v7());
    if !workspaces::insert(&mut tx, workspace, order).await.map_err(refused(CREATE))? {
        let preset = presets::get(&mut tx, order.preset).await.map_err(failed(CREATE))?;
        return Err(match preset {
            None => WorkspaceError::NotFound,
            Some(_) => WorkspaceError::NotActive,
        });
    }
    let built = builds::insert(&mut tx, order.build, workspace, Transition::Start).await;
    built.map_err(failed(CREATE))?;
    tx.commit().await.map_err(failed(CREATE))?;
    Ok(workspace)
}

/// Adds the run of a build; returns false when it was added before.
async fn insert_run(conn: &mut PgConnection, build: BuildId, owner: OwnerId) -> sqlx::Result<bool> {
    runs::insert(conn, build.into(), &RunKind::BUILD, owner, None).await
}

/// Returns what an order came to that is repeated.
async fn ordered_before(
    conn: &mut PgConnection,
    order: &Order,
) -> Result<WorkspaceId, WorkspaceError> {
    let reach = Reach::Of(order.owner);
    let found = builds::list(conn, None, Some(order.build), reach).await.map_err(failed(BUILD))?;
    found.first().map(|build| build.workspace).ok_or(WorkspaceError::NotFound)
}

async fn order_build(
    conn: &mut PgConnection,
    workspace: WorkspaceId,
    reach: Reach,
    build: BuildId,
    transition: Transition,
) -> Result<(), WorkspaceError> {
    let mut tx = conn.begin().await.map_err(failed(BUILD))?;
    let locked = workspaces::lock(&mut tx, workspace, reach).await.map_err(failed(BUILD))?;
    let (owner, newest) = locked.ok_or(WorkspaceError::NotFound)?;
    if let Some((of, _)) = builds::subject(&mut tx, build).await.map_err(failed(BUILD))? {
        return if of == workspace { Ok(()) } else { Err(WorkspaceError::NotFound) };
    }
    if builds::is_under_way(&mut tx, newest).await.map_err(failed(BUILD))? {
        return Err(WorkspaceError::Busy);
    }
    // What is no build and bears its id is none of this caller's.
    if !insert_run(&mut tx, build, owner).await.map_err(failed(BUILD))? {
        return Err(WorkspaceError::NotFound);
    }
    builds::insert(&mut tx, build, workspace, transition).await.map_err(failed(BUILD))?;
    workspaces::set_build(&mut tx, workspace, build).await.map_err(failed(BUILD))?;
    tx.commit().await.map_err(failed(BUILD))?;
    Ok(())
}
