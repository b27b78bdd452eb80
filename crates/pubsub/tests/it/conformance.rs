//! What every transport promises, whatever carries its notices.
//!
//! A transport joins with a [`Rig`] and one line, `conformance!(ItsRig);`.
//! States are awaited with a deadline. A notice that is lost shows as a deadline that passes,
//! since each change that matters is published once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use musterbeat_core::port::{
    Interest, Notice, Publish, Resync, ResyncCause, Topic, Watch, Watcher,
};
use musterbeat_pubsub::MARKS_MAX;
use tokio::task::{JoinSet, yield_now};
use tokio::time::timeout;
use uuid::Uuid;

mod storm;

pub(crate) use storm::no_change_is_missed_in_a_storm;

/// Far above what a loaded machine needs, so that only a lost notice reaches it.
const DEADLINE: Duration = Duration::from_mins(1);

/// A transport under test: where to publish, where to watch, and a path that can be broken.
///
/// The two ends may be the same object or stand for two processes.
#[async_trait]
pub(crate) trait Rig: Send + Sync + Sized {
    async fn start() -> Self;
    fn publisher(&self) -> Arc<dyn Publish>;
    fn watch(&self) -> Arc<dyn Watch>;
    /// Returns how many watch at the watching end.
    fn watchers(&self, topic: Topic) -> usize;
    /// Loses what is published from here on.
    async fn cut(&self);
    /// Makes the path whole.
    async fn mend(&self);
}

macro_rules! conformance {
    ($rig:ident) => {
        $crate::conformance::conformance! {
            $rig:
            change_after_watch_wakes
            unwatched_ids_do_not_wake
            topics_are_apart
            marks_coalesce_into_one_set
            slow_watcher_loses_nothing_and_blocks_nobody
            dropped_recv_loses_nothing
            dropped_watcher_costs_nothing
            overflow_becomes_a_resync
            gap_becomes_a_resync
            no_change_is_missed_in_a_storm
        }
    };
    ($rig:ident: $($case:ident)+) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
        async fn $case() {
            $crate::conformance::$case(<$rig as $crate::conformance::Rig>::start().await).await;
        }
    )+};
}
pub(crate) use conformance;

pub(crate) async fn change_after_watch_wakes(rig: impl Rig) {
    for interest in [Interest::All, Interest::One(id(1)), some([1, 2])] {
        let mut watcher = watch(&rig, interest).await;
        publish(&rig, [1]).await;
        assert_eq!(within(watcher.recv()).await, Notice::Changed(ids([1])));
        publish(&rig, [1]).await;
        assert_eq!(within(watcher.recv()).await, Notice::Changed(ids([1])), "a second time");
    }
}

pub(crate) async fn unwatched_ids_do_not_wake(rig: impl Rig) {
    let mut watcher = watch(&rig, some([2])).await;
    // Each flush hands over one change, and a publisher's changes keep their order.
    publish(&rig, [1]).await;
    publish(&rig, [3]).await;
    publish(&rig, [2]).await;
    assert_eq!(within(watcher.recv()).await, Notice::Changed(ids([2])));
}

pub(crate) async fn topics_are_apart(rig: impl Rig) {
    let mut runs = within(rig.watch().watch(Topic::Pending, Interest::All)).await.unwrap();
    publish(&rig, [1]).await;
    rig.publisher().publish(Topic::Pending, id(2));
    assert_eq!(within(runs.recv()).await, Notice::Changed(ids([2])));
}

pub(crate) async fn marks_coalesce_into_one_set(rig: impl Rig) {
    let mut watcher = watch(&rig, Interest::All).await;
    let mut witness = watch(&rig, some([9])).await;
    for number in [1, 2, 1, 3, 2, 1] {
        publish(&rig, [number]).await;
    }
    publish(&rig, [9]).await;
    within(witness.recv()).await;
    // One more, so that the last mark of the first six is certainly made.
    publish(&rig, [9]).await;
    within(witness.recv()).await;
    assert_eq!(within(watcher.recv()).await, Notice::Changed(ids([1, 2, 3, 9])));
}

pub(crate) async fn slow_watcher_loses_nothing_and_blocks_nobody(rig: impl Rig) {
    const CHANGES: u128 = 1_000;
    let mut slow = watch(&rig, Interest::All).await;
    let mut slow_of_some = watch(&rig, some([3, 4])).await;
    let mut quick = watch(&rig, Interest::All).await;
    for number in 0..CHANGES {
        publish(&rig, [number]).await;
        // Each one arrives while the slow ones have taken nothing.
        assert_eq!(within(quick.recv()).await, Notice::Changed(ids([number])));
    }
    assert_eq!(within(gather(&mut *slow, CHANGES)).await, ids(0..CHANGES));
    assert_eq!(within(slow_of_some.recv()).await, Notice::Changed(ids([3, 4])));
}

