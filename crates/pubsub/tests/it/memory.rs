//! The transport within one process.

use std::sync::Arc;

use async_trait::async_trait;
use musterbeat_core::port::{Interest, Notice, Publish, Resync, ResyncCause, Topic, Watch};
use musterbeat_pubsub::{MARKS_MAX, MemoryTransport};

use crate::conformance::{Rig, conformance, id, ids, within};

struct Memory(MemoryTransport);

#[async_trait]
impl Rig for Memory {
    async fn start() -> Self {
        Self(MemoryTransport::default())
    }

    fn publisher(&self) -> Arc<dyn Publish> {
        Arc::new(self.0.clone())
    }

    fn watch(&self) -> Arc<dyn Watch> {
        Arc::new(self.0.clone())
    }

    fn watchers(&self, topic: Topic) -> usize {
        self.0.watchers(topic)
    }

    async fn cut(&self) {
        for topic in Topic::ALL {
            self.0.lose(topic);
        }
    }

    async fn mend(&self) {
        for topic in Topic::ALL {
            self.0.heal(topic);
        }
    }
}

conformance!(Memory);

#[tokio::test]
async fn paused_topic_delivers_when_it_resumes_and_holds_up_no_other() {
    let transport = MemoryTransport::default();
    let mut chats = transport.watch(Topic::Chat, Interest::All).await.unwrap();
    let mut runs = transport.watch(Topic::Pending, Interest::All).await.unwrap();

    transport.pause(Topic::Chat);
    transport.publish(Topic::Chat, id(1));
    transport.publish(Topic::Pending, id(2));
    assert_eq!(within(runs.recv()).await, Notice::Changed(ids([2])));

    transport.resume(Topic::Chat);
    transport.publish(Topic::Chat, id(3));
    assert_eq!(within(chats.recv()).await, Notice::Changed(ids([1, 3])));
}

#[tokio::test]
async fn pause_longer_than_the_marks_ends_in_a_resync() {
    let transport = MemoryTransport::default();
    let mut watcher = transport.watch(Topic::Chat, Interest::Ids(ids([1]))).await.unwrap();

    transport.pause(Topic::Chat);
    (0..=MARKS_MAX as u128).for_each(|number| transport.publish(Topic::Chat, id(number)));
    transport.resume(Topic::Chat);
    assert_eq!(within(watcher.recv()).await, Notice::Resync(Resync::of(ResyncCause::Overflow)));
}

#[tokio::test]
async fn loss_during_a_pause_is_told_when_it_resumes() {
    let transport = MemoryTransport::default();
    let mut watcher = transport.watch(Topic::Chat, Interest::All).await.unwrap();

    transport.pause(Topic::Chat);
    transport.lose(Topic::Chat);
    transport.publish(Topic::Chat, id(1));
    transport.heal(Topic::Chat);
    transport.publish(Topic::Chat, id(2));
    transport.resume(Topic::Chat);
    assert_eq!(within(watcher.recv()).await, Notice::Resync(Resync::of(ResyncCause::Gap)));
}
