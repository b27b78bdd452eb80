//! Create, read and list chats.

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use musterbeat_core::id::ChatId;
use musterbeat_core::invalid::Invalid;
use musterbeat_core::page::{Cursor, Limit};
use musterbeat_core::port::ChatFilter;
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

use super::events::{self, EventStream, Until};
use super::wire::{Chat, ChatPage, CreateChat, PatchChat};
use crate::app::App;
use crate::http::extract::{Body, ChatUser, PathOf, QueryOf};
use crate::http::problem::{
    AnyProblem, BodyProblem, ObjectProblem, Problem, StateProblem, ValueProblem,
};

/// Creates a chat; a worker answers at once.
///
/// With `Accept: text/event-stream` the answer streams back, as by
/// `GET /chats/{id}/events?until=rest`; the header `Location` names the chat.
#[utoipa::path(
    post,
    path = "/chats",
    operation_id = "create_chat",
    tag = "chats",
    request_body = CreateChat,
    responses(
        (
            status = 201,
            description = "The chat",
            content((Chat = "application/json"), (EventStream = "text/event-stream")),
            headers(("location" = String, description = "The chat's address")),
        ),
        AnyProblem,
        BodyProblem,
        ObjectProblem,
        StateProblem,
    ),
)]
pub(super) async fn create(
    State(app): State<App>,
    ChatUser(caller): ChatUser,
    headers: HeaderMap,
    Body(body): Body<CreateChat>,
) -> Result<Response, Problem> {
    let new = body.checked(caller.owner)?;
    let id = new.id;
    app.chats.create(new, caller.reach()).await?;
    let location = [(header::LOCATION, format!("/api/v1/chats/{id}"))];
    if wants_events(&headers) {
        let events = events::stream(app, caller, id, None, Until::Rest).await?;
        return Ok((StatusCode::CREATED, location, events).into_response());
    }
    let chat = app.chat_reader.get(id, caller.reach()).await?.ok_or_else(Problem::not_found)?;
    Ok((StatusCode::CREATED, location, Json(Chat::from(chat))).into_response())
}

fn wants_events(headers: &HeaderMap) -> bool {
    headers.get(header::ACCEPT) == Some(&HeaderValue::from_static("text/event-stream"))
}

/// Returns a chat.
#[utoipa::path(
    get,
    path = "/chats/{id}",
    operation_id = "read_chat",
    tag = "chats",
    params(("id" = Uuid, Path, description = "The chat")),
    responses((status = 200, description = "The chat", body = Chat), AnyProblem, ObjectProblem),
)]
pub(super) async fn read(
    State(app): State<App>,
    ChatUser(caller): ChatUser,
    PathOf(id): PathOf<Uuid>,
) -> Result<Json<Chat>, Problem> {
    let chat = app.chat_reader.get(ChatId::new(id), caller.reach()).await?;
    chat.map(|chat| Json(chat.into())).ok_or_else(Problem::not_found)
}

/// Changes title, workspace, read marker or limits of a chat; what is left out stays.
///
/// A title or workspace moves the chat to the front of its owner's list.
#[utoipa::path(
    patch,
    path = "/chats/{id}",
    operation_id = "change_chat",
    tag = "chats",
    params(("id" = Uuid, Path, description = "The chat")),
    request_body = PatchChat,
    responses(
        (status = 200, description = "The chat as it is then", body = Chat),
        AnyProblem,
        ObjectProblem,
        BodyProblem,
        StateProblem,
    ),
)]
pub(super) async fn change(
    State(app): State<App>,
    ChatUser(caller): ChatUser,
    PathOf(id): PathOf<Uuid>,
    Body(body): Body<PatchChat>,
) -> Result<Json<Chat>, Problem> {
    let patch = body.checked()?;
    let chat = app.chats.update(ChatId::new(id), caller.reach(), patch).await?;
    chat.map(|chat| Json(chat.into())).ok_or_else(Problem::not_found)
}

/// Which chats to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListChats {
    /// Only archived ones, or only others; by default both.
    archived: Option<bool>,
    /// `next` of the page before.
    #[param(pattern = "^(0|[1-9][0-9]{0,16})-[0-9a-f]{32}$")]
    after: Option<String>,
    /// How many, at most.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
}

/// Lists the caller's chats, the last updated first.
///
/// A chat that does not change while somebody pages is seen exactly once.
#[utoipa::path(
    get,
    path = "/chats",
    operation_id = "list_chats",
    tag = "chats",
    params(ListChats),
    responses(
        (status = 200, description = "A page of chats", body = ChatPage),
        ValueProblem,
        AnyProblem,
    ),
)]
pub(super) async fn list(
    State(app): State<App>,
    ChatUser(caller): ChatUser,
    QueryOf(query): QueryOf<ListChats>,
) -> Result<Json<ChatPage>, Problem> {
    let limit = Limit::new(query.limit)?;
    let after = query.after.as_deref().map(cursor).transpose()?;
    let filter = ChatFilter { owner: caller.owner, archived: query.archived, after, limit };
    let chats = app.chat_reader.list(filter).await?;
    Ok(Json(ChatPage::of(chats, limit, |chat| chat.updated_at)))
}

/// Reads a cursor exactly as a page shows it, though its id could be written in other ways.
pub(super) fn cursor(text: &str) -> Result<Cursor, Invalid> {
    let cursor: Cursor = text.parse()?;
    if cursor.to_string() == text {
        Ok(cursor)
    } else {
        Err(Invalid::new("after", "is not the `next` of an earlier page"))
    }
}
