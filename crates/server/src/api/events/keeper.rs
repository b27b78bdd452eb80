//! The task that reads a followed chat for all its followers.

use std::sync::Arc;
use std::time::Duration;

use musterbeat_core::backoff::Backoff;
use musterbeat_core::chat::{Changes, Place};
use musterbeat_core::id::ChatId;
use musterbeat_core::port::{Reach, StoreError, Watcher};
use tokio::time::{Instant, sleep, sleep_until};

use super::followed::{Board, Registry};
use super::log::Delta;
use super::watching::next_look;
use crate::cluster::Relay;
use crate::metrics::CHAT_READS;

/// How a keeper waits for a database that does not answer; followers stay.
const READ_BACKOFF: Backoff =
    Backoff { delay_first: Duration::from_millis(100), delay_max: Duration::from_secs(5) };

/// Reads a chat when it changes, until its last follower has gone or the server ends.
pub(super) struct Keeper {
    registry: Arc<Registry>,
    board: Arc<Board>,
    chat: ChatId,
    watcher: Box<dyn Watcher>,
    look_at: Instant,
    /// Reads that failed in a row.
    failures: u32,
    relay: Option<(Place, Relay)>,
}

enum Wake {
    Deserted,
    /// The server ends; the last turn may have ended with it.
    End,
    Changed,
}

enum Read {
    Done,
    Failed,
    /// There is nothing to follow any more.
    Gone,
}

impl Keeper {
    pub(super) fn new(
        registry: Arc<Registry>,
        board: Arc<Board>,
        chat: ChatId,
        watcher: Box<dyn Watcher>,
    ) -> Self {
        let look_at = next_look();
        Self { registry, board, chat, watcher, look_at, failures: 0, relay: None }
    }

    pub(super) async fn keep(mut self, place: Option<Place>) {
        self.attend(place);
        loop {
            let wake = tokio::select! {
                biased;
                () = self.board.deserted.cancelled() => Wake::Deserted,
                () = self.registry.ports.end.cancelled() => Wake::End,
                _ = self.watcher.recv() => Wake::Changed,
                () = self.board.doubted.notified() => Wake::Changed,
                () = sleep_until(self.look_at) => Wake::Changed,
            };
            if matches!(wake, Wake::Deserted) {
                return;
            }
            // Not inside `select!`: a call that is given up costs its connection.
            let read = self.read().await;
            match (wake, read) {
                (Wake::Changed, Read::Done) => self.failures = 0,
                (Wake::Changed, Read::Failed) => self.rest().await,
                _ => return,
            }
        }
    }

    /// Waits before the next attempt, which a failed read is sure to get.
    async fn rest(&mut self) {
        self.failures += 1;
        self.look_at = Instant::now();
        tokio::select! {
            () = self.board.deserted.cancelled() => {}
            () = self.registry.ports.end.cancelled() => {}
            () = sleep(READ_BACKOFF.delay(self.failures, rand::random())) => {}
        }
    }

    /// Brings the log up to date, page by page.
    async fn read(&mut self) -> Read {
        loop {
            match self.read_page().await {
                Ok(Some(true)) => {}
                Ok(Some(false)) => break,
                Ok(None) => return Read::Gone,
                Err(error @ StoreError::Unavailable { .. }) => {
                    tracing::debug!(
                        chat.id = %self.chat,
                        error = &error as &dyn std::error::Error,
                        "a followed chat cannot be read for now"
                    );
                    return Read::Failed;
                }
                Err(error) => {
                    tracing::warn!(
                        chat.id = %self.chat,
                        error = &error as &dyn std::error::Error,
                        "followers are let go, since their chat cannot be read"
                    );
                    return Read::Gone;
                }
            }
        }
        self.look_at = next_look();
        Read::Done
    }

    /// Reads a page and says whether there is another; `None` when the chat is not there.
    async fn read_page(&mut self) -> Result<Option<bool>, StoreError> {
        let since = self.board.reached();
        metrics::counter!(CHAT_READS.name, "for" => "all").increment(1);
        // Each follower has shown with a read of its own that the chat is within its reach.
        let read = self.registry.ports.chats.changes(self.chat, Reach::Everything, since).await?;
        let Some(mut changes) = read else { return Ok(None) };
        self.attend(changes.place.take());
        Ok(Some(self.put(changes)))
    }

    fn put(&mut self, changes: Changes) -> bool {
        if changes.reset {
            self.board.reset(changes.chat.version);
            return false;
        }
        if Some(changes.reached) <= self.board.reached() {
            let is_idle = self.look_at <= Instant::now();
            self.board.write(|log| {
                // Nobody waits for what is in the log any more, if nothing came for so long.
                if is_idle {
                    log.clear();
                }
            });
            return false;
        }
        let delta = Arc::new(Delta::of(changes));
        let more = delta.is_page;
        self.board.write(|log| log.push(delta));
        more
    }

    /// Has the parts come from where the chat is worked on.
    fn attend(&mut self, place: Option<Place>) {
        let ports = &self.registry.ports;
        let place = place.filter(|place| ports.cluster.is_elsewhere(place));
        if self.relay.as_ref().map(|(place, _)| place) == place.as_ref() {
            return;
        }
        // Ended before the next one begins: of one run there is one mirror.
        self.relay = None;
        self.relay = place.map(|place| {
            let relay = ports.cluster.relay(self.chat.into(), &place, &ports.parts);
            (place, relay)
        });
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // Also after a panic: followers must not wait for nobody.
        self.board.end();
    }
}
