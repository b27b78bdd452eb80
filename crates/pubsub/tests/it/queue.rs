//! The queue of notifications when it is full, on a server that has a small one.

use musterbeat_core::port::{Interest, Notice, Publish, Topic, Watch};
use musterbeat_testkit::{BlackHole, FaultProxy, TestDatabase, TestServer, eventually};
use sqlx::{Connection, PgConnection};

use crate::conformance::{id, ids, within};
use crate::postgres::{DEADLINE, transport};

/// The fewest pages there can be: half a megabyte.
const SMALL: &[(&str, &str)] = &[("max_notify_queue_pages", "64")];

/// Fills the queue, behind whoever keeps it.
async fn fill(conn: &mut PgConnection, channel: &str) {
    let notify = "select pg_notify($1, repeat('x', 7999))";
    let mut sent = 0;
    while sqlx::query(notify).bind(channel).execute(&mut *conn).await.is_ok() {
        sent += 1;
        // The buffers on the way to a reader take some megabytes.
        assert!(sent < 10_000, "nobody keeps the queue");
    }
}

async fn usage(conn: &mut PgConnection) -> f64 {
    let usage = sqlx::query_scalar("select pg_notification_queue_usage()").fetch_one(conn).await;
    usage.unwrap()
}

#[tokio::test]
async fn full_queue_heals_when_whoever_keeps_it_has_gone() {
    let Some(server) = TestServer::newest(SMALL).await.unwrap() else { return };
    let database = TestDatabase::create_on(server.url()).await.unwrap();
    let mut culprit = database.connect().await.unwrap();
    let mut writer = database.connect().await.unwrap();
    let (publisher, watch) = (transport(database.url()), transport(database.url()));
    let mut watcher = within(watch.watch(Topic::Chat, Interest::All)).await.unwrap();

    // Each by itself: a session listens from the commit of its LISTEN on.
    for statement in ["listen other", "begin", "select 1"] {
        sqlx::raw_sql(statement).execute(&mut culprit).await.unwrap();
    }
    fill(&mut writer, "other").await;
    publisher.publish(Topic::Chat, id(1));
    let refused = within(publisher.flush()).await.unwrap_err();
    let cause = std::error::Error::source(&refused).unwrap().to_string();
    assert!(cause.contains("too many notifications in the NOTIFY queue"), "{cause}");

    // It stays full without whoever kept it, but for those who ask for its usage.
    culprit.close().await.unwrap();
    within(async { while publisher.flush().await.is_err() {} }).await;
    // While no heartbeat could go out, the connection that listens may have been made anew.
    let notice = within(watcher.recv()).await;
    assert!(notice == Notice::Changed(ids([1])) || matches!(notice, Notice::Resync(_)));
    let mut sizes = database.connect().await.unwrap();
    eventually(DEADLINE, "the queue is empty", async || usage(&mut sizes).await < 0.1).await;
}

/// A process that hangs, as the server sees it: it takes nothing more and does not end.
#[tokio::test]
async fn reader_that_hangs_is_dropped_and_the_queue_drains() {
    let Some(server) = TestServer::newest(SMALL).await.unwrap() else { return };
    let database = TestDatabase::create_on(server.url()).await.unwrap();
    let proxy = FaultProxy::in_front_of(database.url()).await.unwrap();
    let hung = transport(&proxy.url(database.url()).unwrap());
    eventually(DEADLINE, "it listens", async || hung.is_confirmed()).await;
    let mut sizes = database.connect().await.unwrap();
    let mut writer = database.connect().await.unwrap();

    proxy.black_hole(BlackHole::ToClient);
    fill(&mut writer, "musterbeat_heartbeat").await;
    // Its session has asked for this: the server waits 10 s for it and for nobody else.
    eventually(2 * DEADLINE, "the server drops it and the queue drains", async || {
        usage(&mut sizes).await < 0.1
    })
    .await;
}
