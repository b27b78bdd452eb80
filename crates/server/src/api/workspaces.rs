//! Workspaces of the caller.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use musterbeat_core::build::Transition;
use musterbeat_core::id::{BuildId, WorkspaceId};
use musterbeat_core::page::Limit;
use musterbeat_core::port::WorkspaceStore;
use uuid::Uuid;

use super::wire::{
    Build, Builds, CreateWorkspace, Given, Ordered, PageQuery, Workspace, WorkspacePage,
};
use crate::app::App;
use crate::http::extract::{Body, ChatUser, PathOf, QueryOf};
use crate::http::problem::{
    AnyProblem, BodyProblem, ObjectProblem, Problem, StateProblem, ValueProblem,
};
use crate::identity::Caller;

/// Makes a workspace of the caller: a prebuild is claimed if one is ready, else one is built.
#[utoipa::path(
    post,
    path = "/workspaces",
    operation_id = "create_workspace",
    tag = "workspaces",
    request_body = CreateWorkspace,
    responses((status = 201, description = "The workspace", body = Given), AnyProblem, ObjectProblem, BodyProblem, StateProblem),
)]
pub(super) async fn create(
    State(app): State<App>,
    ChatUser(caller): ChatUser,
    Body(body): Body<CreateWorkspace>,
) -> Result<(StatusCode, Json<Given>), Problem> {
    let order = body.checked(caller.owner)?;
    let workspace = app.workspaces.claim_or_create(&order).await?;
    let given = Given { workspace_id: workspace.uuid(), build_id: order.build.uuid() };
    Ok((StatusCode::CREATED, Json(given)))
}

/// Lists the caller's workspaces, the youngest first.
#[utoipa::path(
    get,
    path = "/workspaces",
    operation_id = "list_workspaces",
    tag = "workspaces",
    params(PageQuery),
    responses((status = 200, description = "A page of workspaces", body = WorkspacePage), AnyProblem, ValueProblem),
)]
pub(super) async fn list(
    State(app): State<App>,
    ChatUser(caller): ChatUser,
    QueryOf(query): QueryOf<PageQuery>,
) -> Result<Json<WorkspacePage>, Problem> {
    let limit = Limit::new(query.limit)?;
    let after = query.after.map(WorkspaceId::new);
    let workspaces = WorkspaceStore::list(&app.store, caller.owner, after, limit).await?;
    Ok(Json(WorkspacePage::of(workspaces, limit)))
}

/// Returns a workspace.
#[utoipa::path(
    get,
    path = "/workspaces/{id}",
    operation_id = "read_workspace",
    tag = "workspaces",
    params(("id" = Uuid, Path, description = "The workspace")),
    responses((status = 200, description = "The workspace", body = Workspace), AnyProblem, ObjectProblem),
)]
pub(super) async fn read(
    State(app): State<App>,
    ChatUser(caller): ChatUser,
    PathOf(id): PathOf<Uuid>,
) -> Result<Json<Workspace>, Problem> {
    let workspace = WorkspaceStore::get(&app.store, WorkspaceId::new(id), caller.reach()).await?;
    workspace.map(|workspace| Json(workspace.into())).ok_or_else(Problem::not_found)
}

/// Has a workspace deleted with all it holds.
#[utoipa::path(
    delete,
    path = "/workspaces/{id}",
    operation_id = "delete_workspace",
    tag = "workspaces",
    params(("id" = Uuid, Path, description = "The workspace")),
    responses((status = 202, description = "The build that deletes it", body = Ordered), AnyProblem, ObjectProblem, StateProblem),
)]
pub(super) async fn delete(
    State(app): State<App>,
    ChatUser(caller): ChatUser,
    PathOf(id): PathOf<Uuid>,
) -> Result<(StatusCode, Json<Ordered>), Problem> {
    build(&app, caller, id, Transition::Delete).await
}

/// Has a workspace started.
#[utoipa::path(
    post,
    path = "/workspaces/{id}/start",
    operation_id = "start_workspace",
    tag = "workspaces",
    params(("id" = Uuid, Path, description = "The workspace")),
    responses((status = 202, description = "The build that starts it", body = Ordered), AnyProblem, ObjectProblem, StateProblem),
)]
pub(super) async fn start(
    State(app): State<App>,
    ChatUser(caller): ChatUser,
    PathOf(id): PathOf<Uuid>,
) -> Result<(StatusCode, Json<Ordered>), Problem> {
    build(&app, caller, id, Transition::Start).await
}

/// Has a workspace stopped; what it holds stays.
#[utoipa::path(
    post,
    path = "/workspaces/{id}/stop",
    operation_id = "stop_workspace",
    tag = "workspaces",
    params(("id" = Uuid, Path, description = "The workspace")),
    responses((status = 202, description = "The build that stops it", body = Ordered), AnyProblem, ObjectProblem, StateProblem),
)]
pub(super) async fn stop(
    State(app): State<App>,
    ChatUser(caller): ChatUser,
    PathOf(id): PathOf<Uuid>,
) -> Result<(StatusCode, Json<Ordered>), Problem> {
    build(&app, caller, id, Transition::Stop).await
}

async fn build(
    app: &App,
    caller: Caller,
    workspace: Uuid,
    transition: Transition,
) -> Result<(StatusCode, Json<Ordered>), Problem> {
    let (workspace, build) = (WorkspaceId::new(workspace), BuildId::new(Uuid::now_v7()));
    app.workspaces.build(workspace, caller.reach(), build, transition).await?;
    Ok((StatusCode::ACCEPTED, Json(Ordered { build_id: build.uuid() })))
}

/// Lists the builds of a workspace, the youngest first; 200 at most.
#[utoipa::path(
    get,
    path = "/workspaces/{id}/builds",
    operation_id = "list_builds",
    tag = "workspaces",
    params(("id" = Uuid, Path, description = "The workspace")),
    responses((status = 200, description = "The builds", body = Builds), AnyProblem, ObjectProblem),
)]
pub(super) async fn builds(
    State(app): State<App>,
    ChatUser(caller): ChatUser,
    PathOf(id): PathOf<Uuid>,
) -> Result<Json<Builds>, Problem> {
    let builds = WorkspaceStore::builds(&app.store, WorkspaceId::new(id), caller.reach()).await?;
    let builds = builds.ok_or_else(Problem::not_found)?;
    Ok(Json(Builds { builds: builds.into_iter().map(Build::from).collect() }))
}
