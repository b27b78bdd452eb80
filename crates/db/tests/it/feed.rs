//! What an owner's feed finds, whatever the order in which transactions end.

use std::time::Duration;

use musterbeat_core::chat::{ChatPatch, Event, Title};
use musterbeat_core::id::{ChatId, MessageId};
use musterbeat_core::port::{By, ChatReader, ChatStore, FeedMark, LeaseStore, Reach, RunStore};
use musterbeat_core::run::RunStatus;
use musterbeat_testkit::eventually;

use crate::setup::{Fixture, PATIENCE, new_chat, owner, send};

const ANYBODY: By = By::User(Reach::Everything);

/// Looks once; returns the chats by number, and where the next look goes on.
async fn look(fixture: &Fixture, mark: FeedMark, seen: &[ChatId]) -> (Vec<u128>, FeedMark) {
    let page = fixture.store.feed(owner(1), Some(mark), seen).await.unwrap();
    (page.chats.iter().map(|chat| chat.id.uuid().as_u128()).collect(), page.mark)
}

async fn start(fixture: &Fixture) -> FeedMark {
    fixture.store.feed(owner(1), None, &[]).await.unwrap().mark
}

/// Looks until only `expected` is found, and returns where the next look goes on.
///
/// What changed is found again while any transaction of the cluster is under way that began before.
async fn settled(fixture: &Fixture, expected: &[u128]) -> FeedMark {
    let mut mark = start(fixture).await;
    eventually(PATIENCE, "former changes are found no more", async || {
        let (found, next) = look(fixture, mark, &[]).await;
        mark = next;
        found == expected
    })
    .await;
    mark
}

#[tokio::test]
async fn feed_finds_what_changed_of_its_owner_alone() {
    let fixture = Fixture::new().await;
    let (idle, run) = fixture.running_chat(1).await;
    fixture.finish(idle, &run, "done").await;
    let mark = settled(&fixture, &[]).await;
    fixture.chat(2, owner(1)).await;
    fixture.chat(3, owner(2)).await;
    let patch = ChatPatch { title: Some(Title::new("new").unwrap()), ..ChatPatch::default() };
    fixture.store.update(idle, Reach::Of(owner(1)), patch).await.unwrap().unwrap();
    assert_eq!(look(&fixture, mark, &[]).await.0, [1, 2], "the last updated first");
    settled(&fixture, &[2]).await;
}

#[tokio::test]
async fn chat_that_came_to_rest_is_found_by_who_saw_it_busy() {
    let fixture = Fixture::new().await;
    let (chat, run) = fixture.running_chat(1).await;
    // Its worker dies for the last time: the statement knows no chats and marks nothing.
    sqlx::query("update worker_leases set dead = true").execute(&fixture.pool).await.unwrap();
    fixture.store.requeue(1).await.unwrap();
    let read = fixture.store.get(chat, Reach::Everything).await.unwrap().unwrap();
    assert_eq!(read.status, RunStatus::Error, "{run:?}");
    let mark = settled(&fixture, &[]).await;
    assert_eq!(look(&fixture, mark, &[chat]).await.0, [1]);
}

/// The transaction began before the mark was taken and ends after it.
#[tokio::test]
async fn change_that_commits_late_is_not_missed() {
    let fixture = Fixture::new().await;
    fixture.hold_commits_of_chats().await;
    let mut gate = fixture.pool.begin().await.unwrap();
    sqlx::query("select pg_advisory_xact_lock(1)").execute(&mut *gate).await.unwrap();
    let store = fixture.store.clone();
    let late =
        tokio::spawn(async move { store.create(new_chat(1, owner(1)), Reach::Everything).await });
    fixture.somebody_waits_for_a_lock().await;
    let mark = start(&fixture).await;
    gate.rollback().await.unwrap();
    late.await.unwrap().unwrap();
    // It has come to rest meanwhile: only the mark leads to it.
    let claimed = fixture.claim(fixture.worker(1).await, 1).await.remove(0);
    fixture.finish(ChatId::new(claimed.id.uuid()), &claimed, "done").await;
    assert_eq!(look(&fixture, mark, &[]).await.0, [1]);
}

