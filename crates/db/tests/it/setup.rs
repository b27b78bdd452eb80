//! What the tests of this crate share.

use musterbeat_core::chat::{Applied, Event, NewChat, Title};
use musterbeat_core::id::{ChatId, OwnerId, WorkerId};
use musterbeat_core::message::{Content, NewMessage, Turn};
use musterbeat_core::port::{ChatStore, Lease, LeaseStore, RunStore};
use musterbeat_core::run::{Run, RunKind};
use musterbeat_db::PgStore;
use musterbeat_testkit::TestDatabase;
use sqlx::PgPool;
use uuid::Uuid;

/// A database of its own, and the store on it.
pub(crate) struct Fixture {
    pub(crate) store: PgStore,
    pub(crate) pool: PgPool,
    // Dropped last, which drops the database.
    database: TestDatabase,
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        let database = TestDatabase::create().await.unwrap();
        let pool = database.pool().await.unwrap();
        Self { store: PgStore::new(pool.clone()), pool, database }
    }

    /// Takes new connections, which have the database's settings as they are by now.
    pub(crate) async fn reconnected(self) -> Self {
        self.pool.close().await;
        let pool = self.database.pool().await.unwrap();
        Self { store: PgStore::new(pool.clone()), pool, database: self.database }
    }

    pub(crate) async fn worker(&self, number: u128) -> WorkerId {
        let worker = WorkerId::new(Uuid::from_u128(number));
        let lease = Lease {
            worker,
            name: "test".to_owned(),
            advertise_url: None,
            release: "test".to_owned(),
            capacity: 10,
        };
        self.store.register(&lease).await.unwrap();
        worker
    }

    pub(crate) async fn chat(&self, id: u128, owner: OwnerId) -> ChatId {
        self.store.create(new_chat(id, owner)).await.unwrap().chat
    }

    pub(crate) async fn claim(&self, worker: WorkerId, limit: u32) -> Vec<Run> {
        let mut runs = self.store.claim(worker, &RunKind::CHAT, limit).await.unwrap();
        runs.sort_by_key(|run| run.id);
        runs
    }

    /// Creates a chat and has a worker own it.
    pub(crate) async fn running_chat(&self, id: u128) -> (ChatId, Run) {
        let worker = self.worker(id).await;
        let chat = self.chat(id, owner(1)).await;
        let claimed = self.claim(worker, 100).await;
        let run = claimed.into_iter().find(|run| run.id == chat.into()).unwrap();
        (chat, run)
    }

    /// Finishes a turn as the run's owner.
    pub(crate) async fn finish(&self, chat: ChatId, run: &Run, said: &str) -> Applied {
        let by = musterbeat_core::port::By::Owner(run.token);
        self.store.apply(chat, by, finish(said)).await.unwrap()
    }
}

pub(crate) fn owner(number: u128) -> OwnerId {
    OwnerId::new(Uuid::from_u128(number << 64))
}

pub(crate) fn new_chat(id: u128, owner: OwnerId) -> NewChat {
    NewChat {
        id: ChatId::new(Uuid::from_u128(id)),
        owner,
        workspace: None,
        title: Title::new(format!("chat {id}")).unwrap(),
        turn: turn("first"),
    }
}

pub(crate) fn turn(text: &str) -> Turn {
    Turn { content: Content::text(text).unwrap(), model: None, created_by: None }
}

pub(crate) fn send(text: &str) -> Event {
    Event::Send(turn(text))
}

pub(crate) fn finish(said: &str) -> Event {
    let answer = vec![NewMessage::answer(Content::text(said).unwrap(), None)];
    Event::FinishTurn { answer, draining: false }
}
