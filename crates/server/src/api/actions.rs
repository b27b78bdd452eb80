//! Stop a chat, put its family away, and take it out again.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use musterbeat_core::chat::{Event, WhenBusy};
use musterbeat_core::id::ChatId;
use musterbeat_core::message::{Command, Content, Turn};
use musterbeat_core::port::By;
use uuid::Uuid;

use super::wire::{Changed, Sent};
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
) -> Result<(StatusCode, Json<Changed>), Problem> {
    let changed = apply(&app, caller, id, Event::Interrupt).await?;
    Ok((StatusCode::ACCEPTED, changed))
}

/// Asks for a summary in the place of the history, for the next turns to go on from.
///
/// It waits for its turn as a message does, and is one: the runner `echo` answers nothing to it,
/// and a program is told of it as of any other.
#[utoipa::path(
    post,
    path = "/chats/{id}/compact",
    operation_id = "compact_chat",
    tag = "chats",
    params(("id" = Uuid, Path, description = "The chat")),
    responses(
        (status = 202, description = "What became of the wish", body = Sent),
        AnyProblem,
        ObjectProblem,
        StateProblem,
    ),
)]
pub(super) async fn compact(
    State(app): State<App>,
    ChatUser(caller): ChatUser,
    PathOf(id): PathOf<Uuid>,
) -> Result<(StatusCode, Json<Sent>), Problem> {
    let content = Content::command(Command::Compact);
    let turn = Turn { content, model: None, created_by: Some(caller.owner) };
    let event = Event::Send { turn, when_busy: WhenBusy::Queue };
    let applied = app.chats.apply(ChatId::new(id), By::User(caller.reach()), event).await?;
    Ok((StatusCode::ACCEPTED, Json(applied.into())))
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
