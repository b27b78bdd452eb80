//! A network that breaks between the store and its database.

use std::time::Duration;

use musterbeat_core::port::{ChatStore, Reach, StoreError};
use musterbeat_db::{PgStore, PoolLimits, connect};
use musterbeat_testkit::{BlackHole, FaultProxy, TestDatabase, eventually};

use crate::setup::{new_chat, owner};

const PATIENCE: Duration = Duration::from_secs(20);

/// A store behind a proxy that can break.
async fn fragile() -> (PgStore, FaultProxy, TestDatabase) {
    let database = TestDatabase::create().await.unwrap();
    let proxy = FaultProxy::in_front_of(database.url()).await.unwrap();
    let limits = PoolLimits {
        connections_max: 2,
        acquire_timeout: Duration::from_millis(300),
        ..PoolLimits::default()
    };
    let pool = connect(&proxy.url(database.url()).unwrap(), &limits).await.unwrap();
    (PgStore::new(pool), proxy, database)
}

#[tokio::test]
async fn database_out_of_reach_is_unavailable_and_comes_back() {
    let (store, proxy, _database) = fragile().await;
    let chat = store.create(new_chat(1, owner(1))).await.unwrap().chat;
    proxy.refuse();
    proxy.reset();
    let away = store.get(chat, Reach::Everything).await;
    assert!(matches!(away, Err(StoreError::Unavailable { .. })), "{away:?}");

    proxy.heal();
    eventually(PATIENCE, "the chat is read again", async || {
        store.get(chat, Reach::Everything).await.is_ok_and(|chat| chat.is_some())
    })
    .await;
}

#[tokio::test]
async fn connections_that_were_cut_while_idle_are_replaced_unnoticed() {
    let (store, proxy, _database) = fragile().await;
    let chat = store.create(new_chat(1, owner(1))).await.unwrap().chat;
    for _ in 0..3 {
        proxy.cut();
        assert!(store.get(chat, Reach::Everything).await.unwrap().is_some());
    }
}

/// The caller gives up; what it asked for happened or not, and may be asked for again.
#[tokio::test]
async fn creation_whose_answer_is_lost_may_be_repeated() {
    let (store, proxy, _database) = fragile().await;
    store.ping().await.unwrap();
    proxy.black_hole(BlackHole::ToClient);
    let lost = store.create(new_chat(1, owner(1)));
    assert!(tokio::time::timeout(Duration::from_millis(200), lost).await.is_err());
    proxy.reset();
    proxy.heal();
    let mut created = None;
    eventually(PATIENCE, "the creation is answered", async || {
        created = store.create(new_chat(1, owner(1))).await.ok();
        created.is_some()
    })
    .await;
    let chat = created.unwrap().chat;
    let changes = store.changes(chat, Reach::Everything, None).await.unwrap().unwrap();
    assert_eq!(changes.messages.len(), 1);
}