#[tokio::test]
async fn mark_of_the_future_finds_nothing_and_hides_nothing() {
    let fixture = Fixture::new().await;
    let (chat, run) = fixture.running_chat(1).await;
    fixture.finish(chat, &run, "done").await;
    sqlx::query("update chats set changed_in = 1 << 60").execute(&fixture.pool).await.unwrap();
    // As after a restored dump.
    let mark = settled(&fixture, &[]).await;
    fixture.store.apply(chat, ANYBODY, send("again")).await.unwrap();
    assert_eq!(look(&fixture, mark, &[]).await.0, [1]);
}

#[tokio::test]
async fn patch_changes_what_it_names() {
    let fixture = Fixture::new().await;
    let (chat, run) = fixture.running_chat(1).await;
    fixture.finish(chat, &run, "done").await;
    let reach = Reach::Of(owner(1));
    let patch =
        async |patch: ChatPatch| fixture.store.update(chat, reach, patch).await.unwrap().unwrap();
    let before = fixture.store.get(chat, reach).await.unwrap().unwrap();
    let read = patch(ChatPatch { last_read: Some(MessageId(5)), ..ChatPatch::default() }).await;
    assert_eq!(read.last_read, Some(MessageId(5)));
    assert_eq!(read.updated_at, before.updated_at, "who reads does not move the list");
    let back = patch(ChatPatch { last_read: Some(MessageId(3)), ..ChatPatch::default() }).await;
    assert_eq!(back.last_read, Some(MessageId(5)), "a marker never goes back");
    let workspace = fixture.unbuilt_workspace(7, owner(1)).await;
    let linked =
        patch(ChatPatch { workspace: Some(Some(workspace)), ..ChatPatch::default() }).await;
    assert_eq!((linked.workspace, &linked.title), (Some(workspace), &before.title));
    assert!(linked.updated_at > before.updated_at);
    let cleared = patch(ChatPatch { workspace: Some(None), ..ChatPatch::default() }).await;
    assert_eq!(cleared.workspace, None);
    assert_eq!(cleared.version, before.version, "none of it is history");
    let stranger = Reach::Of(owner(2));
    let theirs = fixture.store.update(chat, stranger, ChatPatch::default()).await.unwrap();
    assert_eq!(theirs, None);
    // A title is not kept waiting by whoever holds the run.
    let _holder = fixture.lock(chat).await;
    let title = ChatPatch { title: Some(Title::new("free").unwrap()), ..ChatPatch::default() };
    let renamed = tokio::time::timeout(PATIENCE, patch(title)).await;
    assert_eq!(renamed.unwrap().title, "free");
}

#[tokio::test]
async fn list_moves_by_what_users_do_and_not_by_claims() {
    let fixture = Fixture::new().await;
    let chat = fixture.chat(1, owner(1)).await;
    let updated =
        async || fixture.store.get(chat, Reach::Everything).await.unwrap().unwrap().updated_at;
    let created = updated().await;
    let worker = fixture.worker(1).await;
    let run = fixture.claim(worker, 1).await.remove(0);
    let step = Event::Step(vec![crate::setup::call("a")]);
    fixture.store.apply(chat, By::Owner(run.token), step).await.unwrap();
    fixture.store.apply(chat, ANYBODY, Event::Interrupt).await.unwrap();
    let named = [(run.id, run.token.fence)];
    fixture.store.release(worker, &named, Duration::ZERO).await.unwrap();
    assert_eq!(updated().await, created, "claim, step, interrupt and release leave it");
    fixture.store.apply(chat, ANYBODY, send("more")).await.unwrap();
    assert!(updated().await > created);
}
