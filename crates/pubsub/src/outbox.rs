//! What this process has to tell and has not told yet.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use musterbeat_core::batch::{Added, Batch, Limits};
use musterbeat_core::lease::Moment;
use musterbeat_core::port::Topic;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use uuid::Uuid;

use crate::codec::Known;

/// Ids of a topic that may wait, at most; above it everything in the topic is said to have changed.
///
/// It bounds a publisher whose database is away to a few megabytes a topic.
pub const DIRTY_MAX: usize = 100_000;

/// Marks of all topics. Making one never waits for the network.
#[derive(Debug)]
pub(crate) struct Outbox {
    marks: Mutex<Marks>,
    bell: Notify,
    progress: watch::Sender<Progress>,
    start: Instant,
}

#[derive(Debug)]
struct Marks {
    topics: [TopicMarks; Topic::ALL.len()],
    heartbeat: Option<Vec<Known>>,
    /// Marks ever made: a later one has a higher number.
    made: u64,
}

#[derive(Debug)]
struct TopicMarks {
    ids: Batch<Uuid, ()>,
    everything: bool,
}

/// What is to be told of one topic.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Ids(Vec<Uuid>),
    Everything,
}

/// What a publisher takes at once.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) topics: Vec<(Topic, Told)>,
    pub(crate) heartbeat: Option<Vec<Known>>,
    /// The last mark that it holds.
    pub(crate) upto: u64,
}

/// How far publishing has come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    /// The last mark that the transport has acknowledged.
    pub(crate) acknowledged: u64,
    /// Attempts that failed, ever.
    pub(crate) failures: u64,
    /// Why the last one did.
    pub(crate) error: String,
}

impl Outbox {
    /// Holds nothing; what is taken is at least `min_interval` after what was taken before.
    pub(crate) fn new(min_interval: Duration) -> Self {
        Self::with_dirty_max(min_interval, DIRTY_MAX)
    }

    fn with_dirty_max(min_interval: Duration, dirty_max: usize) -> Self {
        let limits = Limits {
            flush_at: usize::MAX,
            interval: min_interval,
            entries_max: dirty_max,
            bytes_max: usize::MAX,
        };
        let topic =
            |_| TopicMarks { ids: Batch::new(limits, Moment::default()), everything: false };
        Self {
            marks: Mutex::new(Marks { topics: Topic::ALL.map(topic), heartbeat: None, made: 0 }),
            bell: Notify::new(),
            progress: watch::Sender::default(),
            start: Instant::now(),
        }
    }

    /// Marks `ids`, of which none is taken before the others are marked.
    pub(crate) fn mark(&self, topic: Topic, ids: &[Uuid]) {
        let mut marks = self.marks();
        let mut is_new = false;
        for id in ids {
            marks.made += 1;
            let of_topic = &mut marks.topics[topic as usize];
            let added = if of_topic.everything { Added::Merged } else { of_topic.ids.add(*id, ()) };
            of_topic.everything |= added == Added::Refused;
            is_new |= added != Added::Merged;
        }
        drop(marks);
        if is_new {
            self.bell.notify_one();
        }
    }

    /// Asks for a heartbeat that tells `known`.
    pub(crate) fn mark_heartbeat(&self, known: Vec<Known>) {
        self.marks().heartbeat = Some(known);
        self.bell.notify_one();
    }

    /// Waits until something may be taken, and takes all of it; dropping the future takes nothing.
    pub(crate) async fn take(&self) -> Taken {
        loop {
            match self.due() {
                Some(due) if due <= Instant::now() => return self.take_now(),
                Some(due) => {
                    tokio::select! {
                        () = tokio::time::sleep_until(due) => {}
                        () = self.bell.notified() => {}
                    }
                }
                None => self.bell.notified().await,
            }
        }
    }

    /// Says that everything up to the mark `upto` has been told.
    pub(crate) fn acknowledge(&self, upto: u64) {
        self.progress.send_modify(|progress| progress.acknowledged = upto);
    }

