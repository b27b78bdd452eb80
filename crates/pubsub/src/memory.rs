//! A transport within one process, whose path can be broken on purpose.

use std::iter;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use musterbeat_core::port::{
    Interest, Notice, Publish, PublishError, Resync, ResyncCause, Topic, Watch, WatchError, Watcher,
};
use uuid::Uuid;

use crate::hub::{Hub, MARKS_MAX};
use crate::metrics;
use crate::slate::Marks;

/// Carries notices between the tasks of one process; cloning it is cheap and shares it.
///
/// For tests of what relies on it, each topic can be made to [lose](Self::lose) notices
/// until it [heals](Self::heal), and to [hold them back](Self::pause) until it
/// [resumes](Self::resume). Both keep the promise of a transport: what is lost ends in a resync.
#[derive(Clone, Debug, Default)]
pub struct MemoryTransport {
    hub: Hub,
    paths: Arc<[Mutex<Path>; Topic::ALL.len()]>,
}

/// The way from publishers to watchers, in one topic.
#[derive(Debug)]
struct Path {
    lossy: bool,
    paused: bool,
    held: Marks,
}

impl Default for Path {
    fn default() -> Self {
        Self { lossy: false, paused: false, held: Marks::new(MARKS_MAX) }
    }
}

impl MemoryTransport {
    /// Loses what is published from here on, until it heals.
    pub fn lose(&self, topic: Topic) {
        self.path(topic).lossy = true;
    }

    /// Loses nothing more, and tells watchers that it did.
    ///
    /// They are told even if nothing was published meanwhile, as a real transport cannot know.
    pub fn heal(&self, topic: Topic) {
        let passes = self.path(topic).heal();
        // After the path is whole: a change between the two steps is delivered and not lost.
        if passes {
            self.hub.resync(topic, Resync::of(ResyncCause::Gap));
        }
    }

    /// Holds back what is published from here on, until it resumes.
    pub fn pause(&self, topic: Topic) {
        self.path(topic).paused = true;
    }

    /// Delivers what was held back, and holds back nothing more.
    ///
    /// More than [`MARKS_MAX`] ids held back arrive as one resync of all watchers.
    pub fn resume(&self, topic: Topic) {
        let held = self.path(topic).resume();
        match held {
            Some(Notice::Changed(ids)) => self.hub.changed(topic, ids.into_iter()),
            Some(Notice::Resync(resync)) => self.hub.resync(topic, resync),
            None => {}
        }
    }

    /// Returns how many watch `topic`.
    pub fn watchers(&self, topic: Topic) -> usize {
        self.hub.watchers(topic)
    }

    fn path(&self, topic: Topic) -> MutexGuard<'_, Path> {
        // No step of a change panics halfway, so a path is whole even if its lock is poisoned.
        self.paths[topic as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Path {
    /// Loses `id`, holds it back, or returns that it passes.
    fn admit(&mut self, id: Uuid) -> bool {
        if self.paused && !self.lossy {
            self.held.add(&[id]);
        }
        !self.paused && !self.lossy
    }

    /// Ends the losses and returns whether the resync passes; else it is held back.
    fn heal(&mut self) -> bool {
        self.lossy = false;
        if self.paused {
            self.held.resync(Resync::of(ResyncCause::Gap));
        }
        !self.paused
    }

    fn resume(&mut self) -> Option<Notice> {
        self.paused = false;
        self.held.take()
    }
}

#[async_trait]
impl Publish for MemoryTransport {
    fn publish(&self, topic: Topic, id: Uuid) {
        metrics::published(topic, 1);
        let passes = self.path(topic).admit(id);
        if passes {
            self.hub.changed(topic, iter::once(id));
        }
    }

    fn publish_all(&self, topic: Topic, ids: &[Uuid]) {
        for id in ids {
            self.publish(topic, *id);
        }
    }

    async fn flush(&self) -> Result<(), PublishError> {
        Ok(())
    }
}

#[async_trait]
impl Watch for MemoryTransport {
    async fn watch(
        &self,
        topic: Topic,
        interest: Interest,
    ) -> Result<Box<dyn Watcher>, WatchError> {
        Ok(Box::new(self.hub.watch(topic, interest)))
    }

    fn is_confirmed(&self) -> bool {
        Topic::ALL.iter().all(|topic| !self.path(*topic).lossy)
    }
}
