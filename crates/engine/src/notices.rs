//! How loops that must hear of changes begin to.

use musterbeat_core::port::{Interest, Topic, Watch, Watcher};
use tokio::time::sleep;

use crate::retry::BACKOFF;

/// Begins to watch all of a topic; tries again until it can.
///
/// Whoever calls it looks at everything once afterwards: what changed before was told to nobody.
pub async fn watch_all(watch: &dyn Watch, topic: Topic) -> Box<dyn Watcher> {
    let mut failures = 0;
    loop {
        match watch.watch(topic, Interest::All).await {
            Ok(watcher) => return watcher,
            Err(error) => {
                failures += 1;
                tracing::error!(
                    topic = topic.as_str(),
                    failures,
                    error = &error as &dyn std::error::Error,
                    "changes cannot be watched for now"
                );
                sleep(BACKOFF.delay(failures, rand::random())).await;
            }
        }
    }
}
