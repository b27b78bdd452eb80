//! Whether the database answers, asked once for all who want to know.

use std::sync::Arc;
use std::time::Duration;

use musterbeat_db::PgStore;
use tokio::sync::Mutex;
use tokio::time::Instant;

/// How long an answer holds: a probe must not cost a connection each time, however many come.
const ANSWER_TIME: Duration = Duration::from_secs(1);

/// What the database last said. Clones share it.
#[derive(Clone)]
pub(crate) struct Readiness {
    store: PgStore,
    last: Arc<Mutex<Option<(Instant, bool)>>>,
}

impl Readiness {
    pub(crate) fn of(store: PgStore) -> Self {
        Self { store, last: Arc::default() }
    }

    /// Says whether the database answers; those who ask meanwhile wait for the same answer.
    pub(crate) async fn database_answers(&self) -> bool {
        let mut last = self.last.lock().await;
        if let Some((asked, answers)) = *last
            && asked.elapsed() < ANSWER_TIME
        {
            return answers;
        }
        let pinged = self.store.ping().await;
        if let Err(error) = &pinged {
            tracing::warn!(error = error as &dyn std::error::Error, "this replica is not ready");
        }
        *last = Some((Instant::now(), pinged.is_ok()));
        pinged.is_ok()
    }
}
