//! Agents of the caller.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use musterbeat_core::id::AgentId;
use musterbeat_core::page::Limit;
use secrecy::ExposeSecret;
use uuid::Uuid;

use super::wire::{AgentPage, CreateAgent, CreatedAgent, PageQuery};
use crate::app::App;
use crate::http::extract::{Body, ChatUser, PathOf, QueryOf};
use crate::http::problem::{
    AnyProblem, BodyProblem, ObjectProblem, Problem, ValueProblem, deleted,
};
use crate::identity;

/// Creates an agent of the caller, and the token that it reports with.
#[utoipa::path(
    post,
    path = "/agents",
    operation_id = "create_agent",
    tag = "agents",
    request_body = CreateAgent,
    responses(
        (status = 201, description = "The agent and its token", body = CreatedAgent),
        AnyProblem,
        BodyProblem,
    ),
)]
pub(super) async fn create(
    State(app): State<App>,
    ChatUser(caller): ChatUser,
    Body(body): Body<CreateAgent>,
) -> Result<(StatusCode, Json<CreatedAgent>), Problem> {
    let (token, hash) = identity::agent_token();
    let agent = body.checked(caller.owner, hash)?;
    app.agents.create(&agent).await?;
    let created = CreatedAgent {
        id: agent.id.uuid(),
        token: token.expose_secret().to_owned(),
        token_id: agent.token.uuid(),
    };
    Ok((StatusCode::CREATED, Json(created)))
}

/// Lists the caller's agents, the youngest first.
#[utoipa::path(
    get,
    path = "/agents",
    operation_id = "list_agents",
    tag = "agents",
    params(PageQuery),
    responses(
        (status = 200, description = "A page of agents", body = AgentPage),
        ValueProblem,
        AnyProblem,
    ),
)]
pub(super) async fn list(
    State(app): State<App>,
    ChatUser(caller): ChatUser,
    QueryOf(query): QueryOf<PageQuery>,
) -> Result<Json<AgentPage>, Problem> {
    let limit = Limit::new(query.limit)?;
    let agents = app.agents.list(caller.owner, query.after.map(AgentId::new), limit).await?;
    Ok(Json(AgentPage::of(agents, limit)))
}

/// Takes an agent away with all that it reported; its token is refused from then on.
#[utoipa::path(
    delete,
    path = "/agents/{id}",
    operation_id = "delete_agent",
    tag = "agents",
    params(("id" = Uuid, Path, description = "The agent")),
    responses((status = 204, description = "It is gone"), AnyProblem, ObjectProblem),
)]
pub(super) async fn delete(
    State(app): State<App>,
    ChatUser(caller): ChatUser,
    PathOf(id): PathOf<Uuid>,
) -> Result<StatusCode, Problem> {
    deleted(app.agents.delete(AgentId::new(id), caller.reach()).await?)
}
