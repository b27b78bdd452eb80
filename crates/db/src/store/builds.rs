//! Builds: what they are to do, what they say, and how they end.

use async_trait::async_trait;
use musterbeat_core::build::{Build, Provisioned, Transition};
use musterbeat_core::id::{BuildId, PresetId, WorkspaceId};
use musterbeat_core::port::{BuildStore, Ended, ProvisionError, Reach, StoreError, WriteError};
use musterbeat_core::run::{Admission, Run, RunEnd, Token};
use musterbeat_core::workspace::{BuildState, LogLine, LogPlace};
use sqlx::{Connection, PgConnection};
use tokio::time::timeout;

use super::PgStore;
use super::runs::ending;
use crate::error::failed;
use crate::presets::Supplied;
use crate::{build_logs, builds, prebuilds, presets, runs, workspaces};

const END: &str = "write the end of a build";

#[async_trait]
impl BuildStore for PgStore {
    async fn work(&self, build: BuildId) -> Result<Option<Build>, StoreError> {
        let mut call = self.call("read what a build is to do").await?;
        let work = timeout(self.answer_time, builds::work(&mut call.conn, build)).await;
        call.ended(work)
    }

    async fn end(
        &self,
        run: &Run,
        end: &Result<Provisioned, ProvisionError>,
    ) -> Result<Ended, WriteError> {
        let mut call = self.call(END).await?;
        let ended = timeout(self.answer_time, write_end(&mut call.conn, run, end)).await;
        call.answered(ended)?
    }

    async fn log(
        &self,
        build: BuildId,
        token: Token,
        first: u32,
        lines: &[String],
    ) -> Result<(), StoreError> {
        let mut call = self.call("keep a build's log").await?;
        let append = build_logs::append(&mut call.conn, build, token.fence, first, lines);
        let appended = timeout(self.answer_time, append).await;
        call.ended(appended)
    }

    async fn state(&self, build: BuildId, reach: Reach) -> Result<Option<BuildState>, StoreError> {
        let mut call = self.call("read a build").await?;
        let list = builds::list(&mut call.conn, None, Some(build), reach);
        let found = timeout(self.answer_time, list).await;
        Ok(call.ended(found)?.pop())
    }

    async fn lines(
        &self,
        build: BuildId,
        reach: Reach,
        after: Option<LogPlace>,
    ) -> Result<Option<Vec<LogLine>>, StoreError> {
        let mut call = self.call("read a build's log").await?;
        let read = async {
            if builds::list(&mut call.conn, None, Some(build), reach).await?.is_empty() {
                return Ok(None);
            }
            build_logs::page(&mut call.conn, build, after).await.map(Some)
        };
        let lines = timeout(self.answer_time, read).await;
        call.ended(lines)
    }
}

async fn write_end(
    conn: &mut PgConnection,
    run: &Run,
    end: &Result<Provisioned, ProvisionError>,
) -> Result<Ended, WriteError> {
    let mut tx = conn.begin().await.map_err(failed(END))?;
    let locked =
        runs::lock(&mut tx, run.id, &run.kind, Reach::Everything).await.map_err(failed(END))?;
    match locked.map(|locked| locked.ownership.admit(&run.token)) {
        None | Some(Admission::Fenced) => return Err(WriteError::Fenced),
        Some(Admission::Repeated) => return Ok(Ended::default()),
        Some(Admission::Write) => {}
    }
    let ended = settle(&mut tx, run, end).await.map_err(failed(END))?;
    tx.commit().await.map_err(failed(END))?;
    Ok(ended)
}

/// Writes all that an end means; the run is locked.
async fn settle(
    conn: &mut PgConnection,
    run: &Run,
    end: &Result<Provisioned, ProvisionError>,
) -> sqlx::Result<Ended> {
    let build = BuildId::new(run.id.uuid());
    let (workspace, transition) =
        builds::subject(conn, build).await?.ok_or(sqlx::Error::RowNotFound)?;
    let preset = prebuilds::preset_of(conn, workspace).await?;
    let pool = match preset {
        Some(preset) => Some((preset, presets::lock(conn, preset).await?)),
        None => None,
    };
    let run_end = match end {
        Ok(_) => RunEnd::Done,
        Err(error) => RunEnd::Failed(error.to_string()),
    };
    runs::write(conn, run.id, &ending(run_end), None).await?;
    let replacements = end.as_ref().map_or(&[][..], |provisioned| &provisioned.replacements);
    builds::end(conn, build, replacements).await?;
    if end.is_ok() {
        workspaces::built(conn, workspace, transition).await?;
    }
    let Some(preset) = preset else { return Ok(Ended::default()) };
    match end {
        Ok(_) => {
            let supplied = advance(conn, workspace, preset, transition).await?;
            let needs_look = supplied.is_some_and(|supplied| supplied.is_full);
            let refilled = supplied.and_then(|supplied| supplied.refilled);
            Ok(Ended { pool, needs_look, refilled })
        }
        Err(error) => {
            set_back(conn, workspace, preset, transition, error).await?;
            Ok(Ended { pool, needs_look: true, refilled: None })
        }
    }
}

/// Says what a prebuild is after a build that succeeded, and what one more means to its pool.
async fn advance(
    conn: &mut PgConnection,
    workspace: WorkspaceId,
    preset: PresetId,
    transition: Transition,
) -> sqlx::Result<Option<Supplied>> {
    if transition == Transition::Delete {
        prebuilds::remove(conn, workspace).await?;
        return Ok(None);
    }
    prebuilds::set_ready(conn, workspace).await?;
    presets::count_success(conn, preset).await.map(Some)
}

/// Says what a prebuild is after a build that failed; only those that make one count.
async fn set_back(
    conn: &mut PgConnection,
    workspace: WorkspaceId,
    preset: PresetId,
    transition: Transition,
    error: &ProvisionError,
) -> sqlx::Result<()> {
    prebuilds::set_failed(conn, workspace).await?;
    if transition == Transition::Delete {
        return Ok(());
    }
    let invalid = matches!(error, ProvisionError::Invalid(_));
    presets::count_failures(conn, preset, 1, invalid).await
}
