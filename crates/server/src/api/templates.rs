//! Templates and their versions.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use musterbeat_core::id::TemplateId;
use musterbeat_core::port::TemplateStore;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::wire::{AddVersion, CreateTemplate, PatchTemplate, Template, TemplateVersion};
use crate::app::App;
use crate::http::extract::{Admin, Body, ChatUser, PathOf};
use crate::http::problem::{
    AnyProblem, BodyProblem, ObjectProblem, Problem, StateProblem, deleted,
};

/// A template that was created, and its version.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CreatedTemplate {
    id: Uuid,
    version_id: Uuid,
}

/// A version that was added.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AddedVersion {
    id: Uuid,
}

/// All templates.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Templates {
    /// By name.
    templates: Vec<Template>,
}

/// The versions of a template.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Versions {
    /// The youngest first.
    versions: Vec<TemplateVersion>,
}

/// Creates a template with its first version and presets; pools begin to fill at once.
#[utoipa::path(
    post,
    path = "/templates",
    operation_id = "create_template",
    tag = "templates",
    request_body = CreateTemplate,
    responses((status = 201, description = "The template", body = CreatedTemplate), AnyProblem, BodyProblem, StateProblem),
)]
pub(super) async fn create(
    State(app): State<App>,
    _admin: Admin,
    Body(body): Body<CreateTemplate>,
) -> Result<(StatusCode, Json<CreatedTemplate>), Problem> {
    let template = body.checked()?;
    app.workspaces.create_template(&template).await?;
    let created =
        CreatedTemplate { id: template.id.uuid(), version_id: template.version.id.uuid() };
    Ok((StatusCode::CREATED, Json(created)))
}

/// Lists the templates.
#[utoipa::path(
    get,
    path = "/templates",
    operation_id = "list_templates",
    tag = "templates",
    responses((status = 200, description = "The templates", body = Templates), AnyProblem),
)]
pub(super) async fn list(
    State(app): State<App>,
    _caller: ChatUser,
) -> Result<Json<Templates>, Problem> {
    let templates = TemplateStore::list(&app.store).await?;
    Ok(Json(Templates { templates: templates.into_iter().map(Template::from).collect() }))
}

/// Returns a template.
#[utoipa::path(
    get,
    path = "/templates/{id}",
    operation_id = "read_template",
    tag = "templates",
    params(("id" = Uuid, Path, description = "The template")),
    responses((status = 200, description = "The template", body = Template), AnyProblem, ObjectProblem),
)]
pub(super) async fn read(
    State(app): State<App>,
    _caller: ChatUser,
    PathOf(id): PathOf<Uuid>,
) -> Result<Json<Template>, Problem> {
    let template = TemplateStore::get(&app.store, TemplateId::new(id)).await?;
    template.map(|template| Json(template.into())).ok_or_else(Problem::not_found)
}

/// Changes a template: its name, its active version, or how its workspaces live.
#[utoipa::path(
    patch,
    path = "/templates/{id}",
    operation_id = "change_template",
    tag = "templates",
    params(("id" = Uuid, Path, description = "The template")),
    request_body = PatchTemplate,
    responses((status = 200, description = "The template as it is then", body = Template), AnyProblem, ObjectProblem, BodyProblem, StateProblem),
)]
pub(super) async fn change(
    State(app): State<App>,
    _admin: Admin,
    PathOf(id): PathOf<Uuid>,
    Body(body): Body<PatchTemplate>,
) -> Result<Json<Template>, Problem> {
    let patch = body.checked()?;
    let template = app.workspaces.update_template(TemplateId::new(id), &patch).await?;
    Ok(Json(template.into()))
}

/// Deletes a template: its prebuilds go, its workspaces stay.
#[utoipa::path(
    delete,
    path = "/templates/{id}",
    operation_id = "delete_template",
    tag = "templates",
    params(("id" = Uuid, Path, description = "The template")),
    responses((status = 204, description = "It is gone"), AnyProblem, ObjectProblem),
)]
pub(super) async fn delete(
    State(app): State<App>,
    _admin: Admin,
    PathOf(id): PathOf<Uuid>,
) -> Result<StatusCode, Problem> {
    deleted(app.workspaces.delete_template(TemplateId::new(id)).await?)
}

/// Adds a version with its presets. When it is active, prebuilds of the former one go.
#[utoipa::path(
    post,
    path = "/templates/{id}/versions",
    operation_id = "add_version",
    tag = "templates",
    params(("id" = Uuid, Path, description = "The template")),
    request_body = AddVersion,
    responses((status = 201, description = "The version", body = AddedVersion), AnyProblem, ObjectProblem, BodyProblem, StateProblem),
)]
pub(super) async fn add_version(
    State(app): State<App>,
    _admin: Admin,
    PathOf(id): PathOf<Uuid>,
    Body(body): Body<AddVersion>,
) -> Result<(StatusCode, Json<AddedVersion>), Problem> {
    let version = body.checked()?;
    app.workspaces.add_version(TemplateId::new(id), &version).await?;
    Ok((StatusCode::CREATED, Json(AddedVersion { id: version.id.uuid() })))
}

/// Lists the versions of a template, the youngest first.
#[utoipa::path(
    get,
    path = "/templates/{id}/versions",
    operation_id = "list_versions",
    tag = "templates",
    params(("id" = Uuid, Path, description = "The template")),
    responses((status = 200, description = "The versions", body = Versions), AnyProblem, ObjectProblem),
)]
pub(super) async fn versions(
    State(app): State<App>,
    _caller: ChatUser,
    PathOf(id): PathOf<Uuid>,
) -> Result<Json<Versions>, Problem> {
    let versions = app.store.versions(TemplateId::new(id)).await?;
    if versions.is_empty() {
        return Err(Problem::not_found());
    }
    Ok(Json(Versions { versions: versions.into_iter().map(TemplateVersion::from).collect() }))
}
