//! Publishers against watchers who come and go.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use musterbeat_core::port::{Interest, Publish, Topic, Watch};
use tokio::sync::watch;
use tokio::task::{JoinSet, yield_now};

use super::{Rig, id, some, within};

const IDS: u128 = 16;
const CHANGES: u64 = 300;

/// Each id has a counter, standing for its row: the publisher counts up and publishes,
/// the watcher watches and then reads. The publisher makes no second change before the watcher has
/// seen the first, so a single change that is missed holds up both for ever.
pub(crate) async fn no_change_is_missed_in_a_storm(rig: impl Rig) {
    let mut pairs = JoinSet::new();
    for number in 0..IDS {
        let counter = Arc::new(AtomicU64::new(0));
        let (seen_by_watcher, seen) = watch::channel(0);
        pairs.spawn(change(rig.publisher(), number, Arc::clone(&counter), seen));
        pairs.spawn(follow(rig.watch(), number, counter, seen_by_watcher));
    }
    let mut crowd = JoinSet::new();
    for number in 0..4 {
        crowd.spawn(disturb(rig.publisher(), rig.watch(), number));
    }
    within(pairs.join_all()).await;
    crowd.shutdown().await;
    assert_eq!(rig.watchers(Topic::Chat), 0);
}

async fn change(
    publisher: Arc<dyn Publish>,
    number: u128,
    counter: Arc<AtomicU64>,
    mut seen: watch::Receiver<u64>,
) {
    for change in 1..=CHANGES {
        counter.store(change, Ordering::SeqCst);
        publisher.publish(Topic::Chat, id(number));
        let in_time = within(seen.wait_for(|seen| change <= *seen)).await;
        in_time.expect("the watcher stays until the last change");
    }
}

async fn follow(
    transport: Arc<dyn Watch>,
    number: u128,
    counter: Arc<AtomicU64>,
    seen: watch::Sender<u64>,
) {
    for watch in 0.. {
        // By itself, with a neighbour, or with everyone.
        let interest = match watch % 3 {
            0 => Interest::One(id(number)),
            1 => some([number, (number + 1) % IDS]),
            _ => Interest::All,
        };
        let mut watcher = transport.watch(Topic::Chat, interest).await.unwrap();
        for _ in 0..=watch % 4 {
            let change = counter.load(Ordering::SeqCst);
            seen.send_replace(change);
            if change == CHANGES {
                return;
            }
            within(watcher.recv()).await;
        }
    }
}

/// Watches, unwatches and publishes beside those who count, until aborted.
async fn disturb(publisher: Arc<dyn Publish>, transport: Arc<dyn Watch>, number: u128) {
    loop {
        let everyone = transport.watch(Topic::Chat, some(0..IDS)).await.unwrap();
        publisher.publish(Topic::Chat, id(IDS + number));
        yield_now().await;
        drop(everyone);
    }
}
