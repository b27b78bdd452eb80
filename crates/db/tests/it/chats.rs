//! Chats: what each event does to the stored state, and the races between them.

use std::collections::BTreeSet;

use musterbeat_core::chat::{Event, Refused, WhenBusy};
use musterbeat_core::id::{Fence, Version};
use musterbeat_core::message::{Model, Role};
use musterbeat_core::page::{Cursor, Limit};
use musterbeat_core::port::{ApplyError, By, ChatFilter, ChatReader, ChatStore, Reach, RunStore};
use musterbeat_core::run::RunStatus;

use crate::setup::{Fixture, finish, new_chat, owner, send, turn};

const ANYBODY: By = By::User(Reach::Everything);

#[tokio::test]
async fn creating_twice_creates_once() {
    let fixture = Fixture::new().await;
    let first = fixture.store.create(new_chat(1, owner(1)), Reach::Of(owner(1))).await.unwrap();
    let second = fixture.store.create(new_chat(1, owner(1)), Reach::Of(owner(1))).await.unwrap();
    assert_eq!(first, second);
    let changes = changes(&fixture, first.chat, None).await;
    assert_eq!(texts(&changes.messages), ["first"]);
}

#[tokio::test]
async fn id_of_anothers_chat_is_not_there() {
    let fixture = Fixture::new().await;
    let chat = fixture.chat(1, owner(1)).await;
    let stranger = Reach::Of(owner(2));
    let created = fixture.store.create(new_chat(1, owner(2)), stranger).await;
    assert!(matches!(created, Err(ApplyError::NotFound)));
    assert_eq!(fixture.store.get(chat, stranger).await.unwrap(), None);
    assert_eq!(fixture.store.changes(chat, stranger, None).await.unwrap(), None);
    let sent = fixture.store.apply(chat, By::User(stranger), send("mine now")).await;
    assert!(matches!(sent, Err(ApplyError::NotFound)));
    assert!(fixture.store.get(chat, Reach::Of(owner(1))).await.unwrap().is_some());
}

#[tokio::test]
async fn busy_chat_queues_and_takes_the_next_under_the_same_fence() {
    let fixture = Fixture::new().await;
    let (chat, mut run) = fixture.running_chat(1).await;
    assert!(fixture.store.apply(chat, ANYBODY, send("second")).await.unwrap().queued);
    assert!(fixture.store.apply(chat, ANYBODY, send("third")).await.unwrap().queued);

    let applied = fixture.finish(chat, &run, "one").await;
    assert_eq!(applied.status, RunStatus::Running);
    run.token.step = applied.step;
    let applied = fixture.finish(chat, &run, "two").await;
    run.token.step = applied.step;
    let applied = fixture.finish(chat, &run, "three").await;
    assert_eq!(applied.status, RunStatus::Waiting);

    let changes = changes(&fixture, chat, None).await;
    assert_eq!(texts(&changes.messages), ["first", "one", "second", "two", "third", "three"]);
    assert!(changes.queue.is_empty());
}

#[tokio::test]
async fn full_queue_refuses_and_loses_nothing() {
    let fixture = Fixture::new().await;
    let (chat, _run) = fixture.running_chat(1).await;
    for number in 0..20 {
        fixture.store.apply(chat, ANYBODY, send(&number.to_string())).await.unwrap();
    }
    let refused = fixture.store.apply(chat, ANYBODY, send("one too many")).await;
    assert!(matches!(refused, Err(ApplyError::Refused(Refused::QueueFull { queue_max: 20 }))));
    assert_eq!(changes(&fixture, chat, None).await.queue.len(), 20);
}

