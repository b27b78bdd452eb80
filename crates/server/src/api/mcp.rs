//! How the servers of tools stand.

use axum::Json;
use axum::extract::State;
use musterbeat_agent::mcp::McpHealth;
use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::http::extract::Admin;
use crate::http::problem::{AnyProblem, Problem};

/// Servers of tools.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct McpServers {
    /// In the order of the settings; none unless the runner is `agent`.
    #[schema(value_type = Vec<super::wire::McpServer>)]
    servers: Vec<McpHealth>,
}

/// Shows how the servers of tools stand, as this replica sees them.
#[utoipa::path(
    get,
    path = "/mcp",
    operation_id = "list_mcp_servers",
    tag = "workers",
    responses((status = 200, description = "The servers", body = McpServers), AnyProblem),
)]
pub(super) async fn list(
    State(app): State<App>,
    _admin: Admin,
) -> Result<Json<McpServers>, Problem> {
    let servers = app.agent.map(|agent| agent.mcp.health()).unwrap_or_default();
    Ok(Json(McpServers { servers }))
}
