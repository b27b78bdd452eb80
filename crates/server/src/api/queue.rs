//! The turns that wait while a chat is busy.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use musterbeat_core::chat::Event;
use musterbeat_core::id::{ChatId, QueuedId};
use musterbeat_core::port::By;
use uuid::Uuid;

use super::wire::{Changed, Queue};
use crate::app::App;
use crate::http::extract::{ChatUser, PathOf};
use crate::http::problem::{AnyProblem, ObjectProblem, Problem, StateProblem};

/// Lists the turns that wait, the next first.
#[utoipa::path(
    get,
    path = "/chats/{id}/queue",
    operation_id = "list_queue",
    tag = "queue",
    params(("id" = Uuid, Path, description = "The chat")),
    responses((status = 200, description = "The queue", body = Queue), AnyProblem, ObjectProblem),
)]
pub(super) async fn list(
    State(app): State<App>,
    ChatUser(caller): ChatUser,
    PathOf(id): PathOf<Uuid>,
) -> Result<Json<Queue>, Problem> {
    let queue = app.chat_reader.queue(ChatId::new(id), caller.reach()).await?;
    let queue = queue.ok_or_else(Problem::not_found)?;
    Ok(Json(Queue { queue: queue.into_iter().map(Into::into).collect() }))
}

/// Takes all turns out of the queue; an empty one stays as it is.
#[utoipa::path(
    delete,
    path = "/chats/{id}/queue",
    operation_id = "clear_queue",
    tag = "queue",
    params(("id" = Uuid, Path, description = "The chat")),
    responses(
        (status = 204, description = "The queue is empty"),
        AnyProblem,
        ObjectProblem,
        StateProblem,
    ),
)]
pub(super) async fn clear(
    State(app): State<App>,
    ChatUser(caller): ChatUser,
    PathOf(id): PathOf<Uuid>,
) -> Result<StatusCode, Problem> {
    let by = By::User(caller.reach());
    app.chats.apply(ChatId::new(id), by, Event::ClearQueue).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes a turn out of the queue.
#[utoipa::path(
    delete,
    path = "/chats/{id}/queue/{queued_id}",
    operation_id = "delete_queued",
    tag = "queue",
    params(
        ("id" = Uuid, Path, description = "The chat"),
        ("queued_id" = i64, Path, description = "The turn that waits", minimum = 0),
    ),
    responses(
        (status = 204, description = "It waits no more"),
        AnyProblem,
        ObjectProblem,
        StateProblem,
    ),
)]
pub(super) async fn delete(
    State(app): State<App>,
    ChatUser(caller): ChatUser,
    PathOf((id, queued)): PathOf<(Uuid, i64)>,
) -> Result<StatusCode, Problem> {
    let event = Event::DeleteQueued(QueuedId(queued));
    app.chats.apply(ChatId::new(id), By::User(caller.reach()), event).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Makes a turn the next; the present one is stopped.
#[utoipa::path(
    post,
    path = "/chats/{id}/queue/{queued_id}/promote",
    operation_id = "promote_queued",
    tag = "queue",
    params(
        ("id" = Uuid, Path, description = "The chat"),
        ("queued_id" = i64, Path, description = "The turn that waits", minimum = 0),
    ),
    responses(
        (status = 202, description = "Where the chat stands", body = Changed),
        AnyProblem,
        ObjectProblem,
        StateProblem,
    ),
)]
pub(super) async fn promote(
    State(app): State<App>,
    ChatUser(caller): ChatUser,
    PathOf((id, queued)): PathOf<(Uuid, i64)>,
) -> Result<(StatusCode, Json<Changed>), Problem> {
    let event = Event::Promote(QueuedId(queued));
    let applied = app.chats.apply(ChatId::new(id), By::User(caller.reach()), event).await?;
    Ok((StatusCode::ACCEPTED, Json(applied.into())))
}
