//! Send a message, and read what was said.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use musterbeat_core::chat::Event;
use musterbeat_core::id::{ChatId, MessageId, Version};
use musterbeat_core::invalid::Invalid;
use musterbeat_core::port::By;
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

use super::wire::{EditMessage, Edited, Message, MessagePage, SendMessage, Sent};
use crate::app::App;
use crate::http::extract::{Body, ChatUser, PathOf, QueryOf};
use crate::http::problem::{
    AnyProblem, BodyProblem, ObjectProblem, Problem, StateProblem, ValueProblem,
};

/// Sends a message; it is answered at once, or waits while the chat is busy.
#[utoipa::path(
    post,
    path = "/chats/{id}/messages",
    operation_id = "send_message",
    tag = "messages",
    params(("id" = Uuid, Path, description = "The chat")),
    request_body = SendMessage,
    responses(
        (status = 202, description = "What became of it", body = Sent),
        AnyProblem,
        ObjectProblem,
        BodyProblem,
        StateProblem,
    ),
)]
pub(super) async fn send(
    State(app): State<App>,
    ChatUser(caller): ChatUser,
    PathOf(id): PathOf<Uuid>,
    Body(body): Body<SendMessage>,
) -> Result<(StatusCode, Json<Sent>), Problem> {
    let event = body.checked(caller.owner)?;
    let applied = app.chats.apply(ChatId::new(id), By::User(caller.reach()), event).await?;
    Ok((StatusCode::ACCEPTED, Json(applied.into())))
}

/// Says something else instead: the message and all after it go, and the chat begins anew there.
///
/// The new message has an id of its own. The queue is cleared, and whoever answers is stopped.
#[utoipa::path(
    put,
    path = "/chats/{id}/messages/{message_id}",
    operation_id = "edit_message",
    tag = "messages",
    params(
        ("id" = Uuid, Path, description = "The chat"),
        ("message_id" = i64, Path, description = "The user's message", minimum = 0),
    ),
    request_body = EditMessage,
    responses(
        (status = 200, description = "What stands in its place", body = Edited),
        AnyProblem,
        ObjectProblem,
        BodyProblem,
        StateProblem,
    ),
)]
pub(super) async fn edit(
    State(app): State<App>,
    ChatUser(caller): ChatUser,
    PathOf((id, message)): PathOf<(Uuid, i64)>,
    Body(body): Body<EditMessage>,
) -> Result<Json<Edited>, Problem> {
    let turn = body.checked(caller.owner)?;
    let event = Event::Edit { message: MessageId(message), turn };
    let applied = app.chats.apply(ChatId::new(id), By::User(caller.reach()), event).await?;
    let message_id = applied.message.ok_or_else(Problem::not_found)?.0;
    Ok(Json(Edited { message_id, version: applied.version.0 }))
}

/// Which messages to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListMessages {
    /// `version` of the page before; without it, from the beginning.
    #[param(minimum = 0)]
    after_version: Option<i64>,
}

/// Lists messages that changed after a version, oldest change first.
#[utoipa::path(
    get,
    path = "/chats/{id}/messages",
    operation_id = "list_messages",
    tag = "messages",
    params(("id" = Uuid, Path, description = "The chat"), ListMessages),
    responses(
        (status = 200, description = "A page of messages", body = MessagePage),
        ValueProblem,
        AnyProblem,
        ObjectProblem,
    ),
)]
pub(super) async fn list(
    State(app): State<App>,
    ChatUser(caller): ChatUser,
    PathOf(id): PathOf<Uuid>,
    QueryOf(query): QueryOf<ListMessages>,
) -> Result<Json<MessagePage>, Problem> {
    let since = query.after_version.map(checked_version).transpose()?;
    let changes = app.chat_reader.changes(ChatId::new(id), caller.reach(), since).await?;
    let changes = changes.ok_or_else(Problem::not_found)?;
    Ok(Json(MessagePage {
        more: changes.reached < changes.chat.version,
        version: changes.reached.0,
        reset: changes.reset,
        messages: changes.messages.into_iter().map(Message::from).collect(),
    }))
}

fn checked_version(version: i64) -> Result<Version, Invalid> {
    if version < 0 {
        return Err(Invalid::new("after_version", format!("is {version}, 0 or more is allowed")));
    }
    Ok(Version(version))
}
