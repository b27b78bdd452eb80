//! What one follower of a chat is sent, and when.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use musterbeat_core::id::{ChatId, Version};
use musterbeat_core::port::{Reach, StoreError};
use musterbeat_engine::parts::{PartEvent, PartReader};
use tokio::time::sleep;

use super::Until;
use super::followed::{Followed, FollowedChat};
use super::frame;
use super::log::{Delta, Found, Told};
use crate::database::RETRY_BACKOFF;
use crate::http::problem::Problem;
use crate::metrics::{CHAT_READS, DELTAS_SHARED, FOLLOWERS};
use crate::revocation::Hold;

/// Pieces sent in a row before changes are looked at: a runner may be faster than a follower.
const PARTS_IN_ROW_MAX: u32 = 64;

/// One follower.
///
/// It subscribes, then reads, then compares versions: what changes in between is in the log of the
/// chat, and what it already has is passed over.
pub(super) struct Feed {
    id: ChatId,
    chat: Arc<FollowedChat>,
    reach: Reach,
    token: Hold,
    until: Until,
    parts: PartReader,
    parts_in_row: u32,
    /// INVARIANT: everything up to it was sent or is in `ready`.
    version: Option<Version>,
    /// The state of the log in which `version` means something.
    epoch: u32,
    /// How the chat stood when the follower was told last.
    told: Option<Told>,
    /// Whether the last read of its own was whole, and nothing has changed since.
    is_current: bool,
    /// Pings that it has passed on or come after.
    pings: u32,
    /// Reads of its own that failed in a row.
    failures: u32,
    /// One page at most, and the pieces before it: the next is told when this is empty.
    ready: VecDeque<Bytes>,
    ended: bool,
}

enum Wake {
    Changed,
    Part(PartEvent),
    Revoked,
}

impl Feed {
    pub(super) async fn open(
        followed: &Followed,
        id: ChatId,
        reach: Reach,
        token: Hold,
        since: Option<Version>,
        until: Until,
    ) -> Result<Self, Problem> {
        let chat = followed.follow(id).await?;
        let parts = chat.parts();
        let pings = chat.board().pings();
        metrics::gauge!(FOLLOWERS.name).increment(1);
        let mut feed = Self {
            id,
            chat,
            reach,
            token,
            until,
            parts,
            parts_in_row: 0,
            version: since,
            epoch: 0,
            told: None,
            is_current: false,
            pings,
            failures: 0,
            ready: VecDeque::new(),
            ended: false,
        };
        if !feed.read().await? {
            return Err(Problem::not_found());
        }
        Ok(feed)
    }

    /// Returns the next bytes of the stream, `None` at its end.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        let board = Arc::clone(self.chat.board());
        loop {
            if let Some(bytes) = self.ready.pop_front() {
                return Some(bytes);
            }
            if self.ended {
                return None;
            }
            // Before changes: the pieces of an answer come before the answer.
            if self.parts_in_row < PARTS_IN_ROW_MAX
                && let Some(part) = self.parts.try_next()
            {
                self.parts_in_row += 1;
                return Some(framed(part));
            }
            self.parts_in_row = 0;
            // Before the look, so that what is put there in between ends the wait.
            let changed = board.changed.notified();
            let has_ended = board.has_ended();
            match board.find(self.version, self.epoch) {
                Found::Next(delta) => {
                    metrics::counter!(DELTAS_SHARED.name).increment(1);
                    self.take_parts();
                    self.tell(&delta, vec![]);
                    continue;
                }
                Found::TooLate if !self.is_current => {
                    // Boxed: a stream rests in this function, and a statement's room is large.
                    Box::pin(self.catch_up()).await;
                    continue;
                }
                Found::Nothing | Found::TooLate if has_ended => {
                    self.ended = true;
                    continue;
                }
                // The log is ahead of the database, or moved on meanwhile: its keeper looks.
                Found::TooLate => board.called.notify_one(),
                Found::Nothing => {}
            }
            let pings = board.pings();
            if std::mem::replace(&mut self.pings, pings) != pings {
                return Some(frame::PING);
            }
            // A stream that rests keeps no room for a page.
            self.ready = VecDeque::new();
            let wake = tokio::select! {
                biased;
                () = self.token.revoked() => Wake::Revoked,
                part = self.parts.next() => Wake::Part(part),
                () = changed => Wake::Changed,
            };
            match wake {
                Wake::Part(part) => return Some(framed(part)),
                Wake::Changed => self.is_current = false,
                Wake::Revoked => self.ended = true,
            }
        }
    }

    /// Queues the pieces that are there: what is told next may hold the answer that they led to.
    fn take_parts(&mut self) {
        for _ in 0..PARTS_IN_ROW_MAX {
            let Some(part) = self.parts.try_next() else { return };
            self.ready.push_back(framed(part));
        }
    }

    /// Reads by itself what the log lacks; a follower that can never be served is let go.
    async fn catch_up(&mut self) {
        match self.read().await {
            Ok(there) => {
                self.failures = 0;
                self.ended |= !there;
            }
            Err(StoreError::Unavailable { .. }) => {
                self.failures += 1;
                // The client is shown that its stream lives on.
                self.ready.push_back(frame::PING);
                tokio::select! {
                    () = self.token.revoked() => self.ended = true,
                    () = self.chat.ports().end.cancelled() => self.ended = true,
                    () = sleep(RETRY_BACKOFF.delay(self.failures, rand::random())) => {}
                }
            }
            Err(error) => {
                tracing::warn!(
                    chat.id = %self.id,
                    error = &error as &dyn std::error::Error,
                    "a follower is let go, since its chat cannot be read"
                );
                self.ended = true;
            }
        }
    }

    /// Queues a page of what changed, within reach; false when the chat is not there.
    async fn read(&mut self) -> Result<bool, StoreError> {
        // Before the read: if it is older than the next reset, it is made again.
        let epoch = self.chat.board().epoch();
        metrics::counter!(CHAT_READS.name, "for" => "one").increment(1);
        let read = self.chat.ports().chats.changes(self.id, self.reach, self.version).await?;
        let Some(mut changes) = read else { return Ok(false) };
        self.epoch = epoch;
        self.chat.begin(changes.chat.version, changes.place.take());
        // A follower begins with the snapshot.
        if self.told.is_some() {
            self.take_parts();
        }
        if self.version.is_none() || changes.reset {
            let reset = changes.reset.then_some(frame::HISTORY_RESET);
            let (snapshot, delta) = Delta::with_snapshot(changes);
            self.told = Some(delta.stand.told());
            self.version = Some(delta.reached);
            self.tell(&delta, reset.into_iter().chain([snapshot]).collect());
        } else {
            self.tell(&Delta::of(changes), vec![]);
        }
        Ok(true)
    }

    /// Queues `first` and what is new of `delta`.
    fn tell(&mut self, delta: &Delta, first: Vec<Bytes>) {
        let mut told = first;
        told.extend(delta.messages_after(self.version));
        if !delta.is_page {
            told.extend(delta.stand.differing(self.told));
            self.told = Some(delta.stand.told());
            self.ended |= self.until == Until::Rest && delta.stand.is_at_rest();
        }
        self.version = Some(delta.reached);
        self.is_current = !delta.is_page;
        self.ready.extend(frame::ended(told, delta.reached));
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        metrics::gauge!(FOLLOWERS.name).decrement(1);
    }
}

fn framed(part: PartEvent) -> Bytes {
    match part {
        PartEvent::Part { bytes, .. } => bytes,
        PartEvent::Resync { missed } => frame::resync(missed),
    }
}
