//! How long to trust notices, and whether a follower is still welcome.

use std::collections::BTreeSet;
use std::time::Duration;

use musterbeat_core::port::{Interest, StoreError, Topic, Watch, Watcher};
use tokio::time::Instant;
use uuid::Uuid;

use crate::app::App;
use crate::http::problem::{Kind, Problem};
use crate::identity::Caller;

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
    watch.watch(topic, Interest::Ids(BTreeSet::from([id]))).await.map_err(|error| {
        tracing::error!(error = &error as &dyn std::error::Error, "changes cannot be watched");
        Problem::new(Kind::Unavailable, "changes cannot be watched for now")
    })
}

/// Says whether a caller's token is in force; none is asked for in `dev`.
pub(in crate::api) async fn is_still_welcome(
    app: &App,
    caller: Caller,
) -> Result<bool, StoreError> {
    match caller.token {
        Some(token) => app.store.token_in_force(token).await,
        None => Ok(true),
    }
}

/// Waits for a notice of a token, for ever when there is none.
pub(in crate::api) async fn notified(token: &mut Option<Box<dyn Watcher>>) {
    match token {
        Some(watcher) => {
            watcher.recv().await;
        }
        None => std::future::pending().await,
    }
}
