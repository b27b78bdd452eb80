//! Claims within caps, of an owner and of all.

use std::num::NonZeroU32;
use std::time::Duration;

use futures_util::future::join_all;
use musterbeat_core::chat::Event;
use musterbeat_core::id::ChatId;
use musterbeat_core::port::{By, ChatStore, Reach, RunStore};
use musterbeat_core::run::{Run, RunKind};
use musterbeat_db::PgStore;
use musterbeat_db::runs::Caps;

use crate::setup::{Fixture, finish, owner};

const ANYBODY: By = By::User(Reach::Everything);

fn capped(fixture: &Fixture, owner: u32, deployment: u32) -> PgStore {
    let (owner, deployment) = (NonZeroU32::new(owner), NonZeroU32::new(deployment));
    fixture.store.clone().with_chat_caps(Caps { owner, deployment })
}

async fn claim(fixture: &Fixture, store: &PgStore, worker: u128) -> Vec<Run> {
    let worker = fixture.worker(worker).await;
    store.claim(worker, &RunKind::CHAT, 100).await.unwrap()
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
