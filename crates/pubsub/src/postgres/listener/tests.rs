//! A listener that is dropped while it waits, at each place where it can wait.

use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use musterbeat_core::port::{Interest, Notice, Publish, Watch, Watcher};
use musterbeat_testkit::TestDatabase;
use tokio::time::timeout;
use uuid::Uuid;

use super::*;
use crate::postgres::{PgTransport, PgTransportOptions};

/// Far above what a loaded machine needs.
const DEADLINE: Duration = Duration::from_secs(30);

/// Polls a future a number of times, and then leaves it where it waits.
struct Polled<F> {
    future: F,
    polls: u32,
}

impl<F: Future + Unpin> Future for Polled<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.polls == 0 || Pin::new(&mut self.future).poll(context).is_ready() {
            return Poll::Ready(());
        }
        self.polls -= 1;
        Poll::Pending
    }
}

/// Far more than the places where a listener waits until it only waits for notices.
const LIVES: u32 = 80;

/// Each life ends one poll later than the one before: while connecting, making ready, listening,
/// waiting, and in the commands that come in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listener_dropped_at_any_wait_deceives_nobody() {
    let database = TestDatabase::create().await.unwrap();
    let times = PulseTimes { silence: Duration::from_millis(20), answer: Duration::from_secs(5) };
    let options = PgTransportOptions { min_interval: Duration::ZERO, ..Default::default() };
    let publisher = PgTransport::start(database.url(), &options).unwrap();
    let watch = PgTransport::start(database.url(), &options).unwrap();
    // Its own listener is replaced by one that is dropped again and again.
    watch.close(DEADLINE).await.unwrap();
    let listener = Listener {
        session: Session::new(database.url()).unwrap(),
        hub: watch.0.hub.clone(),
        desk: Arc::clone(&watch.0.desk),
        outbox: Arc::clone(&publisher.0.outbox),
        epoch: 1,
        times,
        channels: Channel::by_name(),
    };

    let mut steady = watch.watch(Topic::Token, Interest::All).await.unwrap();
    for life in 1..=LIVES {
        let id = Uuid::from_u128(u128::from(life));
        let alone = Interest::One(id);
        let mut polled = pin!(Polled { future: Box::pin(listener.run()), polls: life });
        let change_while_it_lives = async {
            // A channel that is wanted in the middle, and changes on it and on an old one.
            let passing = watch.watch(Topic::Chat, alone.clone());
            let passing = timeout(DEADLINE, passing).await;
            publisher.publish(Topic::Token, id);
            publisher.publish(Topic::Chat, id);
            publisher.flush().await.unwrap();
            passing
        };
        let mut changing = pin!(change_while_it_lives);
        let passing = tokio::select! {
            () = &mut polled => None,
            passing = &mut changing => Some(passing),
        };
        // It has ended, or it ends now wherever it is.
        polled.set(Polled { future: Box::pin(listener.run()), polls: 0 });
        let passing = match passing {
            Some(passing) => passing,
            None => changing.await,
        };
        let mut passing = passing.expect("a watcher waits for nobody").unwrap();

        let mut whole = pin!(listener.run());
        for watcher in [&mut steady, &mut passing] {
            tokio::select! {
                () = &mut whole => unreachable!("it listens for ever"),
                told = timeout(DEADLINE, learn(&mut **watcher, id)) => {
                    assert!(told.is_ok(), "the change of life {life} was lost");
                }
            }
        }
    }
}

/// Waits for a notice of `id`, or one that covers it.
async fn learn(watcher: &mut dyn Watcher, id: Uuid) {
    loop {
        match watcher.recv().await {
            Notice::Changed(ids) if ids.contains(&id) => return,
            Notice::Changed(_) => {}
            Notice::Resync(_) => return,
        }
    }
}