pub(crate) async fn dropped_recv_loses_nothing(rig: impl Rig) {
    const CHANGES: u128 = 2_000;
    let mut watcher = watch(&rig, Interest::All).await;
    let publisher = rig.publisher();
    let publishing = tokio::spawn(async move {
        for number in 0..CHANGES {
            publisher.publish(Topic::Chat, id(number));
            yield_now().await;
        }
    });

    let mut gathered = BTreeSet::new();
    let race = async {
        while gathered.len() < CHANGES as usize {
            tokio::select! {
                notice = watcher.recv() => gathered.extend(named(notice)),
                // Drops the future, sometimes just as it is woken.
                () = yield_now() => {}
            }
        }
    };
    within(race).await;
    assert_eq!(gathered, ids(0..CHANGES));
    publishing.await.unwrap();
}

pub(crate) async fn dropped_watcher_costs_nothing(rig: impl Rig) {
    let mut stays = watch(&rig, some([1])).await;
    let mut watching = JoinSet::new();
    for number in 0..100 {
        let watch = rig.watch();
        watching.spawn(async move {
            let interest = if number % 2 == 0 { Interest::All } else { some([1, number]) };
            watch.watch(Topic::Chat, interest).await.unwrap()
        });
    }
    let watchers = within(watching.join_all()).await;
    assert_eq!(rig.watchers(Topic::Chat), 101);
    drop(watchers);
    assert_eq!(rig.watchers(Topic::Chat), 1);

    publish(&rig, [1]).await;
    assert_eq!(within(stays.recv()).await, Notice::Changed(ids([1])));
}

pub(crate) async fn overflow_becomes_a_resync(rig: impl Rig) {
    let mut watcher = watch(&rig, Interest::All).await;
    let mut witness = watch(&rig, some([0])).await;
    publish(&rig, 1..=MARKS_MAX as u128 + 1).await;
    publish(&rig, [0]).await;
    within(witness.recv()).await;
    let notice = within(watcher.recv()).await;
    let Notice::Resync(Resync { cause, .. }) = notice else { panic!("{notice:?} names them all") };
    assert!(matches!(cause, ResyncCause::Overflow | ResyncCause::Unnamed), "{cause:?}");

    // Names are given again after it.
    publish(&rig, [1]).await;
    within(async { while !named(watcher.recv().await).contains(&id(1)) {} }).await;
}

pub(crate) async fn gap_becomes_a_resync(rig: impl Rig) {
    let mut all = watch(&rig, Interest::All).await;
    let mut one = watch(&rig, some([1])).await;
    rig.cut().await;
    rig.publisher().publish(Topic::Chat, id(1));
    rig.mend().await;
    for watcher in [&mut all, &mut one] {
        within(async { while !matches!(watcher.recv().await, Notice::Resync(_)) {} }).await;
    }

    publish(&rig, [1]).await;
    for watcher in [&mut all, &mut one] {
        within(async { while !named(watcher.recv().await).contains(&id(1)) {} }).await;
    }
}

/// Panics when `future` is not done by the deadline.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.expect("a notice is missing")
}

pub(crate) fn id(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

pub(crate) fn ids(numbers: impl IntoIterator<Item = u128>) -> BTreeSet<Uuid> {
    numbers.into_iter().map(id).collect()
}

fn some(numbers: impl IntoIterator<Item = u128>) -> Interest {
    Interest::Ids(ids(numbers))
}

async fn watch(rig: &impl Rig, interest: Interest) -> Box<dyn Watcher> {
    within(rig.watch().watch(Topic::Chat, interest)).await.unwrap()
}

async fn publish(rig: &impl Rig, numbers: impl IntoIterator<Item = u128>) {
    let publisher = rig.publisher();
    for number in numbers {
        publisher.publish(Topic::Chat, id(number));
    }
    within(publisher.flush()).await.unwrap();
}

async fn gather(watcher: &mut dyn Watcher, count: u128) -> BTreeSet<Uuid> {
    let mut gathered = BTreeSet::new();
    while gathered.len() < count as usize {
        gathered.extend(named(watcher.recv().await));
    }
    gathered
}

fn named(notice: Notice) -> BTreeSet<Uuid> {
    match notice {
        Notice::Changed(ids) => ids,
        Notice::Resync(resync) => panic!("{resync:?} though nothing was lost"),
    }
}
