//! The transport over PostgreSQL.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use musterbeat_core::port::{Interest, Notice, Publish, ResyncCause, Topic, Watch};
use musterbeat_pubsub::{AfterCommit, PgTransport, PgTransportOptions};
use musterbeat_testkit::{BlackHole, FaultProxy, TestDatabase, eventually};
use sqlx::Connection;
use tokio::time::timeout;

use crate::conformance::{Rig, conformance, id, ids, within};

/// Two processes on one database; the network of the one that watches can break.
struct Postgres {
    database: TestDatabase,
    proxy: FaultProxy,
    publisher: PgTransport,
    watch: PgTransport,
}

/// Asks soon for a sign of life and waits long for it: a machine that is busy is no network that
/// is cut, and what was not lost must not be told as lost.
pub(crate) fn options() -> PgTransportOptions {
    PgTransportOptions {
        silence: Duration::from_millis(500),
        probe_timeout: DEADLINE,
        min_interval: Duration::ZERO,
        ..PgTransportOptions::default()
    }
}

pub(crate) fn transport(url: &str) -> PgTransport {
    PgTransport::start(url, &options()).unwrap()
}

/// Starts one that notices a silent cut within a test, and may take a pause of the machine for it.
pub(crate) fn hasty(url: &str) -> PgTransport {
    let probe_timeout = Duration::from_millis(500);
    PgTransport::start(url, &PgTransportOptions { probe_timeout, ..options() }).unwrap()
}

#[async_trait]
impl Rig for Postgres {
    async fn start() -> Self {
        let database = TestDatabase::create().await.unwrap();
        let proxy = FaultProxy::in_front_of(database.url()).await.unwrap();
        let publisher = transport(database.url());
        let watch = transport(&proxy.url(database.url()).unwrap());
        Self { database, proxy, publisher, watch }
    }

    fn publisher(&self) -> Arc<dyn Publish> {
        Arc::new(self.publisher.clone())
    }

    fn watch(&self) -> Arc<dyn Watch> {
        Arc::new(self.watch.clone())
    }

    fn watchers(&self, topic: Topic) -> usize {
        self.watch.watchers(topic)
    }

    async fn cut(&self) {
        self.proxy.refuse();
        self.proxy.reset();
    }

    async fn mend(&self) {
        within(self.publisher.flush()).await.unwrap();
        self.proxy.heal();
    }
}

conformance!(Postgres);

pub(crate) const DEADLINE: Duration = Duration::from_mins(1);

#[tokio::test]
async fn own_watchers_are_told_without_the_database() {
    let transport = transport("postgres://nobody@127.0.0.1:1/nothing");
    // The first connection fails; then a watcher is not made to wait for one.
    let mut watcher = within(transport.watch(Topic::Chat, Interest::All)).await.unwrap();
    transport.publish(Topic::Chat, id(1));
    assert_eq!(within(watcher.recv()).await, Notice::Changed(ids([1])));
    assert!(!transport.is_confirmed());
    let error = within(transport.flush()).await.unwrap_err();
    assert_eq!(error.to_string(), "failed to publish what changed");
}

#[tokio::test]
async fn echo_of_an_own_change_wakes_nobody_again() {
    let rig = Postgres::start().await;
    let mut watcher = within(rig.publisher.watch(Topic::Chat, Interest::All)).await.unwrap();
    rig.publisher.publish(Topic::Chat, id(1));
    within(rig.publisher.flush()).await.unwrap();
    assert_eq!(within(watcher.recv()).await, Notice::Changed(ids([1])));

    // A change of another process comes after the echo of the first.
    rig.watch.publish(Topic::Chat, id(2));
    assert_eq!(within(watcher.recv()).await, Notice::Changed(ids([2])));
}

#[tokio::test]
async fn transport_confirms_that_notices_arrive_and_takes_it_back() {
    let rig = Postgres::start().await;
    eventually(DEADLINE, "a heartbeat arrives", async || rig.watch.is_confirmed()).await;
    rig.cut().await;
    eventually(DEADLINE, "the loss is noticed", async || !rig.watch.is_confirmed()).await;
    rig.proxy.heal();
    eventually(DEADLINE, "a heartbeat arrives again", async || rig.watch.is_confirmed()).await;
}

