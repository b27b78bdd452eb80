//! Builds and what they say.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use musterbeat_core::id::{BuildId, RunId};
use musterbeat_core::port::{BuildStore, Reach};
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

use super::wire::{Build, BuildLog, log_place};
use crate::app::App;
use crate::http::extract::{ChatUser, PathOf, QueryOf};
use crate::http::problem::{AnyProblem, ObjectProblem, Problem, ValueProblem};

/// Which lines to return.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct From {
    /// `next` of the page before.
    #[param(pattern = "^[0-9]{1,18}-[0-9]{1,9}$")]
    after: Option<String>,
}

/// Returns a build.
#[utoipa::path(
    get,
    path = "/builds/{id}",
    operation_id = "read_build",
    tag = "builds",
    params(("id" = Uuid, Path, description = "The build")),
    responses((status = 200, description = "The build", body = Build), AnyProblem, ObjectProblem),
)]
pub(super) async fn read(
    State(app): State<App>,
    ChatUser(caller): ChatUser,
    PathOf(id): PathOf<Uuid>,
) -> Result<Json<Build>, Problem> {
    let build = app.store.state(BuildId::new(id), caller.reach()).await?;
    build.map(|build| Json(build.into())).ok_or_else(Problem::not_found)
}

/// Returns what a build said, 500 lines at most; while it goes on, ask again with `next`.
#[utoipa::path(
    get,
    path = "/builds/{id}/log",
    operation_id = "read_build_log",
    tag = "builds",
    params(("id" = Uuid, Path, description = "The build"), From),
    responses((status = 200, description = "Lines of the log", body = BuildLog), AnyProblem, ObjectProblem, ValueProblem),
)]
pub(super) async fn log(
    State(app): State<App>,
    ChatUser(caller): ChatUser,
    PathOf(id): PathOf<Uuid>,
    QueryOf(query): QueryOf<From>,
) -> Result<Json<BuildLog>, Problem> {
    let after = query.after.as_deref().map(log_place).transpose()?;
    let lines = app.store.lines(BuildId::new(id), caller.reach(), after).await?;
    let lines = lines.ok_or_else(Problem::not_found)?;
    Ok(Json(BuildLog::of(lines, after)))
}

/// Asks for a build to be stopped; it has failed then. One that has ended stays as it is.
#[utoipa::path(
    post,
    path = "/builds/{id}/interrupt",
    operation_id = "interrupt_build",
    tag = "builds",
    params(("id" = Uuid, Path, description = "The build")),
    responses((status = 202, description = "It was asked for"), AnyProblem, ObjectProblem),
)]
pub(super) async fn interrupt(
    State(app): State<App>,
    ChatUser(caller): ChatUser,
    PathOf(id): PathOf<Uuid>,
) -> Result<StatusCode, Problem> {
    let build = BuildId::new(id);
    // Whose it is its workspace says, and not its run: a prebuild's is nobody's.
    if app.store.state(build, caller.reach()).await?.is_none() {
        return Err(Problem::not_found());
    }
    app.runs.interrupt(RunId::from(build), Reach::Everything).await?;
    Ok(StatusCode::ACCEPTED)
}
