//! Claims within caps, of an owner and of all.

use std::num::NonZeroU32;
use std::time::Duration;

use futures_util::future::join_all;
use musterbeat_core::chat::{Event, NewChat, Origin};
use musterbeat_core::id::{ChatId, Fence};
use musterbeat_core::message::{Content, NewMessage};
use musterbeat_core::port::{By, ChatStore, Reach, Room, RunStore, Waiter};
use musterbeat_core::run::{Run, RunKind, Token};
use musterbeat_db::PgStore;
use musterbeat_db::runs::Caps;
use uuid::Uuid;

use crate::setup::{Fixture, finish, new_chat, owner};

const ANYBODY: By = By::User(Reach::Everything);

fn capped(fixture: &Fixture, owner: u32, deployment: u32) -> PgStore {
    let (owner, deployment) = (NonZeroU32::new(owner), NonZeroU32::new(deployment));
    fixture.store.clone().with_chat_caps(Caps { owner, deployment })
}

async fn claim(fixture: &Fixture, store: &PgStore, worker: u128) -> Vec<Run> {
    let worker = fixture.worker(worker).await;
    store.claim(worker, &RunKind::CHAT, Room::of(100)).await.unwrap()
}

#[tokio::test]
async fn owner_gets_no_more_than_their_cap_and_room_is_used_again() {
    let fixture = Fixture::new().await;
    for id in 1..=6 {
        fixture.chat(id, owner(1)).await;
    }
    fixture.chat(7, owner(2)).await;
    let store = capped(&fixture, 2, 0);
    let claimed = claim(&fixture, &store, 1).await;
    let of_one = claimed.iter().filter(|run| run.owner == owner(1)).count();
    assert_eq!((claimed.len(), of_one), (3, 2));
    assert!(claim(&fixture, &store, 2).await.is_empty());
    let next = store.next_ready(&RunKind::CHAT).await.unwrap();
    assert_eq!(next, Some(Duration::from_secs(1)), "it is not worth asking at once");

    let run = claimed.iter().find(|run| run.owner == owner(1)).unwrap();
    let chat = ChatId::new(run.id.uuid());
    store.apply(chat, By::Owner(run.token), finish("done")).await.unwrap();
    assert_eq!(store.next_ready(&RunKind::CHAT).await.unwrap(), Some(Duration::ZERO));
    assert_eq!(claim(&fixture, &store, 2).await.len(), 1);
}

#[tokio::test]
async fn all_together_get_no_more_than_the_cap_and_are_served_in_rounds() {
    let fixture = Fixture::new().await;
    for id in 1..=4 {
        fixture.chat(id, owner(1)).await;
    }
    fixture.chat(5, owner(2)).await;
    fixture.chat(6, owner(3)).await;
    let claimed = claim(&fixture, &capped(&fixture, 0, 3), 1).await;
    let mut owners: Vec<_> = claimed.iter().map(|run| run.owner).collect();
    owners.sort();
    assert_eq!(owners, [owner(1), owner(2), owner(3)]);
}

/// Each counts what is at work, and none knows of the others.
#[tokio::test]
async fn workers_that_claim_at_once_never_admit_too_many() {
    let fixture = Fixture::new().await;
    for id in 1..=40 {
        fixture.chat(id, owner(id % 4)).await;
    }
    let store = capped(&fixture, 3, 10);
    let claims = join_all((1..=8).map(|worker| claim(&fixture, &store, worker))).await;
    assert_eq!(claims.iter().map(Vec::len).sum::<usize>(), 10);
}

#[tokio::test]
async fn interrupt_is_finished_without_room() {
    let fixture = Fixture::new().await;
    let store = capped(&fixture, 1, 1);
    let stopped = fixture.chat(1, owner(1)).await;
    let run = claim(&fixture, &store, 1).await.remove(0);
    store.apply(stopped, ANYBODY, Event::Interrupt).await.unwrap();
    let named = [(run.id, run.token.fence)];
    store.release(run.token.worker, &named, Duration::ZERO).await.unwrap();
    fixture.chat(2, owner(1)).await;
    let claimed = claim(&fixture, &store, 2).await;
    assert_eq!(claimed.len(), 2, "one takes the room, the other needs none");
    assert!(claimed.iter().any(|run| run.stop));
}

