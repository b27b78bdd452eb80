//! The hub against a naive model: a list of watchers that looks at every id.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use musterbeat_core::port::ResyncCause;
use proptest::prelude::*;
use tokio::task::yield_now;
use tokio::time::timeout;

use super::*;

/// Small, so that overflow and shared ids are common.
const MARKS_MAX: usize = 3;
const IDS: u128 = 6;
/// Far above what a loaded machine needs, so that only a lost notice reaches it.
const DEADLINE: Duration = Duration::from_secs(30);

#[derive(Clone, Debug)]
enum Act {
    Watch(Topic, Interest),
    /// Of the watcher at this place, modulo their number.
    End(usize),
    Recv(usize),
    Changed(Topic, Vec<Uuid>),
    Resync(Topic, ResyncCause),
}

/// What a watcher must have been told.
struct Naive {
    topic: Topic,
    interest: Interest,
    pending: Option<Notice>,
}

proptest! {
    #[test]
    fn watchers_get_what_a_naive_model_gives(acts in prop::collection::vec(act(), 1..60)) {
        let hub = Hub::with_marks_max(MARKS_MAX);
        let mut watchers: Vec<(HubWatcher, Naive)> = Vec::new();
        for act in acts {
            carry_out(&hub, act, &mut watchers)?;
            for topic in Topic::ALL {
                let expected = watchers.iter().filter(|(_, naive)| naive.topic == topic).count();
                prop_assert_eq!(hub.watchers(topic), expected);
            }
        }
        for (watcher, naive) in &mut watchers {
            prop_assert_eq!(recv_now(watcher), naive.pending.take());
            prop_assert_eq!(recv_now(watcher), None);
        }
    }
}

#[test]
fn burst_larger_than_the_crowd_wakes_the_same() {
    // Both sides of "walk the smaller side" with the same watched id.
    let hub = Hub::default();
    let mut watcher = hub.watch(Topic::Chat, Interest::Ids(BTreeSet::from([id(5)])));
    for burst in [5..6, 0..1_000, 5..1_000] {
        hub.changed(Topic::Chat, burst.rev().map(id));
        assert_eq!(recv_now(&mut watcher), Some(Notice::Changed(BTreeSet::from([id(5)]))));
    }
}

/// Makes each change just as the watcher looks in vain and goes to wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn change_between_look_and_wait_wakes() {
    const CHANGES: u64 = 50_000;
    let hub = Hub::default();
    let mut watcher = hub.watch(Topic::Chat, Interest::All);
    let received = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&received);
    let changing = tokio::spawn(async move {
        for change in 0..CHANGES {
            while seen.load(Ordering::SeqCst) < change {
                yield_now().await;
            }
            // Sweeps over the moments that the watcher takes from its answer to its wait.
            (0..change % 64).for_each(|_| std::hint::spin_loop());
            hub.changed(Topic::Chat, std::iter::once(id(1)));
        }
    });
    for _ in 0..CHANGES {
        timeout(DEADLINE, watcher.recv()).await.expect("a notice is missing");
        received.fetch_add(1, Ordering::SeqCst);
    }
    changing.await.unwrap();
}

#[test]
fn waker_may_end_another_watch() {
    struct EndsWatch(std::sync::Mutex<Option<HubWatcher>>);
    impl std::task::Wake for EndsWatch {
        fn wake(self: Arc<Self>) {
            self.0.lock().unwrap().take();
        }
    }

    let hub = Hub::default();
    let mut watcher = hub.watch(Topic::Chat, Interest::All);
    let other = hub.watch(Topic::Chat, Interest::All);
    let waker = Waker::from(Arc::new(EndsWatch(std::sync::Mutex::new(Some(other)))));
    let mut recv = pin!(watcher.recv());
    assert!(recv.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());

    hub.changed(Topic::Chat, std::iter::once(id(1)));
    assert_eq!(hub.watchers(Topic::Chat), 1);
}

fn carry_out(
    hub: &Hub,
    act: Act,
    watchers: &mut Vec<(HubWatcher, Naive)>,
) -> Result<(), TestCaseError> {
    let count = watchers.len().max(1);
    match act {
        Act::Watch(topic, interest) => {
            let naive = Naive { topic, interest: interest.clone(), pending: None };
            watchers.push((hub.watch(topic, interest), naive));
        }
        Act::End(at) if at % count < watchers.len() => {
            watchers.swap_remove(at % count);
        }
        Act::Recv(at) if at % count < watchers.len() => {
            let (watcher, naive) = &mut watchers[at % count];
            prop_assert_eq!(recv_now(watcher), naive.pending.take());
        }
        Act::End(_) | Act::Recv(_) => {}
        Act::Changed(topic, ids) => {
            hub.changed(topic, ids.iter().copied());
            for (_, naive) in watchers {
                naive.changed(topic, &ids);
            }
        }
        Act::Resync(topic, cause) => {
            hub.resync(topic, Resync::of(cause));
            for (_, naive) in watchers {
                naive.resync(topic, cause);
            }
        }
    }
    Ok(())
}

impl Naive {
    fn changed(&mut self, topic: Topic, ids: &[Uuid]) {
        for id in ids.iter().filter(|id| self.topic == topic && covers(&self.interest, id)) {
            match self.pending.get_or_insert(Notice::Changed(BTreeSet::new())) {
                Notice::Changed(marked) => {
                    marked.insert(*id);
                    if marked.len() > MARKS_MAX && self.interest == Interest::All {
                        self.pending = Some(Notice::Resync(Resync::of(ResyncCause::Overflow)));
                    }
                }
                Notice::Resync(_) => {}
            }
        }
    }

    fn resync(&mut self, topic: Topic, cause: ResyncCause) {
        // Who watches nothing misses nothing.
        let watches = self.topic == topic && self.interest != Interest::Ids(BTreeSet::new());
        if watches && !matches!(self.pending, Some(Notice::Resync(_))) {
            self.pending = Some(Notice::Resync(Resync::of(cause)));
        }
    }
}

fn covers(interest: &Interest, id: &Uuid) -> bool {
    match interest {
        Interest::All => true,
        Interest::One(one) => one == id,
        Interest::Ids(ids) => ids.contains(id),
    }
}

/// Polls once, then drops the future.
fn recv_now(watcher: &mut HubWatcher) -> Option<Notice> {
    match pin!(watcher.recv()).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(notice) => Some(notice),
        Poll::Pending => None,
    }
}

fn act() -> impl Strategy<Value = Act> {
    let topic = || prop::sample::select(Topic::ALL.to_vec());
    let ids = || prop::collection::vec((0..IDS).prop_map(id), 0..8);
    let interest = prop_oneof![
        Just(Interest::All),
        (0..IDS).prop_map(|number| Interest::One(id(number))),
        ids().prop_map(|ids| Interest::Ids(ids.into_iter().collect()))
    ];
    let cause = prop::sample::select(vec![ResyncCause::Gap, ResyncCause::Overflow]);
    prop_oneof![
        3 => (topic(), interest).prop_map(|(topic, interest)| Act::Watch(topic, interest)),
        1 => any::<usize>().prop_map(Act::End),
        3 => any::<usize>().prop_map(Act::Recv),
        6 => (topic(), ids()).prop_map(|(topic, ids)| Act::Changed(topic, ids)),
        1 => (topic(), cause).prop_map(|(topic, cause)| Act::Resync(topic, cause)),
    ]
}

fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}