/// The answer of the first write was lost, so the owner sends it again.
#[tokio::test]
async fn repeated_finish_doubles_no_answer_and_skips_no_question() {
    let fixture = Fixture::new().await;
    let (chat, run) = fixture.running_chat(1).await;
    fixture.store.apply(chat, ANYBODY, send("second")).await.unwrap();
    fixture.store.apply(chat, ANYBODY, send("third")).await.unwrap();
    let first = fixture.finish(chat, &run, "one").await;
    let again = fixture.finish(chat, &run, "one").await;
    assert_eq!(
        (again.status, again.step, again.version),
        (first.status, first.step, first.version)
    );
    let changes = changes(&fixture, chat, None).await;
    assert_eq!(texts(&changes.messages), ["first", "one", "second"]);
    assert_eq!(changes.queue.len(), 1);
}

/// The write that gives the run up is repeated too: the run has no owner by then.
#[tokio::test]
async fn repeated_last_finish_is_known_as_applied() {
    let fixture = Fixture::new().await;
    let (chat, run) = fixture.running_chat(1).await;
    fixture.finish(chat, &run, "one").await;
    let again = fixture.finish(chat, &run, "one").await;
    assert_eq!(again.status, RunStatus::Waiting);
    assert_eq!(texts(&changes(&fixture, chat, None).await.messages), ["first", "one"]);
}

#[tokio::test]
async fn stale_writer_changes_nothing_and_is_told() {
    let fixture = Fixture::new().await;
    let (chat, old) = fixture.running_chat(1).await;
    fixture
        .store
        .release(old.token.worker, &[(old.id, old.token.fence)], std::time::Duration::ZERO)
        .await
        .unwrap();
    let new = fixture.claim(fixture.worker(2).await, 1).await.remove(0);
    assert_eq!(new.token.fence, Fence(3));

    let refused = fixture.store.apply(chat, By::Owner(old.token), finish("stale")).await;
    assert!(matches!(refused, Err(ApplyError::Fenced)));
    fixture.finish(chat, &new, "fresh").await;
    assert_eq!(texts(&changes(&fixture, chat, None).await.messages), ["first", "fresh"]);
}

#[tokio::test]
async fn failed_turn_keeps_the_queue_until_somebody_asks() {
    let fixture = Fixture::new().await;
    let (chat, run) = fixture.running_chat(1).await;
    fixture.store.apply(chat, ANYBODY, send("second")).await.unwrap();
    let error = Event::FinishError { error: "no model".to_owned() };
    let applied = fixture.store.apply(chat, By::Owner(run.token), error).await.unwrap();
    assert_eq!(applied.status, RunStatus::Error);

    let applied = fixture.store.apply(chat, ANYBODY, send("third")).await.unwrap();
    assert_eq!(applied.status, RunStatus::Pending);
    let changes = changes(&fixture, chat, None).await;
    assert_eq!(changes.chat.error, None);
    assert_eq!(texts(&changes.messages), ["first", "second"], "the queue keeps its order");
    assert_eq!(changes.queue[0].content.to_text(), "third");
}

/// A message that is queued while the owner finishes must not stay behind in a waiting chat:
/// lock and queue are read by two statements, or the second sees the queue as it was before.
#[tokio::test]
async fn message_sent_while_a_turn_finishes_is_never_left_behind() {
    let fixture = Fixture::new().await;
    for id in 0..40 {
        let (chat, run) = fixture.running_chat(id + 1).await;
        let (sent, finished) = tokio::join!(
            fixture.store.apply(chat, ANYBODY, send("while finishing")),
            fixture.store.apply(chat, By::Owner(run.token), finish("done")),
        );
        sent.unwrap();
        finished.unwrap();
        let stored = changes(&fixture, chat, None).await;
        assert!(stored.queue.is_empty(), "left behind in {}", stored.chat.status);
        assert_ne!(stored.chat.status, RunStatus::Waiting);
        assert!(texts(&stored.messages).contains(&"while finishing".to_owned()));
    }
}

