//! Chats that are followed in this process: what changes in one is read once for all who follow it.
//!
//! Each such chat has a keeper, a task that watches it, reads what changed and puts it into a log,
//! encoded. Followers take from the log what is newer than what they have. Who comes reads first by
//! itself, within its reach, and so does who is so slow that the log has forgotten what it lacks.
//! The keeper also holds the relay of the chat's parts, if its owner is elsewhere.
//! The chat is here until its last follower has gone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use musterbeat_core::chat::Place;
use musterbeat_core::id::{ChatId, Version};
use musterbeat_core::port::{ChatReader, Topic, Watch, Watcher};
use musterbeat_engine::parts::{PartReader, PartStreams};
use tokio::sync::{Notify, OnceCell};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::keeper::Keeper;
use super::log::{Found, Log};
use super::watching::watch;
use crate::cluster::Cluster;
use crate::http::problem::Problem;
use crate::metrics::CHATS_FOLLOWED;

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
pub(crate) struct Followed(Arc<Registry>);

pub(super) struct Registry {
    pub(super) ports: FollowPorts,
    /// INVARIANT: a chat that can be upgraded has followers.
    chats: Mutex<HashMap<ChatId, Weak<FollowedChat>>>,
}

impl Followed {
    /// Nothing is followed.
    pub(crate) fn new(ports: FollowPorts) -> Self {
        Self(Arc::new(Registry { ports, chats: Mutex::default() }))
    }

    /// Begins to follow a chat, there or not: changes from here on will be in its log.
    pub(super) async fn follow(&self, chat: ChatId) -> Result<Arc<FollowedChat>, Problem> {
        let followed = self.0.attach(chat);
        let watching = followed.watcher.get_or_try_init(async || {
            let watcher = watch(&*self.0.ports.watch, Topic::Chat, chat.uuid()).await?;
            Ok::<_, Problem>(Mutex::new(Some(watcher)))
        });
        watching.await?;
        Ok(followed)
    }
}

impl Registry {
    fn attach(self: &Arc<Self>, chat: ChatId) -> Arc<FollowedChat> {
        let mut chats = self.chats();
        let there = chats.get(&chat).and_then(Weak::upgrade);
        if let Some(followed) = &there
            && !followed.board.has_ended()
        {
            return Arc::clone(followed);
        }
        let followed = Arc::new(FollowedChat::new(Arc::clone(self), chat));
        chats.insert(chat, Arc::downgrade(&followed));
        drop(chats);
        // Only after the lock is released: it may be the last, and takes itself out.
        drop(there);
        followed
    }

    /// Takes a chat out, unless another one of its name is there by now.
    fn detach(&self, chat: ChatId, followed: *const FollowedChat) {
        let mut chats = self.chats();
        if chats.get(&chat).is_some_and(|there| std::ptr::eq(there.as_ptr(), followed)) {
            chats.remove(&chat);
        }
    }

    fn chats(&self) -> MutexGuard<'_, HashMap<ChatId, Weak<FollowedChat>>> {
        // No step of a change panics halfway, so the map is whole even if its lock is poisoned.
        self.chats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A chat with followers in this process.
pub(super) struct FollowedChat {
    registry: Arc<Registry>,
    chat: ChatId,
    /// Begun by the first follower, and taken by the keeper.
    watcher: OnceCell<Mutex<Option<Box<dyn Watcher>>>>,
    board: Arc<Board>,
    _end: DropGuard,
}

impl FollowedChat {
    fn new(registry: Arc<Registry>, chat: ChatId) -> Self {
        metrics::gauge!(CHATS_FOLLOWED.name).increment(1);
        let board = Arc::new(Board::default());
        let end = board.deserted.clone().drop_guard();
        Self { registry, chat, watcher: OnceCell::new(), board, _end: end }
    }

    pub(super) fn ports(&self) -> &FollowPorts {
        &self.registry.ports
    }

    pub(super) fn board(&self) -> &Arc<Board> {
        &self.board
    }

    pub(super) fn parts(&self) -> PartReader {
        self.registry.ports.parts.subscribe(self.chat.into())
    }

    /// Starts the keeper, unless it is there, where a follower's own read has ended.
    pub(super) fn begin(&self, version: Version, place: Option<Place>) {
        let watcher = self
            .watcher
            .get()
            .and_then(|watcher| watcher.lock().unwrap_or_else(PoisonError::into_inner).take());
        let Some(watcher) = watcher else { return };
        self.board.begin(version);
        let registry = Arc::clone(&self.registry);
        let board = Arc::clone(&self.board);
        let keeper = Keeper::new(registry, board, self.chat, watcher);
        tokio::spawn(keeper.keep(place));
    }
}

impl Drop for FollowedChat {
    fn drop(&mut self) {
        self.registry.detach(self.chat, self);
        metrics::gauge!(CHATS_FOLLOWED.name).decrement(1);
    }
}

/// Where a keeper puts what it read, and followers look.
#[derive(Default)]
pub(super) struct Board {
    state: Mutex<State>,
    /// Rung whenever the state changes.
    pub(super) changed: Notify,
    /// Rung by a follower who cannot go on with the log as it is.
    pub(super) doubted: Notify,
    /// Cancelled when the last follower has gone.
    pub(super) deserted: CancellationToken,
}

#[derive(Default)]
struct State {
    log: Option<Log>,
    /// Grows when the stored history was replaced: versions of before mean nothing any more.
    epoch: u32,
    /// Whether nothing will be added any more.
    ended: bool,
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

    fn begin(&self, version: Version) {
        self.state().log = Some(Log::after(version));
        self.changed.notify_waiters();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // No step of a change panics halfway, so it is whole even if its lock is poisoned.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