#[tokio::test]
async fn silent_cut_ends_in_a_resync_that_tells_since_when() {
    let database = TestDatabase::create().await.unwrap();
    let proxy = FaultProxy::in_front_of(database.url()).await.unwrap();
    let publisher = transport(database.url());
    let watch = hasty(&proxy.url(database.url()).unwrap());
    let mut watcher = within(watch.watch(Topic::Chat, Interest::All)).await.unwrap();
    eventually(DEADLINE, "a heartbeat arrives", async || watch.is_confirmed()).await;

    proxy.black_hole(BlackHole::Both);
    publisher.publish(Topic::Chat, id(1));
    within(publisher.flush()).await.unwrap();
    eventually(DEADLINE, "the silence is noticed", async || !watch.is_confirmed()).await;
    proxy.heal();
    proxy.cut();
    let Notice::Resync(resync) = within(watcher.recv()).await else {
        panic!("the change was lost with its connection");
    };
    assert_eq!(resync.cause, ResyncCause::Silence);
    assert!(resync.since.is_some());
}

#[tokio::test]
async fn standby_is_refused_by_name_and_tried_again() {
    let database = TestDatabase::create().await.unwrap();
    let mut conn = database.connect().await.unwrap();
    // The database says that it is one: this function hides PostgreSQL's.
    let hide = "
        create function public.pg_is_in_recovery() returns boolean
            language sql as 'select true'";
    sqlx::query(hide).execute(&mut conn).await.unwrap();
    let search = format!("alter database {} set search_path = public, pg_catalog", database.name());
    sqlx::query(sqlx::AssertSqlSafe(search)).execute(&mut conn).await.unwrap();
    let transport = transport(database.url());
    transport.publish(Topic::Chat, id(1));
    let refused = within(transport.flush()).await.unwrap_err();
    let cause = std::error::Error::source(&refused).unwrap().to_string();
    assert!(cause.contains("the database is a standby"), "{cause}");
    assert!(!transport.is_confirmed());

    let promote = "drop function public.pg_is_in_recovery()";
    sqlx::query(promote).execute(&mut conn).await.unwrap();
    within(async { while transport.flush().await.is_err() {} }).await;
    eventually(DEADLINE, "it listens", async || transport.is_confirmed()).await;
}

#[tokio::test]
async fn one_heartbeat_serves_all_processes() {
    let rig = Postgres::start().await;
    let others: Vec<_> = (0..6).map(|_| transport(rig.database.url())).collect();
    for transport in &others {
        eventually(DEADLINE, "a heartbeat arrives", async || transport.is_confirmed()).await;
    }
    let mut conn = rig.database.connect().await.unwrap();
    let mut listener = sqlx::postgres::PgListener::connect(rig.database.url()).await.unwrap();
    listener.listen("musterbeat_heartbeat").await.unwrap();
    sqlx::query("select 1").execute(&mut conn).await.unwrap();

    // Eight processes, each silent for 250 to 500 ms at most: alone they would send 16 to 32 a
    // second. After a pause of the machine all are overdue and send at once: looked at again.
    let are_shared = async {
        let mut took = Duration::ZERO;
        while took < Duration::from_secs(1) {
            let began = Instant::now();
            for _ in 0..12 {
                listener.recv().await.unwrap();
            }
            took = began.elapsed();
        }
    };
    timeout(DEADLINE, are_shared).await.expect("each process sends heartbeats of its own");
}

