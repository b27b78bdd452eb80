//! What agents are to report, and what they report.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use bytes::Bytes;
use futures_util::stream::unfold;
use musterbeat_core::id::AgentId;
use musterbeat_core::metadata::Readings;
use musterbeat_core::port::Reach;
use musterbeat_core::timestamp::Timestamp;
use musterbeat_engine::agents::MetadataWatcher;
use time::OffsetDateTime;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::events::{EventStream, PING_INTERVAL, frame, respond};
use super::wire::{DefineMetadata, Defined, Metadata, ReportEntry, Reported, reported};
use crate::app::App;
use crate::http::extract::{Body, ChatUser, PathOf};
use crate::http::problem::{AnyProblem, BodyProblem, ObjectProblem, Problem};
use crate::identity::Caller;
use crate::revocation::Hold;

/// Says what an agent is to report.
///
/// The agent learns of it with the answer to its next report. Values of keys that are gone go
/// with them.
#[utoipa::path(
    put,
    path = "/agents/{id}/metadata/definitions",
    operation_id = "define_metadata",
    tag = "agents",
    params(("id" = Uuid, Path, description = "The agent")),
    request_body = DefineMetadata,
    responses(
        (status = 200, description = "It is defined", body = Defined),
        AnyProblem,
        BodyProblem,
        ObjectProblem,
    ),
)]
pub(super) async fn define(
    State(app): State<App>,
    ChatUser(caller): ChatUser,
    PathOf(id): PathOf<Uuid>,
    Body(body): Body<DefineMetadata>,
) -> Result<Json<Defined>, Problem> {
    let definitions = body.checked()?;
    let defined = app.agents.define(AgentId::new(id), caller.reach(), &definitions).await?;
    let version = defined.ok_or_else(Problem::not_found)?;
    Ok(Json(Defined { definitions_version: version.0 }))
}

/// Takes what an agent reports; the answer does not wait for it to be stored.
///
/// What is wrong with one key costs no other. What is accepted is stored within a few seconds,
/// unless something newer comes first. Only a crash of the server loses it before that.
#[utoipa::path(
    post,
    path = "/agents/{id}/metadata",
    operation_id = "report_metadata",
    tag = "agents",
    params(("id" = Uuid, Path, description = "The agent")),
    request_body = Vec<ReportEntry>,
    responses(
        (status = 202, description = "What will be stored, and what not", body = Reported),
        AnyProblem,
        BodyProblem,
        ObjectProblem,
    ),
)]
pub(super) async fn report(
    State(app): State<App>,
    caller: Caller,
    PathOf(id): PathOf<Uuid>,
    Body(body): Body<Vec<ReportEntry>>,
) -> Result<(StatusCode, Json<Reported>), Problem> {
    let (agent, reach) = within(caller, id)?;
    let report = reported(body)?;
    let now = Timestamp::new(OffsetDateTime::now_utc());
    let receipt = app.agents.report(agent, reach, report, now).await?;
    let receipt = receipt.ok_or_else(Problem::not_found)?;
    Ok((StatusCode::ACCEPTED, Json(receipt.into())))
}

/// Reads what an agent is to report, and what it reported last.
#[utoipa::path(
    get,
    path = "/agents/{id}/metadata",
    operation_id = "read_metadata",
    tag = "agents",
    params(("id" = Uuid, Path, description = "The agent")),
    responses(
        (status = 200, description = "Each key, in the order of display", body = Metadata),
        AnyProblem,
        ObjectProblem,
    ),
)]
pub(super) async fn read(
    State(app): State<App>,
    caller: Caller,
    PathOf(id): PathOf<Uuid>,
) -> Result<Json<Metadata>, Problem> {
    let (agent, reach) = within(caller, id)?;
    let readings = app.agents.read(agent, reach).await?.ok_or_else(Problem::not_found)?;
    Ok(Json(Metadata::from(&readings)))
}

/// Follows what an agent reports.
///
/// Each event `metadata` tells all that a read tells; the first comes at once, another whenever
/// something was stored, at most one a second, and the newest always. `ping` comes when nothing
/// else does. The stream ends when the agent is deleted.
#[utoipa::path(
    get,
    path = "/agents/{id}/metadata/events",
    operation_id = "follow_metadata",
    tag = "agents",
    params(("id" = Uuid, Path, description = "The agent")),
    responses(
        (status = 200, description = "Events", body = EventStream, content_type = "text/event-stream"),
        AnyProblem,
        ObjectProblem,
    ),
)]
pub(super) async fn follow(
    State(app): State<App>,
    caller: Caller,
    PathOf(id): PathOf<Uuid>,
) -> Result<Response, Problem> {
    let (agent, reach) = within(caller, id)?;
    let token = app.revocations.hold(caller).await?;
    let watcher = app.agents.watch(agent, reach).await?.ok_or_else(Problem::not_found)?;
    let follower = Follower { watcher, token, end: app.streams_end.clone() };
    Ok(respond(unfold(Box::new(follower), |mut follower| async move {
        let bytes = follower.next().await?;
        Some((bytes, follower))
    })))
}

/// Returns what a caller reaches of the agent that a path names.
fn within(caller: Caller, id: Uuid) -> Result<(AgentId, Reach), Problem> {
    let agent = AgentId::new(id);
    caller.reach_of(agent).map(|reach| (agent, reach)).ok_or_else(Problem::not_found)
}

/// Makes the frame that all who follow an agent are sent.
pub(crate) fn metadata_frame(readings: &Readings) -> Bytes {
    frame::whole("metadata", &Metadata::from(readings))
}

/// One who follows an agent.
struct Follower {
    watcher: MetadataWatcher,
    token: Hold,
    end: CancellationToken,
}

impl Follower {
    /// Returns the next frame, `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        let quiet_until = Instant::now() + PING_INTERVAL;
        tokio::select! {
            biased;
            () = self.end.cancelled() => None,
            () = self.token.revoked() => None,
            update = self.watcher.next() => update,
            () = sleep_until(quiet_until) => Some(frame::PING),
        }
    }
}
