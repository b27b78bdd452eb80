//! The routes for other replicas, outside of the API: only the cluster's secret opens them.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum_extra::TypedHeader;
use axum_extra::headers::Authorization;
use axum_extra::headers::authorization::Bearer;
use bytes::Bytes;
use futures_util::stream::unfold;
use musterbeat_core::id::{Fence, RunId};
use musterbeat_engine::parts::{PartTap, TapEvent};
use serde::Deserialize;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::wire::{self, Told};
use super::{Cluster, REPLICA};
use crate::app::App;
use crate::http::extract::{PathOf, QueryOf};
use crate::http::problem::{Kind, Problem};
use crate::metrics::RELAYS_SERVED;

/// Pause after which a quiet stream says that it is there.
pub(super) const ALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// Returns the routes.
pub(crate) fn routes() -> Router<App> {
    Router::new().route("/cluster/v1/runs/{run}/parts", get(parts))
}

/// Another replica of this cluster, and not this one itself.
struct Peer;

impl FromRequestParts<App> for Peer {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let header = TypedHeader::<Authorization<Bearer>>::from_request_parts(parts, app).await;
        let bearer = header.as_ref().map_or("", |header| header.token());
        match app.cluster.admits(bearer) {
            None => Err(Problem::not_found()),
            Some(false) => Err(Problem::new(Kind::Unauthorized, "this is for other replicas only")),
            Some(true) if parts.headers.get(REPLICA) == Some(&app.cluster.replica()) => {
                let detail = "this replica asks itself; give each an `advertise_url` of its own";
                Err(Problem::new(Kind::NotNow, detail))
            }
            Some(true) => Ok(Self),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PartsOf {
    fence: i64,
}

/// Streams the parts that the owner of a run writes here, until it ends.
async fn parts(
    State(app): State<App>,
    _peer: Peer,
    PathOf(run): PathOf<Uuid>,
    QueryOf(query): QueryOf<PartsOf>,
) -> Result<Response, Problem> {
    let place = app.cluster.place().ok_or_else(|| {
        Problem::new(Kind::Unavailable, "this replica serves as many relays as it can")
    })?;
    let tap = app.parts.tap(RunId::new(run), Fence(query.fence)).ok_or_else(|| {
        Problem::new(Kind::NotFound, "the run is not worked on here under that fence")
    })?;
    let served = Served::new(tap, app.streams_end, place);
    let bytes = unfold(served, |mut served| async move {
        let bytes = served.next().await?;
        Some((Ok::<_, Infallible>(bytes), served))
    });
    let headers = [(header::CONTENT_TYPE, HeaderValue::from_static(wire::MEDIA_TYPE))];
    Ok((headers, Body::from_stream(bytes)).into_response())
}

impl Cluster {
    fn place(&self) -> Option<OwnedSemaphorePermit> {
        self.0.served.clone().try_acquire_owned().ok()
    }
}

/// One relay as its owner's replica serves it.
struct Served {
    tap: PartTap,
    end: CancellationToken,
    /// What of the last frame was not sent yet.
    ready: VecDeque<Bytes>,
    ended: bool,
    _place: OwnedSemaphorePermit,
}

impl Served {
    fn new(tap: PartTap, end: CancellationToken, place: OwnedSemaphorePermit) -> Self {
        metrics::gauge!(RELAYS_SERVED.name).increment(1);
        Self { tap, end, ready: VecDeque::new(), ended: false, _place: place }
    }

    async fn next(&mut self) -> Option<Bytes> {
        if let Some(bytes) = self.ready.pop_front() {
            return Some(bytes);
        }
        if self.ended {
            return None;
        }
        let told = tokio::select! {
            () = self.end.cancelled() => return None,
            told = timeout(ALIVE_INTERVAL, self.tap.next()) => told.map_or(Told::Alive, Told::Tap),
        };
        self.ended = told == Told::Tap(TapEvent::End);
        let (head, bytes) = wire::encode(told);
        self.ready.extend(bytes);
        Some(head)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        metrics::gauge!(RELAYS_SERVED.name).decrement(1);
    }
}
