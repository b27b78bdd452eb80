//! A pooler in transaction mode, through which `LISTEN` seems to succeed.

use musterbeat_core::port::{Interest, Notice, Publish, Topic, Watch};
use musterbeat_testkit::{PgBouncer, TestDatabase, eventually};

use crate::conformance::{id, within};
use crate::postgres::{DEADLINE, hasty, transport};

/// Nobody is deceived: it stays unconfirmed, so who polls goes on to, and who does not is told to
/// read again and again.
#[tokio::test]
async fn transport_behind_a_pooler_is_never_confirmed_and_its_watchers_read_again() {
    if !PgBouncer::is_here().await.unwrap() {
        return;
    }
    let database = TestDatabase::create().await.unwrap();
    let pooler = PgBouncer::in_front_of(database.url()).await.unwrap();
    let behind = hasty(pooler.url());
    let direct = transport(database.url());
    let mut watcher = within(behind.watch(Topic::Chat, Interest::All)).await.unwrap();

    for change in 0..3 {
        direct.publish(Topic::Chat, id(change));
        within(direct.flush()).await.unwrap();
        let notice = within(watcher.recv()).await;
        assert!(matches!(notice, Notice::Resync(_)), "{notice:?} came through the pooler");
        assert!(!behind.is_confirmed());
    }
    eventually(DEADLINE, "a heartbeat arrives directly", async || direct.is_confirmed()).await;
}

/// What is published through it arrives elsewhere all the same.
#[tokio::test]
async fn publisher_behind_a_pooler_reaches_those_who_listen_directly() {
    if !PgBouncer::is_here().await.unwrap() {
        return;
    }
    let database = TestDatabase::create().await.unwrap();
    let pooler = PgBouncer::in_front_of(database.url()).await.unwrap();
    let behind = transport(pooler.url());
    let direct = transport(database.url());
    let mut watcher = within(direct.watch(Topic::Token, Interest::All)).await.unwrap();
    for change in 0..5 {
        behind.publish(Topic::Token, id(change));
        let notice = within(watcher.recv()).await;
        let Notice::Changed(ids) = notice else { panic!("{notice:?} names nothing") };
        assert!(ids.contains(&id(change)), "{ids:?}");
        tokio::task::yield_now().await;
    }
    within(behind.close(DEADLINE)).await.unwrap();
}
