//! What the tests of this crate share.

use std::time::Duration;

use musterbeat_core::chat::{Applied, Event, NewChat, Title, WhenBusy};
use musterbeat_core::id::{ChatId, OwnerId, WorkerId, WorkspaceId};
use musterbeat_core::message::{Content, NewMessage, Part, Role, Turn};
use musterbeat_core::port::{ChatStore, Lease, LeaseStore, Reach, Room, RunStore};
use musterbeat_core::run::{Run, RunKind};
use musterbeat_db::{PgBeats, PgStore};
use musterbeat_testkit::{TestDatabase, eventually};
use sqlx::{PgPool, Postgres, Transaction};
use uuid::Uuid;

/// Longest wait for anything; a test that meets it has failed.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// A database of its own, and the store on it.
pub(crate) struct Fixture {
    pub(crate) store: PgStore,
    pub(crate) pool: PgPool,
    // Dropped last, which drops the database.
    database: TestDatabase,
}

impl Fixture {
    pub(crate) async fn new() -> Self {
        Self::on(TestDatabase::create().await.unwrap()).await
    }

    /// Meets a database without a detour.
    pub(crate) async fn on(database: TestDatabase) -> Self {
        let pool = database.pool().await.unwrap();
        Self { store: PgStore::new(pool.clone()), pool, database }
    }

    pub(crate) fn url(&self) -> &str {
        self.database.url()
    }

    pub(crate) fn name(&self) -> &str {
        self.database.name()
    }

    /// Returns a connection for beats.
    pub(crate) fn beats(&self) -> PgBeats {
        PgBeats::new(self.url(), PATIENCE).unwrap()
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
        self.store.create(new_chat(id, owner), Reach::Of(owner)).await.unwrap().chat
    }

    /// Adds a workspace of `owner`, which nothing builds.
    pub(crate) async fn unbuilt_workspace(&self, id: u128, owner: OwnerId) -> WorkspaceId {
        const ADD: &str = "
            with template as (
                insert into templates (id, name) values ($1, $1::text) returning id
            ), version as (
                insert into template_versions (id, template_id, name, source)
                select id, id, 'one', 'none' from template returning id
            )
            insert into workspaces (id, owner_id, template_version_id, name, build_id)
            select id, $2, id, $1::text, id from version";
        let workspace = WorkspaceId::new(Uuid::from_u128(id));
        let add = sqlx::query(ADD).bind(workspace.uuid()).bind(owner.uuid());
        add.execute(&self.pool).await.unwrap();
        workspace
    }

    pub(crate) async fn claim(&self, worker: WorkerId, limit: u32) -> Vec<Run> {
        let mut runs = self.store.claim(worker, &RunKind::CHAT, Room::of(limit)).await.unwrap();
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

    /// Holds a chat's run locked until the transaction ends.
    pub(crate) async fn lock(&self, chat: ChatId) -> Transaction<'static, Postgres> {
        let mut holder = self.pool.begin().await.unwrap();
        sqlx::query("select from runs where run_id = $1 for update")
            .bind(chat.uuid())
            .execute(&mut *holder)
            .await
            .unwrap();
        holder
    }

    /// Makes each transaction that creates a chat wait in its commit for advisory lock 1.
    pub(crate) async fn hold_commits_of_chats(&self) {
        const HOLD: &str = "
            create function wait_for_the_gate() returns trigger language plpgsql as
                $$ begin perform pg_advisory_xact_lock(1); return null; end $$;
            create constraint trigger gate after insert on chats deferrable initially deferred
                for each row execute function wait_for_the_gate();";
        sqlx::raw_sql(HOLD).execute(&self.pool).await.unwrap();
    }

    /// Waits until a session of this database waits for a lock.
    pub(crate) async fn somebody_waits_for_a_lock(&self) {
        const WAITING: &str = "select exists (select from pg_stat_activity
            where datname = current_database() and wait_event_type = 'Lock')";
        eventually(PATIENCE, "somebody waits for a lock", async || {
            sqlx::query_scalar(WAITING).fetch_one(&self.pool).await.unwrap()
        })
        .await;
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
    let title = Title::new(format!("chat {id}")).unwrap();
    NewChat::new(ChatId::new(Uuid::from_u128(id)), owner, title, turn("first"))
}

pub(crate) fn turn(text: &str) -> Turn {
    Turn { content: Content::text(text).unwrap(), model: None, created_by: None }
}

pub(crate) fn send(text: &str) -> Event {
    Event::Send { turn: turn(text), when_busy: WhenBusy::Queue }
}

pub(crate) fn finish(said: &str) -> Event {
    let answer = vec![NewMessage::answer(Content::text(said).unwrap(), None)];
    Event::FinishTurn { answer, draining: false }
}

/// A message of the assistant that calls a tool.
pub(crate) fn call(id: &str) -> NewMessage {
    let part = Part::ToolCall { id: id.into(), name: "read".into(), input: serde_json::json!({}) };
    NewMessage::answer(Content::produced_parts(vec![part]).unwrap(), None)
}

/// A tool's message that answers a call.
pub(crate) fn result(id: &str) -> NewMessage {
    let part = Part::ToolResult { id: id.into(), output: "done".into(), is_error: false };
    let content = Content::produced_parts(vec![part]).unwrap();
    NewMessage { role: Role::Tool, ..NewMessage::answer(content, None) }
}
