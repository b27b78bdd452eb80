//! Configurations of models: what chats may name, and what their providers are told.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use musterbeat_core::invalid::Invalid;
use musterbeat_core::message::Model;
use musterbeat_core::port::{MODELS_MAX, ModelConfigStore};
use serde::Serialize;
use utoipa::ToSchema;

use super::wire::{ModelConfig, PutModel, checked_model};
use crate::app::App;
use crate::http::extract::{Admin, Body, ChatUser, PathOf};
use crate::http::problem::{
    AnyProblem, BodyProblem, ObjectProblem, Problem, ValueProblem, deleted,
};

/// Configurations of models.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Models {
    /// By name.
    models: Vec<ModelConfig>,
}

/// Lists what chats may name as their model.
#[utoipa::path(
    get,
    path = "/models",
    operation_id = "list_models",
    tag = "models",
    responses((status = 200, description = "The models", body = Models), AnyProblem),
)]
pub(super) async fn list(
    State(app): State<App>,
    _caller: ChatUser,
) -> Result<Json<Models>, Problem> {
    let models = ModelConfigStore::list(&app.store).await?;
    Ok(Json(Models { models: models.into_iter().map(ModelConfig::from).collect() }))
}

/// Adds a model, or replaces the one of this name; replicas go by it within seconds.
#[utoipa::path(
    put,
    path = "/models/{name}",
    operation_id = "put_model",
    tag = "models",
    params((
        "name" = String, Path, pattern = r"^[ -~]*[!-~][ -~]*$", max_length = 200,
        description = "What chats call it",
    )),
    request_body = PutModel,
    responses((status = 200, description = "The model", body = ModelConfig), AnyProblem, BodyProblem),
)]
pub(super) async fn put(
    State(app): State<App>,
    _admin: Admin,
    PathOf(name): PathOf<String>,
    Body(body): Body<PutModel>,
) -> Result<Json<ModelConfig>, Problem> {
    let config = body.checked(named(name)?)?;
    if !app.store.put(&config).await? {
        let reason = format!("is a further one, and there are {MODELS_MAX} already; delete one");
        return Err(Invalid::new("name", reason).into());
    }
    forget(&app, &config.name);
    Ok(Json(config.into()))
}

/// Deletes a model; chats that name it end their next turn in an error.
#[utoipa::path(
    delete,
    path = "/models/{name}",
    operation_id = "delete_model",
    tag = "models",
    params((
        "name" = String, Path, pattern = r"^[ -~]*[!-~][ -~]*$", max_length = 200,
        description = "What chats call it",
    )),
    responses((status = 204, description = "It is gone"), AnyProblem, ObjectProblem, ValueProblem),
)]
pub(super) async fn delete(
    State(app): State<App>,
    _admin: Admin,
    PathOf(name): PathOf<String>,
) -> Result<StatusCode, Problem> {
    let name = named(name)?;
    let gone = ModelConfigStore::delete(&app.store, &name).await?;
    forget(&app, &name);
    deleted(gone)
}

/// Takes a name that chats could give, too.
fn named(name: String) -> Result<Model, Invalid> {
    checked_model(name).map_err(|invalid| Invalid { field: "name".to_owned(), ..invalid })
}

/// Has this replica go by the change at once.
fn forget(app: &App, name: &Model) {
    if let Some(agent) = &app.agent {
        agent.catalog.forget(name);
    }
}
