//! When something was published, just after the commit that it tells of.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use musterbeat_core::port::{Publish, PublishError, Topic};
use musterbeat_pubsub::PgTransport;
use uuid::Uuid;

/// Notes when something is published first.
pub(super) struct Stamping {
    inner: PgTransport,
    at: Mutex<Option<Instant>>,
}

impl Stamping {
    pub(super) fn new(inner: PgTransport) -> Self {
        Self { inner, at: Mutex::default() }
    }

    /// Forgets what was published so far.
    pub(super) fn clear(&self) {
        *self.at.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Returns when it was told of the first change since.
    pub(super) fn at(&self) -> Option<Instant> {
        *self.at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Publish for Stamping {
    fn publish(&self, topic: Topic, id: Uuid) {
        self.publish_all(topic, &[id]);
    }

    fn publish_all(&self, topic: Topic, ids: &[Uuid]) {
        let mut at = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        at.get_or_insert_with(Instant::now);
        drop(at);
        self.inner.publish_all(topic, ids);
    }

    async fn flush(&self) -> Result<(), PublishError> {
        self.inner.flush().await
    }
}
