//! Where those who watch and the one who listens meet.

use std::collections::{BTreeMap, BTreeSet};

use tokio::sync::watch;

use crate::channel::Channel;

/// What is to be listened to, and what is.
///
/// Both are changed and compared under one lock: whoever adds a channel while nothing is
/// listened to is sure that it is among those with which listening begins.
#[derive(Debug, Default)]
pub(super) struct Desk(watch::Sender<State>);

#[derive(Debug, Default)]
struct State {
    /// INVARIANT: has the channels that somebody watches, with how many do.
    wanted: BTreeMap<Channel, usize>,
    phase: Phase,
    confirmed: bool,
}

#[derive(Debug, Default)]
enum Phase {
    /// The first connection is being made.
    #[default]
    Connecting,
    /// Notices of these channels arrive, as far as the database knows.
    Listening(BTreeSet<Channel>),
    /// There is no connection. When there is one again, every watcher is told to read again.
    Down,
}

/// Whether watchers must be told, when listening begins, that they may have missed something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Before {
    /// Nobody watches yet who was not made to wait for this.
    Nothing,
    /// Watchers were without notices.
    Down,
}

impl Desk {
    /// Adds a watcher of `channels`.
    pub(super) fn add(&self, channels: &BTreeSet<Channel>) {
        self.0.send_if_modified(|state| {
            let before = state.wanted.len();
            for channel in channels {
                *state.wanted.entry(*channel).or_default() += 1;
            }
            before < state.wanted.len()
        });
    }

    /// Waits until `channels`, which were added, are listened to.
    ///
    /// While there is no connection it returns at once: the watcher will be told to read again.
    pub(super) async fn served(&self, channels: &BTreeSet<Channel>) {
        let served = |state: &State| match &state.phase {
            Phase::Connecting => false,
            Phase::Listening(listened) => channels.is_subset(listened),
            Phase::Down => true,
        };
        // The sender is here, so it is not gone.
        let _ = self.0.subscribe().wait_for(served).await;
    }

    /// Removes a watcher of `channels`.
    pub(super) fn remove(&self, channels: &BTreeSet<Channel>) {
        // Channels that nobody watches any more are given up later; nobody waits for that.
        self.0.send_if_modified(|state| {
            for channel in channels {
                if let Some(count) = state.wanted.get_mut(channel) {
                    *count -= 1;
                    if *count == 0 {
                        state.wanted.remove(channel);
                    }
                }
            }
            false
        });
    }

    /// Returns the channels that are watched.
    pub(super) fn wanted(&self) -> BTreeSet<Channel> {
        self.0.borrow().wanted.keys().copied().collect()
    }

    /// Waits until channels are watched that are not listened to, and returns them.
    pub(super) async fn missing(&self) -> BTreeSet<Channel> {
        let mut missing = BTreeSet::new();
        let some_missing = |state: &State| {
            let Phase::Listening(listened) = &state.phase else { return false };
            missing = state.wanted.keys().filter(|it| !listened.contains(it)).copied().collect();
            !missing.is_empty()
        };
        let _ = self.0.subscribe().wait_for(some_missing).await;
        missing
    }

    /// Says that `listened` are listened to, unless others are wanted meanwhile.
    pub(super) fn begin(&self, listened: &BTreeSet<Channel>) -> Option<Before> {
        let mut began = None;
        self.0.send_if_modified(|state| {
            if state.wanted.keys().any(|channel| !listened.contains(channel)) {
                return false;
            }
            began = Some(match state.phase {
                Phase::Connecting => Before::Nothing,
                Phase::Listening(_) | Phase::Down => Before::Down,
            });
            state.phase = Phase::Listening(listened.clone());
            true
        });
        began
    }

    /// Says that `channels` are listened to, too.
    pub(super) fn extend(&self, channels: BTreeSet<Channel>) {
        self.0.send_modify(|state| {
            if let Phase::Listening(listened) = &mut state.phase {
                listened.extend(channels);
            }
        });
    }

    /// Takes a channel that is listened to and that nobody watches.
    ///
    /// Before it is given up: whoever watches it from here on waits until it is listened to anew.
    pub(super) fn take_idle(&self) -> Option<Channel> {
        let mut idle = None;
        self.0.send_if_modified(|state| {
            if let Phase::Listening(listened) = &mut state.phase {
                idle = listened.iter().find(|it| !state.wanted.contains_key(it)).copied();
                if let Some(channel) = &idle {
                    listened.remove(channel);
                }
            }
            false
        });
        idle
    }

    /// Says that nothing is listened to.
    pub(super) fn end(&self) {
        self.0.send_modify(|state| {
            state.phase = Phase::Down;
            state.confirmed = false;
        });
    }

    /// Says whether notices are seen to arrive.
    pub(super) fn set_confirmed(&self, confirmed: bool) {
        self.0.send_if_modified(|state| {
            std::mem::replace(&mut state.confirmed, confirmed) != confirmed
        });
    }

    pub(super) fn is_confirmed(&self) -> bool {
        self.0.borrow().confirmed
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use musterbeat_core::port::Topic;

    use super::*;

    fn served(desk: &Desk, channels: &BTreeSet<Channel>) -> bool {
        desk.served(channels).now_or_never().is_some()
    }

    fn chats(count: usize) -> BTreeSet<Channel> {
        Channel::of_topic(Topic::Chat).take(count).collect()
    }

    #[test]
    fn watcher_waits_for_its_channels() {
        let desk = Desk::default();
        let channels = chats(2);
        desk.add(&channels);
        assert!(!served(&desk, &channels));
        assert_eq!(desk.begin(&chats(1)), None, "more is wanted");
        assert_eq!(desk.begin(&desk.wanted()), Some(Before::Nothing));
        assert!(served(&desk, &channels));
    }

    #[test]
    fn watcher_that_came_without_a_connection_is_told_when_there_is_one() {
        let desk = Desk::default();
        desk.end();
        desk.add(&chats(2));
        assert!(served(&desk, &chats(2)));
        assert_eq!(desk.begin(&chats(1)), None);
        assert_eq!(desk.begin(&chats(2)), Some(Before::Down));
    }

    #[test]
    fn channel_that_is_given_up_is_missing_when_it_is_watched_again() {
        let desk = Desk::default();
        assert_eq!(desk.begin(&chats(1)), Some(Before::Nothing));
        let channel = desk.take_idle().unwrap();
        assert_eq!(desk.take_idle(), None);
        let channels = BTreeSet::from([channel]);
        desk.add(&channels);
        assert!(!served(&desk, &channels));
        assert_eq!(desk.missing().now_or_never(), Some(channels.clone()));
        desk.extend(channels.clone());
        assert_eq!(desk.missing().now_or_never(), None);
        assert!(served(&desk, &channels));
        desk.remove(&channels);
        assert_eq!(desk.take_idle(), Some(channel));
    }

    #[test]
    fn channel_is_kept_for_the_last_of_its_watchers() {
        let desk = Desk::default();
        desk.add(&chats(1));
        desk.add(&chats(1));
        desk.begin(&chats(1));
        desk.remove(&chats(1));
        assert_eq!(desk.take_idle(), None);
        desk.remove(&chats(1));
        assert!(desk.take_idle().is_some());
    }

    #[test]
    fn end_confirms_nothing() {
        let desk = Desk::default();
        desk.begin(&chats(1));
        desk.set_confirmed(true);
        assert!(desk.is_confirmed());
        desk.end();
        assert!(!desk.is_confirmed());
    }
}
