//! Chats that are followed in this process: what changes in one is read once for all who follow it.
//!
//! Each such chat has a keeper, a task that watches it, reads what changed and puts it into a log,
//! encoded. Followers take from the log what is newer than what they have. Who comes reads first by
//! itself, within its reach, and so does who is so slow that the log has forgotten what it lacks.
//! The keeper also holds the relay of the chat's parts, if its owner is elsewhere.
//! The chat is here until its last follower has gone.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use musterbeat_core::chat::Place;
use musterbeat_core::id::{ChatId, Version};
use musterbeat_core::port::{ChatReader, Topic, Watch, Watcher};
use musterbeat_engine::parts::{PartReader, PartStreams};
use musterbeat_engine::weak_map::WeakMap;
use tokio::sync::{Notify, OnceCell};
use tokio::time::interval;
use tokio_util::sync::CancellationToken;

use super::PING_INTERVAL;
use super::keeper::Keeper;
use super::log::{Found, Log};
use super::watching::watch;
use crate::cluster::Cluster;
use crate::http::problem::Problem;
use crate::metrics::CHATS_FOLLOWED;

/// In how many slices chats are pinged, so that they do not all wake at once.
const PING_SLICES: u32 = 32;

/// A keeper looks for changes, whatever notices say, once in so many pings: each 30 s.
const LOOK_ROUNDS: u32 = 2;

/// What following chats takes.
pub(crate) struct FollowPorts {
    pub(crate) chats: Arc<dyn ChatReader>,
    pub(crate) watch: Arc<dyn Watch>,
    pub(crate) parts: PartStreams,
    pub(crate) cluster: Cluster,
    /// Ends every event stream.
    pub(crate) end: CancellationToken,
}

/// The chats that are followed. Clones share them.
#[derive(Clone)]
pub(crate) struct Followed {
    ports: Arc<FollowPorts>,
    /// Held by their followers.
    chats: Arc<WeakMap<ChatId, FollowedChat>>,
}

impl Followed {
    /// Nothing is followed.
    pub(crate) fn new(ports: FollowPorts) -> Self {
        Self { ports: Arc::new(ports), chats: Arc::default() }
    }

    /// Begins to follow a chat, there or not: changes from here on will be in its log.
    pub(super) async fn follow(&self, chat: ChatId) -> Result<Arc<FollowedChat>, Problem> {
        let is_fit = |followed: &FollowedChat| !followed.board.has_ended();
        let make = || FollowedChat::new(Arc::clone(&self.ports), chat);
        let followed = self.chats.hold(chat, is_fit, make);
        let watching = followed.watcher.get_or_try_init(async || {
            let watcher = watch(&*self.ports.watch, Topic::Chat, chat.uuid()).await?;
            Ok::<_, Problem>(Mutex::new(Some(watcher)))
        });
        watching.await?;
        // Those that come later are not among those that were called at the end.
        if self.ports.end.is_cancelled() {
            followed.board.call(|call| call.is_closing = true);
        }
        Ok(followed)
    }

    /// Has followers pinged and keepers look now and then, and keepers at the end once more.
    ///
    /// One timer for all: ten thousand streams that rest have none of their own.
    pub(crate) async fn run(self) {
        let mut tick = interval(PING_INTERVAL / PING_SLICES);
        for number in (0..PING_SLICES * LOOK_ROUNDS).cycle() {
            tokio::select! {
                () = self.ports.end.cancelled() => break,
                _ = tick.tick() => {}
            }
            for chat in self.chats.keys() {
                // The last bits of ids are random, whatever their version.
                let [.., last] = *chat.uuid().as_bytes();
                let turn = u32::from(last) % (PING_SLICES * LOOK_ROUNDS);
                if turn % PING_SLICES == number % PING_SLICES {
                    self.on_board(chat, Board::ping);
                }
                if turn == number {
                    self.on_board(chat, |board| board.call(|call| call.is_look_due = true));
                }
            }
        }
        for chat in self.chats.keys() {
            self.on_board(chat, |board| board.call(|call| call.is_closing = true));
        }
    }

    fn on_board(&self, chat: ChatId, write: impl FnOnce(&Board)) {
        if let Some(followed) = self.chats.get(&chat) {
            write(&followed.board);
        }
    }
}

/// A chat with followers in this process.
pub(super) struct FollowedChat {
    ports: Arc<FollowPorts>,
    chat: ChatId,
    /// Begun by the first follower, and taken by the keeper.
    watcher: OnceCell<Mutex<Option<Box<dyn Watcher>>>>,
    board: Arc<Board>,
}

