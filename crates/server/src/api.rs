//! The HTTP API: `/api/v1`, its description, and the routes of operators.

mod actions;
mod agents;
mod builds;
mod chats;
mod diffs;
mod events;
mod family;
mod feed;
mod health;
mod mcp;
mod messages;
mod metadata;
mod models;
mod presets;
mod queue;
mod templates;
mod tokens;
mod wire;
mod workers;
mod workspaces;

pub(crate) use self::events::{FollowPorts, Followed, part_frame};
pub(crate) use self::metadata::metadata_frame;

use std::sync::Arc;

use axum::extract::DefaultBodyLimit;
use axum::http::{Method, Uri};
use axum::middleware::{from_fn, from_fn_with_state};
use axum::response::IntoResponse;
use axum::{Json, Router};
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use utoipa_swagger_ui::SwaggerUi;

use crate::app::App;
use crate::cluster;
use crate::http::limits::{self, Rate};
use crate::http::observe;
use crate::http::problem::{Kind, Problem};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "musterbeat",
        description = "Keeps fleets of long-running work alive, observed and supplied.",
    ),
    components(schemas(Problem)),
    modifiers(&BearerToken),
    security(("token" = [])),
)]
struct Description;

struct BearerToken;

impl Modify for BearerToken {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("A token of `musterbeat token` or `POST /api/v1/tokens`."))
            .build();
        let components = openapi.components.get_or_insert_default();
        components.add_security_scheme("token", SecurityScheme::Http(scheme));
    }
}

fn documented() -> OpenApiRouter<App> {
    let api = OpenApiRouter::new()
        .routes(routes!(chats::create, chats::list))
        .routes(routes!(feed::follow))
        .routes(routes!(chats::read, chats::change))
        .routes(routes!(messages::send, messages::list))
        .routes(routes!(messages::edit))
        .routes(routes!(actions::interrupt))
        .routes(routes!(actions::compact))
        .routes(routes!(actions::archive))
        .routes(routes!(actions::unarchive))
        .routes(routes!(queue::list, queue::clear))
        .routes(routes!(queue::delete))
        .routes(routes!(queue::promote))
        .routes(routes!(events::follow))
        .routes(routes!(family::children))
        .routes(routes!(family::wait))
        .routes(routes!(diffs::read_many))
        .routes(routes!(diffs::read, diffs::mark_chat))
        .routes(routes!(diffs::refresh))
        .routes(routes!(diffs::mark_workspace))
        .routes(routes!(agents::create, agents::list))
        .routes(routes!(agents::delete))
        .routes(routes!(metadata::define))
        .routes(routes!(metadata::report, metadata::read))
        .routes(routes!(metadata::follow))
        .routes(routes!(models::list))
        .routes(routes!(models::put, models::delete))
        .routes(routes!(mcp::list))
        .routes(routes!(templates::create, templates::list))
        .routes(routes!(templates::read, templates::change, templates::delete))
        .routes(routes!(templates::add_version, templates::versions))
        .routes(routes!(presets::create, presets::list))
        .routes(routes!(presets::read, presets::change, presets::delete))
        .routes(routes!(presets::prebuilds))
        .routes(routes!(presets::claim))
        .routes(routes!(presets::pools))
        .routes(routes!(presets::pause))
        .routes(routes!(workspaces::create, workspaces::list))
        .routes(routes!(workspaces::read, workspaces::delete))
        .routes(routes!(workspaces::start))
        .routes(routes!(workspaces::stop))
        .routes(routes!(workspaces::builds))
        .routes(routes!(builds::read))
        .routes(routes!(builds::log))
        .routes(routes!(builds::interrupt))
        .routes(routes!(tokens::create))
        .routes(routes!(tokens::revoke))
        .routes(routes!(workers::list));
    OpenApiRouter::with_openapi(Description::openapi()).nest("/api/v1", api)
}

/// Returns the description of the API, as `/openapi.json` serves it.
pub fn openapi_json() -> String {
    let (_, openapi) = documented().split_for_parts();
    let mut text = openapi.to_pretty_json().expect("the description has no keys that JSON lacks");
    text.push('\n');
    text
}

/// Returns the service: limited, counted, and safe from a panic of one request.
pub(crate) fn router(app: App, rate: Arc<Rate>) -> Router {
    let (api, mut openapi) = documented().split_for_parts();
    let dev = app.dev;
    if dev {
        // What is described must hold: nobody is asked for a token.
        openapi.security = None;
    }
    let described = openapi.clone();
    let limited = api
        .merge(SwaggerUi::new("/docs").url("/docs/openapi.json", openapi))
        .route("/openapi.json", axum::routing::get(async || Json(described)))
        .layer(DefaultBodyLimit::max(limits::BODY_BYTES_MAX))
        .layer(from_fn_with_state(rate, limits::within_rate));
    // Probes and scrapes must get through when callers do not; their answers are shared. So must
    // other replicas, which have a bound of their own.
    let mut router = limited
        .merge(health::routes())
        .merge(cluster::routes())
        .layer(from_fn(limits::in_time))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(CatchPanicLayer::custom(|_| {
            Problem::new(Kind::Internal, "the request met a fault of the server; it is logged")
                .into_response()
        }))
        .layer(from_fn(observe::counted));
    if dev {
        router = router.layer(from_fn(limits::on_loopback));
    }
    router.with_state(app)
}

async fn no_route(uri: Uri) -> Problem {
    Problem::new(Kind::NotFound, format!("there is no route {}; see /docs", uri.path()))
}

async fn no_method(method: Method, uri: Uri) -> Problem {
    let detail = format!("{} does not take {method}; see /docs", uri.path());
    Problem::new(Kind::MethodNotAllowed, detail)
}
