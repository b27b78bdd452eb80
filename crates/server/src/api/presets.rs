//! Presets and their pools of prebuilds.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use musterbeat_core::id::{PresetId, TemplateId};
use musterbeat_core::port::{PrebuildStore, TemplateStore};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::wire::{ClaimPrebuild, CreatePreset, Given, PatchPreset, Pools, Prebuild, Preset};
use crate::app::App;
use crate::http::extract::{Admin, Body, ChatUser, PathOf, QueryOf};
use crate::http::problem::{
    AnyProblem, BodyProblem, ObjectProblem, Problem, StateProblem, deleted,
};

/// A preset that was added.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CreatedPreset {
    id: Uuid,
}

/// Presets of active versions.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Presets {
    /// By the names of template and preset.
    presets: Vec<Preset>,
}

/// Prebuilds of a preset.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Prebuilds {
    /// The oldest first.
    prebuilds: Vec<Prebuild>,
}

/// Which presets to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct List {
    /// Only those of this template.
    template_id: Option<Uuid>,
}

/// Whether pools are supplied.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Pause {
    /// Whether nothing is to be created or deleted.
    paused: bool,
}

/// Adds a preset to a version.
#[utoipa::path(
    post,
    path = "/presets",
    operation_id = "create_preset",
    tag = "presets",
    request_body = CreatePreset,
    responses((status = 201, description = "The preset", body = CreatedPreset), AnyProblem, ObjectProblem, BodyProblem, StateProblem),
)]
pub(super) async fn create(
    State(app): State<App>,
    _admin: Admin,
    Body(body): Body<CreatePreset>,
) -> Result<(StatusCode, Json<CreatedPreset>), Problem> {
    let (version, preset) = body.checked()?;
    app.workspaces.add_preset(version, &preset).await?;
    Ok((StatusCode::CREATED, Json(CreatedPreset { id: preset.id.uuid() })))
}

/// Lists the presets of active versions.
#[utoipa::path(
    get,
    path = "/presets",
    operation_id = "list_presets",
    tag = "presets",
    params(List),
    responses((status = 200, description = "The presets", body = Presets), AnyProblem),
)]
pub(super) async fn list(
    State(app): State<App>,
    _caller: ChatUser,
    QueryOf(query): QueryOf<List>,
) -> Result<Json<Presets>, Problem> {
    let presets = app.store.presets(query.template_id.map(TemplateId::new)).await?;
    Ok(Json(Presets { presets: presets.into_iter().map(Preset::from).collect() }))
}

/// Returns a preset.
#[utoipa::path(
    get,
    path = "/presets/{id}",
    operation_id = "read_preset",
    tag = "presets",
    params(("id" = Uuid, Path, description = "The preset")),
    responses((status = 200, description = "The preset", body = Preset), AnyProblem, ObjectProblem),
)]
pub(super) async fn read(
    State(app): State<App>,
    _caller: ChatUser,
    PathOf(id): PathOf<Uuid>,
) -> Result<Json<Preset>, Problem> {
    let preset = app.store.preset(PresetId::new(id)).await?;
    preset.map(|preset| Json(preset.into())).ok_or_else(Problem::not_found)
}

/// Changes how many prebuilds a preset wants, or has those from before replaced; it is healthy
/// again then, and its failures are forgotten.
#[utoipa::path(
    patch,
    path = "/presets/{id}",
    operation_id = "change_preset",
    tag = "presets",
    params(("id" = Uuid, Path, description = "The preset")),
    request_body = PatchPreset,
    responses((status = 200, description = "The preset as it is then", body = Preset), AnyProblem, ObjectProblem, BodyProblem),
)]
pub(super) async fn change(
    State(app): State<App>,
    _admin: Admin,
    PathOf(id): PathOf<Uuid>,
    Body(body): Body<PatchPreset>,
) -> Result<Json<Preset>, Problem> {
    let patch = body.checked()?;
    let preset = app.workspaces.update_preset(PresetId::new(id), &patch).await?;
    Ok(Json(preset.into()))
}

/// Deletes a preset: its prebuilds go, its workspaces stay.
#[utoipa::path(
    delete,
    path = "/presets/{id}",
    operation_id = "delete_preset",
    tag = "presets",
    params(("id" = Uuid, Path, description = "The preset")),
    responses((status = 204, description = "It is gone"), AnyProblem, ObjectProblem),
)]
pub(super) async fn delete(
    State(app): State<App>,
    _admin: Admin,
    PathOf(id): PathOf<Uuid>,
) -> Result<StatusCode, Problem> {
    deleted(app.workspaces.delete_preset(PresetId::new(id)).await?)
}

/// Lists the prebuilds of a preset, the oldest first; 1,000 at most.
#[utoipa::path(
    get,
    path = "/presets/{id}/prebuilds",
    operation_id = "list_prebuilds",
    tag = "presets",
    params(("id" = Uuid, Path, description = "The preset")),
    responses((status = 200, description = "The prebuilds", body = Prebuilds), AnyProblem, ObjectProblem),
)]
pub(super) async fn prebuilds(
    State(app): State<App>,
    _caller: ChatUser,
    PathOf(id): PathOf<Uuid>,
) -> Result<Json<Prebuilds>, Problem> {
    let id = PresetId::new(id);
    let prebuilds = app.store.prebuilds(id).await?;
    if prebuilds.is_empty() && app.store.preset(id).await?.is_none() {
        return Err(Problem::not_found());
    }
    Ok(Json(Prebuilds { prebuilds: prebuilds.into_iter().map(Prebuild::from).collect() }))
}

/// Claims the oldest prebuild that is ready: it is the caller's at once, and another is built.
#[utoipa::path(
    post,
    path = "/presets/{id}/claim",
    operation_id = "claim_prebuild",
    tag = "presets",
    params(("id" = Uuid, Path, description = "The preset")),
    request_body = ClaimPrebuild,
    responses((status = 200, description = "The workspace", body = Given), AnyProblem, ObjectProblem, BodyProblem, StateProblem),
)]
pub(super) async fn claim(
    State(app): State<App>,
    ChatUser(caller): ChatUser,
    PathOf(id): PathOf<Uuid>,
    Body(body): Body<ClaimPrebuild>,
) -> Result<Json<Given>, Problem> {
    let order = body.checked(PresetId::new(id), caller.owner)?;
    let workspace = app.workspaces.claim(&order).await?;
    Ok(Json(Given { workspace_id: workspace.uuid(), build_id: order.build.uuid() }))
}

/// Shows how the pools of all presets stand.
#[utoipa::path(
    get,
    path = "/pools",
    operation_id = "list_pools",
    tag = "pools",
    responses((status = 200, description = "The pools", body = Pools), AnyProblem),
)]
pub(super) async fn pools(
    State(app): State<App>,
    _caller: ChatUser,
) -> Result<Json<Pools>, Problem> {
    Ok(Json(Pools::of(app.store.pools(None).await?)))
}

/// Pauses the supply of all pools, or goes on with it; claims go on meanwhile.
#[utoipa::path(
    put,
    path = "/pools/paused",
    operation_id = "pause_pools",
    tag = "pools",
    request_body = Pause,
    responses((status = 200, description = "The pools as they are then", body = Pools), AnyProblem, BodyProblem),
)]
pub(super) async fn pause(
    State(app): State<App>,
    _admin: Admin,
    Body(body): Body<Pause>,
) -> Result<Json<Pools>, Problem> {
    app.workspaces.pause(body.paused).await?;
    Ok(Json(Pools::of(app.store.pools(None).await?)))
}
