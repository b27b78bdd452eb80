//! How to watch, and how long to trust notices.

use std::time::Duration;

use musterbeat_core::port::{Interest, Topic, Watch, Watcher};
use tokio::time::Instant;
use uuid::Uuid;

use crate::http::problem::{Kind, Problem};

/// Longest wait before somebody looks for changes, whatever notices say; a half at least.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);

/// Spread evenly, so that those who came together do not look together.
pub(in crate::api) fn next_look() -> Instant {
    Instant::now() + LOOK_INTERVAL.mul_f64(0.5 + rand::random::<f64>() / 2.0)
}

/// Begins to watch one id.
pub(in crate::api) async fn watch(
    watch: &dyn Watch,
    topic: Topic,
    id: Uuid,
) -> Result<Box<dyn Watcher>, Problem> {
    watch.watch(topic, Interest::One(id)).await.map_err(|error| {
        tracing::error!(error = &error as &dyn std::error::Error, "changes cannot be watched");
        Problem::new(Kind::Unavailable, "changes cannot be watched for now")
    })
}