impl FollowedChat {
    fn new(ports: Arc<FollowPorts>, chat: ChatId) -> Self {
        metrics::gauge!(CHATS_FOLLOWED.name).increment(1);
        Self { ports, chat, watcher: OnceCell::new(), board: Arc::default() }
    }

    pub(super) fn ports(&self) -> &FollowPorts {
        &self.ports
    }

    pub(super) fn board(&self) -> &Arc<Board> {
        &self.board
    }

    pub(super) fn parts(&self) -> PartReader {
        self.ports.parts.subscribe(self.chat.into())
    }

    /// Starts the keeper, unless it is there, where a follower's own read has ended.
    pub(super) fn begin(&self, version: Version, place: Option<Place>) {
        let watcher = self
            .watcher
            .get()
            .and_then(|watcher| watcher.lock().unwrap_or_else(PoisonError::into_inner).take());
        let Some(watcher) = watcher else { return };
        self.board.begin(version);
        let ports = Arc::clone(&self.ports);
        let board = Arc::clone(&self.board);
        let keeper = Keeper::new(ports, board, self.chat, watcher, place);
        tokio::spawn(keeper.keep());
    }
}

impl Drop for FollowedChat {
    fn drop(&mut self) {
        self.board.call(|call| call.is_deserted = true);
        metrics::gauge!(CHATS_FOLLOWED.name).decrement(1);
    }
}

/// Where a keeper puts what it read, and followers look.
#[derive(Default)]
pub(super) struct Board {
    state: Mutex<State>,
    /// Rung whenever the state changes.
    pub(super) changed: Notify,
    /// Rung for the keeper, also by a follower who cannot go on with the log as it is.
    pub(super) called: Notify,
}

#[derive(Default)]
struct State {
    log: Option<Log>,
    /// Grows when the stored history was replaced: versions of before mean nothing any more.
    epoch: u32,
    /// Whether nothing will be added any more.
    ended: bool,
    call: Call,
    /// Pings so far.
    pings: u32,
}

/// Why a keeper is called, beside for a look at once.
#[derive(Clone, Copy, Default)]
pub(super) struct Call {
    /// Whether the last follower has gone.
    pub(super) is_deserted: bool,
    /// Whether the server ends.
    pub(super) is_closing: bool,
    /// Whether notices have been trusted for long enough.
    pub(super) is_look_due: bool,
}

impl Board {
    /// Returns what one who has everything up to `version` of `epoch` is to be told next.
    pub(super) fn find(&self, version: Option<Version>, epoch: u32) -> Found {
        let state = self.state();
        match (&state.log, version) {
            (Some(log), Some(version)) if state.epoch == epoch => log.find(version),
            _ => Found::TooLate,
        }
    }

    pub(super) fn epoch(&self) -> u32 {
        self.state().epoch
    }

    pub(super) fn has_ended(&self) -> bool {
        self.state().ended
    }

    /// Returns why the keeper is called; a look is due once.
    pub(super) fn take_call(&self) -> Call {
        let mut state = self.state();
        let call = state.call;
        state.call.is_look_due = false;
        call
    }

    /// Waits until nobody needs the keeper any more.
    pub(super) async fn is_over(&self) {
        loop {
            let call = self.state().call;
            if call.is_deserted || call.is_closing {
                // For the next who waits.
                self.called.notify_one();
                return;
            }
            self.called.notified().await;
        }
    }

    /// Changes the log, if it was begun, and wakes the followers.
    pub(super) fn write(&self, write: impl FnOnce(&mut Log)) {
        if let Some(log) = &mut self.state().log {
            write(log);
        }
        self.changed.notify_waiters();
    }

    /// Returns up to which version the log has everything.
    pub(super) fn reached(&self) -> Option<Version> {
        self.state().log.as_ref().map(Log::reached)
    }

    /// Begins the log again after the stored history was replaced.
    pub(super) fn reset(&self, version: Version) {
        let mut state = self.state();
        state.epoch += 1;
        state.log = Some(Log::after(version));
        drop(state);
        self.changed.notify_waiters();
    }

    pub(super) fn end(&self) {
        self.state().ended = true;
        self.changed.notify_waiters();
    }

    /// Returns how many pings there were.
    pub(super) fn pings(&self) -> u32 {
        self.state().pings
    }

    fn ping(&self) {
        self.state().pings += 1;
        self.changed.notify_waiters();
    }

    fn call(&self, why: impl FnOnce(&mut Call)) {
        why(&mut self.state().call);
        self.called.notify_one();
    }

    fn begin(&self, version: Version) {
        self.state().log = Some(Log::after(version));
        self.changed.notify_waiters();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No step of a change panics halfway, so it is whole even if its lock is poisoned.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