/// Turns asked for by many at once are each answered exactly once, in some order.
#[tokio::test]
async fn no_turn_of_many_senders_is_lost_or_doubled() {
    let fixture = Fixture::new().await;
    let (chat, mut run) = fixture.running_chat(1).await;
    let senders = (0..15).map(|number| {
        let store = fixture.store.clone();
        async move { store.apply(chat, ANYBODY, send(&format!("turn {number}"))).await.unwrap() }
    });
    let work = async {
        let mut turns = 1;
        loop {
            let applied = fixture.finish(chat, &run, "answer").await;
            run.token.step = applied.step;
            if applied.status != RunStatus::Running {
                let claimed = fixture.claim(run.token.worker, 1).await;
                match claimed.into_iter().next() {
                    Some(claimed) => run = claimed,
                    None if turns == 16 => return,
                    None => continue_when_pending(&fixture, &mut run).await,
                }
            }
            turns += 1;
        }
    };
    tokio::join!(futures_util::future::join_all(senders), work);
    let stored = changes(&fixture, chat, None).await;
    let asked: Vec<String> = stored
        .messages
        .iter()
        .filter(|message| message.role == Role::User)
        .map(|message| message.content.to_text())
        .collect();
    assert_eq!(asked.len(), 16);
    assert_eq!(asked.iter().collect::<BTreeSet<_>>().len(), 16);
    assert_eq!(stored.messages.len(), 32);
}

async fn continue_when_pending(fixture: &Fixture, run: &mut musterbeat_core::run::Run) {
    loop {
        if let Some(claimed) = fixture.claim(run.token.worker, 1).await.into_iter().next() {
            *run = claimed;
            return;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn model_moves_with_the_turn_that_names_one() {
    let fixture = Fixture::new().await;
    let (chat, run) = fixture.running_chat(1).await;
    let mut named = turn("with another");
    named.model = Some(Model::new("big").unwrap());
    fixture
        .store
        .apply(chat, ANYBODY, Event::Send { turn: named, when_busy: WhenBusy::Queue })
        .await
        .unwrap();
    fixture.store.apply(chat, ANYBODY, send("and again")).await.unwrap();
    let model = async || changes(&fixture, chat, None).await.chat.model;
    assert_eq!(model().await, None, "a queued turn moves nothing yet");
    fixture.finish(chat, &run, "one").await;
    assert_eq!(model().await, Some(Model::new("big").unwrap()));
}

#[tokio::test]
async fn reader_ahead_of_the_store_gets_everything_again() {
    let fixture = Fixture::new().await;
    let (chat, _run) = fixture.running_chat(1).await;
    let ahead = changes(&fixture, chat, Some(Version(99))).await;
    assert!(ahead.reset);
    assert_eq!(texts(&ahead.messages), ["first"]);
    let level = changes(&fixture, chat, Some(ahead.chat.version)).await;
    assert!(!level.reset && level.messages.is_empty());
}

#[tokio::test]
async fn page_shows_each_chat_that_does_not_change_exactly_once() {
    let fixture = Fixture::new().await;
    for id in 0..25 {
        fixture.chat(id, owner(1)).await;
    }
    fixture.chat(100, owner(2)).await;
    let mut filter = ChatFilter {
        owner: owner(1),
        archived: None,
        after: None,
        limit: Limit::new(Some(4)).unwrap(),
    };
    let mut seen = Vec::new();
    loop {
        let page = fixture.store.list(filter).await.unwrap();
        let Some(last) = page.last() else { break };
        filter.after = Some(Cursor { at: last.updated_at, chat: last.id });
        seen.extend(page.iter().map(|chat| chat.id.uuid().as_u128()));
        // One that was seen moves to the front, beyond the reader.
        let first = page[0].id;
        fixture.store.apply(first, ANYBODY, send("again")).await.unwrap();
    }
    assert_eq!(seen, (0..25).rev().collect::<Vec<u128>>());
}

async fn changes(
    fixture: &Fixture,
    chat: musterbeat_core::id::ChatId,
    since: Option<Version>,
) -> musterbeat_core::chat::Changes {
    fixture.store.changes(chat, Reach::Everything, since).await.unwrap().unwrap()
}

fn texts(messages: &[musterbeat_core::message::Message]) -> Vec<String> {
    messages.iter().map(|message| message.content.to_text()).collect()
}
