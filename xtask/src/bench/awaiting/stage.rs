//! Two replicas without workers: children run on B, and their parent waits on A.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use musterbeat_core::chat::{Event, NewChat, Report, Title};
use musterbeat_core::id::{ChatId, OwnerId, WorkerId};
use musterbeat_core::message::{Content, NewMessage, Turn};
use musterbeat_core::port::{
    By, ChatStore as _, Lease, LeaseStore as _, Reach, Room, RunStore as _, Watch as _,
};
use musterbeat_core::run::{Run, RunKind};
use musterbeat_db::{PgStore, PoolLimits};
use musterbeat_engine::chat::{ChatPorts, Chats};
use musterbeat_pubsub::{PgTransport, PgTransportOptions};
use musterbeat_testkit::TestDatabase;
use sqlx::PgConnection;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::super::stamping::Stamping;
use super::super::wait::until;
use super::POLL;

/// Nothing here takes longer on a machine that can be measured on.
const PATIENCE: Duration = Duration::from_secs(30);

const ANSWER: &str = "done";

/// How a parent waits.
#[derive(Clone, Copy, Debug)]
pub(super) enum Way {
    /// Looks, sleeps, and looks again.
    Poll,
    /// `Chats::wait_for_descendant`, as it is by default.
    Notice,
}

/// What a wait came to.
pub(super) struct Sample {
    /// From the child's commit until its parent has the answer.
    pub(super) late: Duration,
    /// Statements that read how the child stands, counted by the server.
    pub(super) looks: u64,
    /// Statements that read a chat's ancestors.
    pub(super) lineage: u64,
}

pub(super) struct Stage {
    a: Replica,
    b: Replica,
    posted: Arc<Stamping>,
    worker: WorkerId,
    parent: ChatId,
    conn: PgConnection,
}

struct Replica {
    store: PgStore,
    transport: PgTransport,
    chats: Chats,
}

impl Stage {
    pub(super) async fn set(database: &TestDatabase) -> Result<Self> {
        let mut conn = database.connect().await?;
        calls(&mut conn, LOOK).await.context(
            "the server does not count statements: let TEST_DATABASE_URL be unset, and install \
             PostgreSQL's contributed modules",
        )?;
        let (a, _) = Replica::start(database).await?;
        let (b, posted) = Replica::start(database).await?;
        let worker = WorkerId::new(Uuid::now_v7());
        let (name, release) = ("b".to_owned(), "bench".to_owned());
        let lease = Lease { worker, name, advertise_url: None, release, capacity: 1_000 };
        b.store.register(&lease).await?;
        let parent = a.chats.create(new_chat(None)?, Reach::Everything).await?.chat;
        b.claim(worker, parent).await?;
        Ok(Self { a, b, posted, worker, parent, conn })
    }

    /// Has a child run on B for as long as `work`, and its parent wait on A.
    pub(super) async fn sample(&mut self, way: Way, work: Duration) -> Result<Sample> {
        let child = new_chat(Some(self.parent))?;
        let child = self.b.chats.create(child, Reach::Everything).await?.chat;
        let run = self.b.claim(self.worker, child).await?;
        let before = self.calls().await?;
        let waiter = tokio::spawn(self.a.wait(way, self.parent, child));
        sleep(work).await;
        self.posted.clear();
        let answer = vec![NewMessage::answer(Content::text(ANSWER)?, None)];
        let end = Event::FinishTurn { answer, draining: false };
        self.b.chats.apply(child, By::Owner(run.token), end).await?;
        let ended = self.posted.at().context("nothing was published")?;
        let waited = timeout(PATIENCE, waiter).await.context("a parent waits for ever")?;
        let (report, returned) = waited.context("a parent's task broke off")??;
        ensure!(report.text.as_deref() == Some(ANSWER), "a parent was told {report:?}");
        let after = self.calls().await?;
        let late = returned.saturating_duration_since(ended);
        Ok(Sample { late, looks: after.0 - before.0, lineage: after.1 - before.1 })
    }

