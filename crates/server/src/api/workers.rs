//! Who works.

use axum::Json;
use axum::extract::State;
use musterbeat_core::port::{LeaseStore, WorkerState};
use serde::Serialize;
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::app::App;
use crate::http::extract::Admin;
use crate::http::problem::{AnyProblem, Problem};

/// All workers.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct WorkerList {
    /// The oldest first.
    workers: Vec<Worker>,
}

/// One start of a worker process.
#[derive(Debug, Serialize, ToSchema)]
struct Worker {
    /// Fresh at each start, and whenever its lease has lapsed.
    id: Uuid,
    /// What its operator calls it.
    name: String,
    /// Where other replicas reach it.
    advertise_url: Option<String>,
    /// The release that it runs.
    release: String,
    /// How many runs it takes.
    capacity: u32,
    /// How many runs it owns.
    runs: u64,
    #[serde(with = "time::serde::rfc3339")]
    started_at: OffsetDateTime,
    /// Its last beat.
    #[serde(with = "time::serde::rfc3339")]
    heartbeat_at: OffsetDateTime,
    /// Seconds since its last beat, on the database's clock.
    beat_age: f64,
    /// Whether it was found dead and its runs are being taken back.
    dead: bool,
}

impl From<WorkerState> for Worker {
    fn from(state: WorkerState) -> Self {
        Self {
            id: state.lease.worker.uuid(),
            name: state.lease.name,
            advertise_url: state.lease.advertise_url,
            release: state.lease.release,
            capacity: state.lease.capacity,
            runs: state.runs,
            started_at: state.started_at.time(),
            heartbeat_at: state.heartbeat_at.time(),
            beat_age: state.beat_age.as_secs_f64(),
            dead: state.dead,
        }
    }
}

/// Lists the workers: their leases, what they own, and their last beats.
#[utoipa::path(
    get,
    path = "/workers",
    operation_id = "list_workers",
    tag = "workers",
    responses((status = 200, description = "The workers", body = WorkerList), AnyProblem),
)]
pub(super) async fn list(
    State(app): State<App>,
    _admin: Admin,
) -> Result<Json<WorkerList>, Problem> {
    let workers = app.store.workers().await?;
    Ok(Json(WorkerList { workers: workers.into_iter().map(Worker::from).collect() }))
}