#[tokio::test]
async fn change_published_in_a_transaction_is_told_by_its_commit_only() {
    let rig = Postgres::start().await;
    let mut conn = rig.database.connect().await.unwrap();
    let mut watchers = vec![];
    for transport in [&rig.watch, &rig.publisher] {
        watchers.push(within(transport.watch(Topic::Chat, Interest::All)).await.unwrap());
    }

    let mut rolled_back = conn.begin().await.unwrap();
    rig.publisher.publish_in(&mut rolled_back, Topic::Chat, &[id(1)]).await.unwrap();
    rolled_back.rollback().await.unwrap();
    let mut committed = conn.begin().await.unwrap();
    rig.publisher.publish_in(&mut committed, Topic::Chat, &[id(2), id(3)]).await.unwrap();
    committed.commit().await.unwrap();

    for watcher in &mut watchers {
        let mut told = BTreeSet::new();
        while told.len() < 2 {
            match within(watcher.recv()).await {
                Notice::Changed(ids) => told.extend(ids),
                Notice::Resync(resync) => panic!("{resync:?} though nothing was lost"),
            }
        }
        assert_eq!(told, ids([2, 3]));
    }
}

#[tokio::test]
async fn guard_publishes_after_the_commit_and_dies_with_a_rollback() {
    let rig = Postgres::start().await;
    let mut watcher = within(rig.watch.watch(Topic::Chat, Interest::All)).await.unwrap();
    let mut rolled_back = AfterCommit::default();
    rolled_back.mark(Topic::Chat, id(1));
    drop(rolled_back);
    let mut committed = AfterCommit::default();
    committed.mark(Topic::Chat, id(2));
    committed.publish(&rig.publisher);
    assert_eq!(within(watcher.recv()).await, Notice::Changed(ids([2])));
}

#[tokio::test]
async fn what_waits_when_a_transport_closes_is_published_first() {
    let rig = Postgres::start().await;
    let mut watcher = within(rig.watch.watch(Topic::Chat, Interest::All)).await.unwrap();
    (0..1_000).for_each(|number| rig.publisher.publish(Topic::Chat, id(number)));
    within(rig.publisher.close(DEADLINE)).await.unwrap();
    within(rig.publisher.close(DEADLINE)).await.unwrap();
    let mut told = BTreeSet::new();
    while told.len() < 1_000 {
        match within(watcher.recv()).await {
            Notice::Changed(ids) => told.extend(ids),
            // Many at once are not named one by one.
            Notice::Resync(_) => return,
        }
    }
}

#[tokio::test]
async fn publisher_whose_answer_is_lost_tells_again_and_nobody_is_told_twice() {
    let database = TestDatabase::create().await.unwrap();
    let proxy = FaultProxy::in_front_of(database.url()).await.unwrap();
    // No heartbeat is on its way when the network breaks.
    let quiet = PgTransportOptions { silence: Duration::from_hours(1), ..options() };
    let publisher = PgTransport::start(&proxy.url(database.url()).unwrap(), &quiet).unwrap();
    eventually(DEADLINE, "a heartbeat arrives", async || publisher.is_confirmed()).await;
    let watch = transport(database.url());
    let mut watcher = within(watch.watch(Topic::Token, Interest::All)).await.unwrap();
    publisher.publish(Topic::Token, id(1));
    assert_eq!(within(watcher.recv()).await, Notice::Changed(ids([1])));
    within(publisher.flush()).await.unwrap();

    // The statement is applied, and its answer is not.
    proxy.black_hole(BlackHole::ToClient);
    publisher.publish(Topic::Token, id(2));
    assert_eq!(within(watcher.recv()).await, Notice::Changed(ids([2])));
    proxy.heal();
    proxy.reset();
    publisher.publish(Topic::Token, id(3));
    assert_eq!(within(watcher.recv()).await, Notice::Changed(ids([3])), "and not 2 again");
}

#[tokio::test]
async fn broken_network_of_a_publisher_only_delays() {
    let database = TestDatabase::create().await.unwrap();
    let proxy = FaultProxy::in_front_of(database.url()).await.unwrap();
    let publisher = transport(&proxy.url(database.url()).unwrap());
    let watch = transport(database.url());
    let mut watcher = within(watch.watch(Topic::Chat, Interest::All)).await.unwrap();
    proxy.refuse();
    proxy.reset();
    publisher.publish(Topic::Chat, id(1));
    assert!(within(publisher.flush()).await.is_err());
    proxy.heal();
    assert_eq!(within(watcher.recv()).await, Notice::Changed(ids([1])));
}