    pub(super) async fn end(self) -> Result<()> {
        for replica in [self.a, self.b] {
            replica.transport.close(PATIENCE).await.context("a transport did not end")?;
        }
        Ok(())
    }

    async fn calls(&mut self) -> Result<(u64, u64)> {
        Ok((calls(&mut self.conn, LOOK).await?, calls(&mut self.conn, LINEAGE).await?))
    }
}

/// Words that only the statements to be counted have.
const LOOK: &str = "%jsonb\\_path\\_exists(%";
const LINEAGE: &str = "%with recursive chain%";

/// Returns how often the server has executed statements like `pattern` in this database.
async fn calls(conn: &mut PgConnection, pattern: &str) -> Result<u64> {
    let query = r"
        select coalesce(sum(calls), 0)::bigint
        from pg_stat_statements
        where dbid = (select oid from pg_database where datname = current_database())
          and query like $1 and query not like '%pg\_stat\_statements%'";
    let calls = sqlx::query_scalar(query).bind(pattern).fetch_one(conn).await;
    let calls: i64 = calls.context("failed to ask the server for its count of statements")?;
    Ok(u64::try_from(calls)?)
}

impl Replica {
    /// Opens a pool and a transport, and waits until notices arrive.
    async fn start(database: &TestDatabase) -> Result<(Self, Arc<Stamping>)> {
        let url = database.url();
        let transport = PgTransport::start(url, &PgTransportOptions::DEFAULT)?;
        let store = PgStore::new(musterbeat_db::connect(url, &PoolLimits::default()).await?);
        let posted = Arc::new(Stamping::new(transport.clone()));
        let chats = Chats::new(ChatPorts {
            store: Arc::new(store.clone()),
            reader: Arc::new(store.clone()),
            publish: posted.clone(),
            watch: Arc::new(transport.clone()),
        });
        until("notices arrive", PATIENCE, async || Ok(transport.is_confirmed().then_some(())))
            .await?;
        Ok((Self { store, transport, chats }, posted))
    }

    /// Has the worker own a chat's run.
    async fn claim(&self, worker: WorkerId, chat: ChatId) -> Result<Run> {
        let runs = self.store.claim(worker, &RunKind::CHAT, Room::of(1)).await?;
        let run = runs.into_iter().find(|run| run.id == chat.into());
        run.context("a chat that is pending was not claimed")
    }

    /// Waits for the child; returns how it stood, and when that was known.
    fn wait(
        &self,
        way: Way,
        parent: ChatId,
        child: ChatId,
    ) -> impl Future<Output = Result<(Report, Instant)>> + Send + use<> {
        let (chats, store) = (self.chats.clone(), self.store.clone());
        async move {
            let report = match way {
                Way::Poll => poll(&store, parent, child).await?,
                Way::Notice => chats.wait_for_descendant(parent, child, Some(PATIENCE)).await?,
            };
            Ok((report, Instant::now()))
        }
    }
}

/// Waits as the original does.
async fn poll(store: &PgStore, parent: ChatId, child: ChatId) -> Result<Report> {
    ensure!(store.ancestors(child).await?.descends_from(parent), "a child is none");
    loop {
        let report = store.report(child, Reach::Everything, None).await?;
        let report = report.context("a child is gone")?;
        if report.is_at_rest() {
            return Ok(report);
        }
        sleep(POLL).await;
    }
}

fn new_chat(parent: Option<ChatId>) -> Result<NewChat> {
    let turn = Turn { content: Content::text("Do it.")?, model: None, created_by: None };
    let (id, owner) = (ChatId::new(Uuid::now_v7()), OwnerId::new(Uuid::from_u128(1)));
    Ok(NewChat { parent, ..NewChat::new(id, owner, Title::new("a chat")?, turn) })
}
