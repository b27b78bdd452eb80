//! The task that reads a followed chat for all its followers.

use std::sync::Arc;

use musterbeat_core::chat::{Changes, Place};
use musterbeat_core::id::ChatId;
use musterbeat_core::port::{Reach, StoreError, Watcher};
use tokio::time::sleep;

use super::followed::{Board, FollowPorts};
use super::log::Delta;
use crate::cluster::Relay;
use crate::database::RETRY_BACKOFF;
use crate::metrics::CHAT_READS;

/// Reads a chat when it changes, until its last follower has gone or the server ends.
pub(super) struct Keeper {
    ports: Arc<FollowPorts>,
    board: Arc<Board>,
    chat: ChatId,
    watcher: Box<dyn Watcher>,
    /// Boxed, since most chats are at rest and have none.
    relay: Option<Box<(Place, Relay)>>,
}

enum Read {
    Done,
    /// The database did not answer.
    Failed,
    /// There is nothing to follow any more.
    Gone,
}

impl Keeper {
    pub(super) fn new(
        ports: Arc<FollowPorts>,
        board: Arc<Board>,
        chat: ChatId,
        watcher: Box<dyn Watcher>,
        place: Option<Place>,
    ) -> Self {
        let mut keeper = Self { ports, board, chat, watcher, relay: None };
        keeper.attend(place);
        keeper
    }

    pub(super) async fn keep(mut self) {
        loop {
            tokio::select! {
                () = self.board.called.notified() => {}
                _ = self.watcher.recv() => {}
            }
            let call = self.board.take_call();
            if call.is_deserted {
                return;
            }
            // Not inside `select!`, since a call that is given up costs its connection;
            // boxed, since a keeper rests here and a statement's room is large.
            let is_there = Box::pin(self.bring_up_to_date(call.is_look_due)).await;
            // The last turn may have ended with the server, and was read now.
            if call.is_closing || !is_there {
                return;
            }
        }
    }

    /// Reads until the log has everything, or nobody needs it; false when there is no chat.
    async fn bring_up_to_date(&mut self, is_look: bool) -> bool {
        let mut failures = 0;
        loop {
            match self.read(is_look).await {
                Read::Done => return true,
                Read::Gone => return false,
                Read::Failed => failures += 1,
            }
            let pause = sleep(RETRY_BACKOFF.delay(failures, rand::random()));
            tokio::select! {
                () = pause => {}
                () = self.board.is_over() => return false,
            }
        }
    }

    /// Brings the log up to date, page by page.
    async fn read(&mut self, is_look: bool) -> Read {
        loop {
            match self.read_page(is_look).await {
                Ok(Some(true)) => {}
                Ok(Some(false)) => return Read::Done,
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
    }

    /// Reads a page and says whether there is another; `None` when the chat is not there.
    async fn read_page(&mut self, is_look: bool) -> Result<Option<bool>, StoreError> {
        let since = self.board.reached();
        metrics::counter!(CHAT_READS.name, "for" => "all").increment(1);
        // Each follower has shown with a read of its own that the chat is within its reach.
        let read = self.ports.chats.changes(self.chat, Reach::Everything, since).await?;
        let Some(mut changes) = read else { return Ok(None) };
        self.attend(changes.place.take());
        Ok(Some(self.put(changes, is_look)))
    }

    fn put(&mut self, changes: Changes, is_look: bool) -> bool {
        if changes.reset {
            self.board.reset(changes.chat.version);
            return false;
        }
        if Some(changes.reached) <= self.board.reached() {
            self.board.write(|log| {
                // Nobody waits for what is in the log any more, if nothing came for so long.
                if is_look {
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
        let ports = &self.ports;
        let place = place.filter(|place| ports.cluster.is_elsewhere(place));
        if self.relay.as_ref().map(|relay| &relay.0) == place.as_ref() {
            return;
        }
        // Ended before the next one begins: of one run there is one mirror.
        self.relay = None;
        self.relay = place.map(|place| {
            let relay = ports.cluster.relay(self.chat.into(), &place, &ports.parts);
            Box::new((place, relay))
        });
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        // Also after a panic: followers must not wait for nobody.
        self.board.end();
    }
}
