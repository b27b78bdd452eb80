//! Changes that are told only if their transaction commits.

use musterbeat_core::port::{Publish, Topic};
use uuid::Uuid;

/// Collects changes beside a transaction.
///
/// [`publish`](Self::publish) after the commit tells them; dropping the guard, as an error or a
/// rollback does, tells nothing. A process that dies in between tells nothing either: watchers
/// look by themselves from time to time.
///
/// ```
/// use musterbeat_core::port::{Publish, Topic};
/// use musterbeat_pubsub::{AfterCommit, MemoryTransport};
/// use uuid::Uuid;
///
/// # async fn write() -> Result<(), std::io::Error> { Ok(()) }
/// # async fn example(transport: &MemoryTransport) -> Result<(), std::io::Error> {
/// let mut changes = AfterCommit::default();
/// changes.mark(Topic::Chat, Uuid::from_u128(1));
/// write().await?;
/// changes.publish(transport);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
#[must_use = "changes that are not published after the commit are told to nobody"]
pub struct AfterCommit(Vec<(Topic, Uuid)>);

impl AfterCommit {
    /// Notes that the transaction changes `id`.
    pub fn mark(&mut self, topic: Topic, id: Uuid) {
        self.0.push((topic, id));
    }

    /// Tells what was noted; call it when the commit was acknowledged.
    pub fn publish(self, publisher: &dyn Publish) {
        for (topic, id) in self.0 {
            publisher.publish(topic, id);
        }
    }
}