    /// Says that telling has failed; it is tried again.
    pub(crate) fn fail(&self, error: String) {
        self.progress.send_modify(|progress| {
            progress.failures += 1;
            progress.error = error;
        });
    }

    /// Returns how far telling has come.
    pub(crate) fn progress(&self) -> watch::Receiver<Progress> {
        self.progress.subscribe()
    }

    /// Returns the last mark.
    pub(crate) fn made(&self) -> u64 {
        self.marks().made
    }

    /// Returns when something may be taken, `None` while there is nothing.
    fn due(&self) -> Option<Instant> {
        let marks = self.marks();
        if marks.heartbeat.is_some() || marks.topics.iter().any(|topic| topic.everything) {
            return Some(self.start);
        }
        let deadlines = marks.topics.iter().filter_map(|topic| topic.ids.deadline());
        Some(self.start + deadlines.min()?.since_start())
    }

    fn take_now(&self) -> Taken {
        let now = Moment::new(self.start.elapsed());
        let mut marks = self.marks();
        let mut topics = Vec::new();
        for (topic, of_topic) in Topic::ALL.into_iter().zip(&mut marks.topics) {
            // Whoever takes them tells them again until it is answered: they never come back.
            let ids = of_topic.ids.drain(now);
            if std::mem::take(&mut of_topic.everything) {
                topics.push((topic, Told::Everything));
            } else if !ids.is_empty() {
                topics.push((topic, Told::Ids(ids.into_keys().collect())));
            }
        }
        Taken { topics, heartbeat: marks.heartbeat.take(), upto: marks.made }
    }

    fn marks(&self) -> MutexGuard<'_, Marks> {
        // No step of a change panics halfway, so marks are whole even if their lock is poisoned.
        self.marks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(numbers: impl IntoIterator<Item = u128>) -> Told {
        Told::Ids(numbers.into_iter().map(Uuid::from_u128).collect())
    }

    fn mark(outbox: &Outbox, topic: Topic, numbers: impl IntoIterator<Item = u128>) {
        let ids: Vec<_> = numbers.into_iter().map(Uuid::from_u128).collect();
        outbox.mark(topic, &ids);
    }

    #[tokio::test]
    async fn marks_merge_until_they_are_taken() {
        let outbox = Outbox::new(Duration::ZERO);
        mark(&outbox, Topic::Chat, [2, 1, 2]);
        mark(&outbox, Topic::Token, [7]);
        let taken = outbox.take().await;
        assert_eq!(taken.topics, [(Topic::Chat, ids([1, 2])), (Topic::Token, ids([7]))]);
        assert_eq!((taken.upto, outbox.made()), (4, 4));
    }

    #[tokio::test]
    async fn above_the_bound_everything_has_changed_in_that_topic_only() {
        let outbox = Outbox::with_dirty_max(Duration::ZERO, 3);
        mark(&outbox, Topic::Chat, 0..10);
        mark(&outbox, Topic::Token, [7]);
        let taken = outbox.take().await;
        assert_eq!(taken.topics, [(Topic::Chat, Told::Everything), (Topic::Token, ids([7]))]);
        mark(&outbox, Topic::Chat, [1]);
        assert_eq!(outbox.take().await.topics, [(Topic::Chat, ids([1]))]);
    }

    #[tokio::test(start_paused = true)]
    async fn idle_outbox_is_taken_at_once_and_a_busy_one_at_intervals() {
        let interval = Duration::from_millis(5);
        let outbox = Outbox::new(interval);
        tokio::time::advance(interval).await;
        let start = Instant::now();
        for turn in 0..3_u32 {
            mark(&outbox, Topic::Chat, [1]);
            outbox.take().await;
            assert_eq!(start.elapsed().as_millis(), (interval * turn).as_millis(), "turn {turn}");
        }
    }

    #[tokio::test]
    async fn heartbeat_waits_for_nothing() {
        let outbox = Outbox::new(Duration::from_hours(1));
        outbox.mark_heartbeat(vec![]);
        assert_eq!(outbox.take().await.heartbeat, Some(vec![]));
    }
}
