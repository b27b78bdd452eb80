//! Stop a chat, put its family away, and take it out again.

use axum::Json;
use axum::extract::State;
use musterbeat_core::chat::Event;
use musterbeat_core::id::ChatId;
use musterbeat_core::port::By;
use uuid::Uuid;

use super::wire::Changed;
use crate::app::App;
use crate::http::extract::{ChatUser, PathOf};
use crate::http::problem::{AnyProblem, ObjectProblem, Problem, StateProblem};
use crate::identity::Caller;

/// Stops the present turn; what was answered so far is kept, and the next of the queue begins.
///
/// A chat that has nothing to do stays as it is.
#[utoipa::path(
    post,
    path = "/chats/{id}/interrupt",
    operation_id = "interrupt_chat",
    tag = "chats",
    params(("id" = Uuid, Path, description = "The chat")),
    responses(
        (status = 202, description = "Where the chat stands", body = Changed),
        AnyProblem,
        ObjectProblem,
        StateProblem,
    ),
)]
pub(super) async fn interrupt(
    State(app): State<App>,
    ChatUser(caller): ChatUser,
    PathOf(id): PathOf<Uuid>,
) -> Result<(axum::http::StatusCode, Json<Changed>), Problem> {
    let changed = apply(&app, caller, id, Event::Interrupt).await?;
    Ok((axum::http::StatusCode::ACCEPTED, changed))
}

/// Puts a chat away, with all that descend from it: a hard stop of whatever they do.
///
/// Queued turns stay as they are. A chat that has a parent is archived with its root.
#[utoipa::path(
    post,
    path = "/chats/{id}/archive",
    operation_id = "archive_chat",
    tag = "chats",
    params(("id" = Uuid, Path, description = "A chat without a parent")),
    responses(
        (status = 200, description = "Where the chat stands", body = Changed),
        AnyProblem,
        ObjectProblem,
        StateProblem,
    ),
)]
pub(super) async fn archive(
    State(app): State<App>,
    ChatUser(caller): ChatUser,
    PathOf(id): PathOf<Uuid>,
) -> Result<Json<Changed>, Problem> {
    apply(&app, caller, id, Event::Archive).await
}

/// Takes a chat out again, with all that descend from it; nothing starts by itself.
#[utoipa::path(
    post,
    path = "/chats/{id}/unarchive",
    operation_id = "unarchive_chat",
    tag = "chats",
    params(("id" = Uuid, Path, description = "A chat without a parent")),
    responses(
        (status = 200, description = "Where the chat stands", body = Changed),
        AnyProblem,
        ObjectProblem,
        StateProblem,
    ),
)]
pub(super) async fn unarchive(
    State(app): State<App>,
    ChatUser(caller): ChatUser,
    PathOf(id): PathOf<Uuid>,
) -> Result<Json<Changed>, Problem> {
    apply(&app, caller, id, Event::Unarchive).await
}

async fn apply(
    app: &App,
    caller: Caller,
    id: Uuid,
    event: Event,
) -> Result<Json<Changed>, Problem> {
    let applied = app.chats.apply(ChatId::new(id), By::User(caller.reach()), event).await?;
    Ok(Json(applied.into()))
}
