//! A chat's children, and waiting for a chat.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::FutureExt;
use futures_util::stream::unfold;
use musterbeat_core::chat;
use musterbeat_core::id::ChatId;
use musterbeat_core::page::Limit;
use musterbeat_core::port::{AwaitError, FamilyFilter, Kin};
use serde::Deserialize;
use tokio::time::sleep;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::chats::cursor;
use super::wire::{ChatPage, Report};
use crate::app::App;
use crate::http::extract::{ChatUser, PathOf, QueryOf};
use crate::http::problem::{AnyProblem, Kind, ObjectProblem, Problem, ValueProblem};

/// Pause after which a wait says that it goes on: shorter than proxies' patience.
const SIGN_INTERVAL: Duration = Duration::from_secs(15);

/// Which relatives to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListFamily {
    /// `children` alone, which is the default, or all `descendants` of a root.
    #[param(inline)]
    of: Option<Relation>,
    /// `next` of the page before.
    #[param(pattern = "^(0|[1-9][0-9]{0,16})-[0-9a-f]{32}$")]
    after: Option<String>,
    /// How many, at most.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u32>,
}

/// How the listed chats are related to the named one.
#[derive(Clone, Copy, Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Relation {
    #[default]
    Children,
    Descendants,
}

/// Lists a chat's children, the oldest first.
#[utoipa::path(
    get,
    path = "/chats/{id}/children",
    operation_id = "list_children",
    tag = "chats",
    params(("id" = Uuid, Path, description = "The chat"), ListFamily),
    responses(
        (status = 200, description = "A page of chats", body = ChatPage),
        ValueProblem,
        AnyProblem,
        ObjectProblem,
    ),
)]
pub(super) async fn children(
    State(app): State<App>,
    ChatUser(caller): ChatUser,
    PathOf(id): PathOf<Uuid>,
    QueryOf(query): QueryOf<ListFamily>,
) -> Result<Json<ChatPage>, Problem> {
    let limit = Limit::new(query.limit)?;
    let kin = match query.of.unwrap_or_default() {
        Relation::Children => Kin::Children,
        Relation::Descendants => Kin::Descendants,
    };
    let after = query.after.as_deref().map(cursor).transpose()?;
    let filter = FamilyFilter { of: ChatId::new(id), reach: caller.reach(), kin, after, limit };
    let chats = app.chat_reader.family(filter).await?.ok_or_else(Problem::not_found)?;
    Ok(Json(ChatPage::of(chats, limit, |chat| chat.created_at)))
}

/// How long to wait.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Wait {
    /// Such as `30s`; by default five minutes, at most an hour.
    #[serde(default, with = "humantime_serde")]
    #[param(value_type = Option<String>, pattern = "^[0-9]{1,6}(ms|s|m|h)$")]
    timeout: Option<Duration>,
}

/// Waits until a chat has nothing to do.
///
/// The answer begins at once, and its JSON comes when the chat rests or the time is over, after
/// blanks that keep the connection alive.
#[utoipa::path(
    get,
    path = "/chats/{id}/wait",
    operation_id = "wait_for_chat",
    tag = "chats",
    params(("id" = Uuid, Path, description = "The chat"), Wait),
    responses(
        (status = 200, description = "How it stands then", body = Report),
        AnyProblem,
        ObjectProblem,
    ),
)]
pub(super) async fn wait(
    State(app): State<App>,
    ChatUser(caller): ChatUser,
    PathOf(id): PathOf<Uuid>,
    QueryOf(query): QueryOf<Wait>,
) -> Result<Response, Problem> {
    let (chat, reach) = (ChatId::new(id), caller.reach());
    let now = app.chats.report(chat, reach).await?.ok_or_else(Problem::not_found)?;
    if now.is_at_rest() {
        return Ok(Json(Report::from(now)).into_response());
    }
    let waiting = async move {
        let waited = tokio::select! {
            waited = app.chats.wait(chat, reach, query.timeout) => waited,
            // The end of the server is the end of the wait: the caller comes back.
            () = app.streams_end.cancelled() => Ok(now),
        };
        encoded(waited)
    };
    let body = unfold(Some(waiting.boxed()), |waiting| async {
        let mut waiting = waiting?;
        tokio::select! {
            report = &mut waiting => Some((Ok::<_, Infallible>(report), None)),
            () = sleep(SIGN_INTERVAL) => Some((Ok(Bytes::from_static(b" ")), Some(waiting))),
        }
    });
    let kind = [(header::CONTENT_TYPE, "application/json")];
    Ok((kind, Body::from_stream(body)).into_response())
}

/// Writes how a wait ended; the answer's status is sent by then, so a failure is told in its place.
fn encoded(waited: Result<chat::Report, AwaitError>) -> Bytes {
    let json = match waited {
        Ok(report) => serde_json::to_vec(&Report::from(report)),
        Err(error) => {
            tracing::error!(error = &error as &dyn std::error::Error, "a wait for a chat failed");
            let problem = Problem::new(Kind::Unavailable, "the wait failed; ask again");
            serde_json::to_vec(&problem)
        }
    };
    json.expect("neither has keys that JSON lacks").into()
}
