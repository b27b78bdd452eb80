//! A chat as it goes, by server-sent events.

mod feed;
mod followed;
pub(super) mod frame;
mod keeper;
mod log;
mod watching;

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream::unfold;
use futures_util::{Stream, StreamExt};
use musterbeat_core::id::{ChatId, Version};
use serde::Deserialize;
use utoipa::openapi::schema::{AnyOfBuilder, ObjectBuilder, Type};
use utoipa::openapi::{RefOr, Schema};
use utoipa::{IntoParams, PartialSchema, ToSchema};
use uuid::Uuid;

use crate::app::App;
use crate::http::extract::{ChatUser, PathOf, QueryOf};
use crate::http::problem::{AnyProblem, ObjectProblem, Problem};
use crate::identity::Caller;
use feed::Feed;
pub(crate) use followed::{FollowPorts, Followed};
pub(crate) use frame::part as part_frame;
pub(super) use watching::{next_look, watch};

/// Pause after which a quiet stream sends a `ping`: shorter than proxies' patience.
pub(super) const PING_INTERVAL: Duration = Duration::from_secs(15);

/// Tells nginx and its like whether to collect what they pass on.
const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// What events of a stream are called.
const EVENTS: [&str; 12] = [
    "snapshot",
    "message",
    "queue",
    "status",
    "error",
    "part",
    "resync",
    "history_reset",
    "chat",
    "diff_status",
    "metadata",
    "ping",
];

/// How to follow a chat.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Follow {
    /// When the stream ends; by default `closed`.
    #[param(inline)]
    until: Option<Until>,
}

/// When an event stream ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Until {
    /// Never by itself; the server may end it, and the client comes back.
    #[default]
    Closed,
    /// Once the chat has nothing to do.
    Rest,
}

/// What a stream consists of.
///
/// OpenAPI 3.1 leaves open whether a schema describes the text of the stream or each of its events,
/// and tools differ: this one holds for both.
pub(super) struct EventStream;

impl PartialSchema for EventStream {
    fn schema() -> RefOr<Schema> {
        let text = ObjectBuilder::new().schema_type(Type::String).description(Some("The stream."));
        AnyOfBuilder::new().item(text).item(event_schema()).into()
    }
}

impl ToSchema for EventStream {}

fn event_schema() -> ObjectBuilder {
    let text = || ObjectBuilder::new().schema_type(Type::String);
    ObjectBuilder::new()
        .description(Some("An event of the stream."))
        .property("event", text().enum_values(Some(EVENTS)))
        .required("event")
        .property("data", text().content_media_type("application/json"))
        .required("data")
        .property("id", text().pattern(Some("^[0-9]+$")).description(Some("The chat's version.")))
}

/// Follows a chat.
///
/// Events: `snapshot` (the chat, the first page of its messages, its queue), `message`, `queue`,
/// `status`, `error`, `part` (a piece of the answer, while it comes), `resync` (pieces were missed),
/// `history_reset` (a snapshot follows), `ping`. The last event of a change carries the chat's
/// version as its id; sent back as `Last-Event-ID`, the stream goes on after it.
#[utoipa::path(
    get,
    path = "/chats/{id}/events",
    operation_id = "follow_chat",
    tag = "chats",
    params(
        ("id" = Uuid, Path, description = "The chat"),
        Follow,
        ("last-event-id" = Option<String>, Header, nullable = false, description = "The last id seen"),
    ),
    responses(
        (status = 200, description = "Events", body = EventStream, content_type = "text/event-stream"),
        AnyProblem,
        ObjectProblem,
    ),
)]
pub(super) async fn follow(
    State(app): State<App>,
    ChatUser(caller): ChatUser,
    PathOf(id): PathOf<Uuid>,
    QueryOf(query): QueryOf<Follow>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let until = query.until.unwrap_or_default();
    let since = last_event_id(&headers).map(Version);
    stream(app, caller, ChatId::new(id), since, until).await
}

/// Takes the id that a client saw last; what is none means the beginning.
pub(super) fn last_event_id(headers: &HeaderMap) -> Option<i64> {
    let id = headers.get("last-event-id")?.to_str().ok()?;
    id.parse().ok().filter(|id| *id >= 0)
}

/// Begins to follow a chat, after its first read has shown that it is there.
pub(super) async fn stream(
    app: App,
    caller: Caller,
    chat: ChatId,
    since: Option<Version>,
    until: Until,
) -> Result<Response, Problem> {
    let token = app.revocations.hold(caller).await?;
    let feed = Feed::open(&app.followed, chat, caller.reach(), token, since, until).await?;
    Ok(respond(frames(feed)))
}

fn frames(feed: Feed) -> impl Stream<Item = Bytes> + Send {
    // Boxed: the stream has room for it where it rests, and again where it waits.
    unfold(Box::new(feed), |mut feed| async move {
        let bytes = feed.next().await?;
        Some((bytes, feed))
    })
}

/// Answers with a stream of frames.
pub(super) fn respond(frames: impl Stream<Item = Bytes> + Send + 'static) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        // A proxy that collects a page before it sends it would hold events back.
        (X_ACCEL_BUFFERING, HeaderValue::from_static("no")),
    ];
    (headers, Body::from_stream(frames.map(Ok::<_, Infallible>))).into_response()
}

#[cfg(test)]
mod tests;
