//! What operators' tools ask: life, readiness, metrics.

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;

use crate::app::App;
use crate::http::problem::{Kind, Problem};

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route("/healthz", get(alive))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
}

/// The process serves.
async fn alive() -> &'static str {
    "ok\n"
}

/// The process takes new work: its database answers and it is not about to end.
async fn ready(State(app): State<App>) -> Result<&'static str, Problem> {
    if app.shutdown.is_requested() {
        return Err(Problem::new(Kind::Unavailable, "this replica is about to end; use another"));
    }
    if !app.readiness.database_answers().await {
        return Err(Problem::new(Kind::Unavailable, "the database does not answer this replica"));
    }
    Ok("ok\n")
}

async fn metrics(State(app): State<App>) -> Response {
    metrics_process::Collector::default().collect();
    let media_type = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (media_type, app.metrics.render()).into_response()
}