/// A parent, its two children and another chat of the same owner, under a cap of one.
#[tokio::test]
async fn parent_that_waits_leaves_its_room_to_its_children_one_after_the_other() {
    for (of_owner, of_all) in [(1, 0), (0, 1)] {
        let fixture = Fixture::new().await;
        let store = capped(&fixture, of_owner, of_all);
        let parent = fixture.chat(1, owner(1)).await;
        let parents = claim(&fixture, &store, 1).await.remove(0);
        let other = fixture.chat(9, owner(1)).await;
        for child in [2, 3] {
            store.create(child_of(parent, child), Reach::Of(owner(1))).await.unwrap();
        }
        assert!(claim(&fixture, &store, 2).await.is_empty(), "the parent has the room");
        assert_eq!(store.next_ready(&RunKind::CHAT).await.unwrap(), Some(Duration::from_secs(1)));

        let waiter = Some(Waiter { run: parents.id, token: parents.token });
        let mut ended = vec![];
        for child in [2, 3].map(|id| ChatId::new(Uuid::from_u128(id))) {
            let report = store.report(child, Reach::Everything, waiter).await.unwrap().unwrap();
            assert!(!report.is_at_rest());
            assert_eq!(store.next_ready(&RunKind::CHAT).await.unwrap(), Some(Duration::ZERO));
            let claimed = claim(&fixture, &store, 2).await;
            let [run] = &claimed[..] else { panic!("there is room for one: {claimed:?}") };
            // The other chat was ready first, and so comes in its turn.
            let claimed = ChatId::new(run.id.uuid());
            fixture.finish(claimed, run, "done").await;
            ended.push(claimed);
            if claimed == other {
                let run = claim(&fixture, &store, 2).await.remove(0);
                fixture.finish(ChatId::new(run.id.uuid()), &run, "done").await;
            }
            let report = store.report(child, Reach::Everything, waiter).await.unwrap().unwrap();
            assert!(report.is_at_rest(), "{ended:?}");
        }

        // It writes, so it is at work again.
        let next = fixture.chat(10, owner(1)).await;
        let step = Event::Step(vec![NewMessage::answer(Content::produced("both"), None)]);
        store.apply(parent, By::Owner(parents.token), step).await.unwrap();
        assert!(claim(&fixture, &store, 2).await.is_empty());
        let token = parents.token.next();
        store.apply(parent, By::Owner(token), finish("done")).await.unwrap();
        assert_eq!(claim(&fixture, &store, 2).await[0].id, next.into());
    }
}

#[tokio::test]
async fn only_the_owner_at_present_waits_and_only_until_the_next_claim() {
    let fixture = Fixture::new().await;
    let store = capped(&fixture, 1, 0);
    let parent = fixture.chat(1, owner(1)).await;
    let run = claim(&fixture, &store, 1).await.remove(0);
    let child = store.create(child_of(parent, 2), Reach::Everything).await.unwrap().chat;
    let waits = async |run: &Run| {
        let waiter = Some(Waiter { run: run.id, token: run.token });
        store.report(child, Reach::Everything, waiter).await.unwrap().unwrap();
        awaits(&fixture, parent).await
    };
    let stale = Token { fence: Fence(run.token.fence.0 - 1), ..run.token };
    assert!(!waits(&Run { token: stale, ..run.clone() }).await);
    assert!(waits(&run).await);
    store.release(run.token.worker, &[(run.id, run.token.fence)], Duration::ZERO).await.unwrap();
    let first = claim(&fixture, &store, 2).await.remove(0);
    assert_eq!(first.id, child.into(), "it was ready first, and is put off");
    let hour = Duration::from_hours(1);
    let named = [(first.id, first.token.fence)];
    store.release(first.token.worker, &named, hour).await.unwrap();
    let claimed = claim(&fixture, &store, 2).await;
    assert_eq!((claimed.len(), claimed[0].id), (1, run.id));
    assert!(!awaits(&fixture, parent).await, "whoever goes on with it is at work");
    assert!(!waits(&run).await, "and its former owner changes nothing");
    assert!(waits(&claimed[0]).await);
}

#[tokio::test]
async fn wait_costs_no_write_without_caps_or_for_who_is_at_rest() {
    let fixture = Fixture::new().await;
    let (parent, run) = fixture.running_chat(1).await;
    let child = fixture.store.create(child_of(parent, 2), Reach::Everything).await.unwrap().chat;
    let waiter = Some(Waiter { run: run.id, token: run.token });
    fixture.store.report(child, Reach::Everything, waiter).await.unwrap();
    assert!(!awaits(&fixture, parent).await);
    let runs = fixture.claim(fixture.worker(2).await, 10).await;
    fixture.finish(child, &runs[0], "done").await;
    capped(&fixture, 1, 1).report(child, Reach::Everything, waiter).await.unwrap();
    assert!(!awaits(&fixture, parent).await);
}

fn child_of(parent: ChatId, id: u128) -> NewChat {
    NewChat { parent: Some(parent), origin: Origin::Spawned, ..new_chat(id, owner(1)) }
}

async fn awaits(fixture: &Fixture, chat: ChatId) -> bool {
    let awaits = sqlx::query_scalar("select awaits from runs where run_id = $1");
    awaits.bind(chat.uuid()).fetch_one(&fixture.pool).await.unwrap()
}
