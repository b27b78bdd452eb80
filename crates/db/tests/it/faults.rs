//! A network that breaks between the store and its database.

use std::cell::Cell;
use std::time::Duration;

use musterbeat_core::port::{ApplyError, By, ChatReader, ChatStore, Reach, StoreError};
use musterbeat_db::{PgStore, PoolLimits, connect};
use musterbeat_testkit::{BlackHole, FaultProxy, TestDatabase, eventually};

use crate::setup::{Fixture, PATIENCE, new_chat, owner, send};

/// A store behind a proxy that can break.
async fn fragile() -> (PgStore, FaultProxy, TestDatabase) {
    within(PATIENCE).await
}

/// The same, where a call waits so long for a connection.
async fn within(acquire_timeout: Duration) -> (PgStore, FaultProxy, TestDatabase) {
    let database = TestDatabase::create().await.unwrap();
    let proxy = FaultProxy::in_front_of(database.url()).await.unwrap();
    let limits = PoolLimits { connections_max: 2, acquire_timeout, ..PoolLimits::default() };
    let pool = connect(&proxy.url(database.url()).unwrap(), &limits).await.unwrap();
    (PgStore::new(pool), proxy, database)
}

#[tokio::test]
async fn database_out_of_reach_is_unavailable_and_comes_back() {
    let (store, proxy, database) = within(Duration::from_secs(2)).await;
    let direct = Fixture::on(database).await;
    let chat = direct.chat(1, owner(1)).await;
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
    let chat = store.create(new_chat(1, owner(1)), Reach::Of(owner(1))).await.unwrap().chat;
    for _ in 0..3 {
        proxy.cut();
        assert!(store.get(chat, Reach::Everything).await.unwrap().is_some());
    }
}

/// The database is silent in the middle of a call: the call ends, and its place is free again.
#[tokio::test]
async fn silence_ends_the_call_and_costs_no_place_in_the_pool() {
    let (store, proxy, database) = fragile().await;
    let chat = store.create(new_chat(1, owner(1)), Reach::Of(owner(1))).await.unwrap().chat;
    let store = store.with_answer_time(Duration::from_millis(200));
    let direct = Fixture::on(database).await;
    for _ in 0..3 {
        // Holds the call up on the server until nothing comes back any more.
        let held = direct.lock(chat).await;
        let anybody = By::User(Reach::Everything);
        let is_silent = Cell::new(false);
        // On a busy machine a call may end before it waits.
        let call = async {
            loop {
                let ended = store.apply(chat, anybody, send("is anybody there?")).await;
                if is_silent.get() {
                    return ended;
                }
            }
        };
        let (silent, ()) = tokio::join!(call, async {
            direct.somebody_waits_for_a_lock().await;
            proxy.black_hole(BlackHole::ToClient);
            is_silent.set(true);
        });
        let unavailable = matches!(silent, Err(ApplyError::Store(StoreError::Unavailable { .. })));
        assert!(unavailable, "{silent:?}");
        held.rollback().await.unwrap();
        proxy.reset();
        proxy.heal();
        eventually(PATIENCE, "two calls at once are answered", async || {
            let get = || store.get(chat, Reach::Everything);
            let (one, other) = tokio::join!(get(), get());
            one.is_ok() && other.is_ok()
        })
        .await;
    }
}

/// The caller gives up on a creation that is committed, and asks again.
#[tokio::test]
async fn creation_whose_answer_is_lost_may_be_repeated() {
    let (store, proxy, database) = fragile().await;
    let direct = Fixture::on(database).await;
    direct.hold_commits_of_chats().await;
    let mut gate = direct.pool.begin().await.unwrap();
    sqlx::query("select pg_advisory_xact_lock(1)").execute(&mut *gate).await.unwrap();

    let hasty = store.clone();
    let lost =
        tokio::spawn(async move { hasty.create(new_chat(1, owner(1)), Reach::Of(owner(1))).await });
    direct.somebody_waits_for_a_lock().await;
    proxy.black_hole(BlackHole::ToClient);
    gate.rollback().await.unwrap();
    let chat = new_chat(1, owner(1)).id;
    eventually(PATIENCE, "the creation is committed", async || {
        direct.store.get(chat, Reach::Everything).await.unwrap().is_some()
    })
    .await;
    assert!(!lost.is_finished(), "its caller was not told");
    proxy.reset();
    proxy.heal();
    assert!(lost.await.unwrap().is_err());

    let mut created = None;
    eventually(PATIENCE, "the creation is answered", async || {
        created = store.create(new_chat(1, owner(1)), Reach::Of(owner(1))).await.ok();
        created.is_some()
    })
    .await;
    assert_eq!(created.unwrap().chat, chat);
    let changes = store.changes(chat, Reach::Everything, None).await.unwrap().unwrap();
    assert_eq!(changes.messages.len(), 1);
}
