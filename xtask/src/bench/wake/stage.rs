//! Two replicas: A is full for ever, B takes what is posted on A.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use musterbeat_core::chat::{NewChat, Title};
use musterbeat_core::id::{ChatId, OwnerId, RunId, WorkerId};
use musterbeat_core::lease::LeaseTimes;
use musterbeat_core::message::{Content, Turn};
use musterbeat_core::port::{
    ChatContext, ChatRunner, ChatTurn, Lease, Publish, Reach, RunContext, Runner, Topic, TurnEnd,
    Watch as _,
};
use musterbeat_core::run::{Outcome, Run, RunKind};
use musterbeat_db::{PgBeats, PgStore, PoolLimits};
use musterbeat_engine::chat::{ChatPorts, ChatRuns, Chats};
use musterbeat_engine::clock::SystemClock;
use musterbeat_engine::echo::Echo;
use musterbeat_engine::parts::PartStreams;
use musterbeat_engine::shutdown::Shutdown;
use musterbeat_engine::worker::{Ports, Serving, Worker, WorkerOptions};
use musterbeat_pubsub::{PgTransport, PgTransportOptions};
use musterbeat_testkit::TestDatabase;
use sqlx::PgConnection;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use uuid::Uuid;

use super::super::stamping::Stamping;
use super::super::wait::until;
use super::PATIENCE;

/// Polls never come while this is measured.
const POLL_INTERVAL: Duration = Duration::from_hours(1);

/// What B can run at once.
const CAPACITY: u32 = 10;

/// Something that a runner notes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Noted {
    /// The run's task has begun.
    Began,
    /// The prompt has been read.
    Prompted,
}

type Notes = mpsc::UnboundedSender<(Noted, Instant)>;

/// The replicas, and what was posted.
pub(super) struct Stage {
    a: Replica,
    b: Replica,
    posted: Arc<Stamping>,
    chats: Chats,
    noted: mpsc::UnboundedReceiver<(Noted, Instant)>,
    conn: PgConnection,
}

struct Replica {
    worker: WorkerId,
    store: PgStore,
    transport: PgTransport,
    shutdown: Shutdown,
    work: JoinHandle<()>,
}

impl Stage {
    /// Fills A while it is alone, then starts B.
    pub(super) async fn set(database: &TestDatabase) -> Result<Self> {
        let mut conn = database.connect().await?;
        let a = Replica::start(database, "a", 1, Endless).await?;
        let posted = Arc::new(Stamping::new(a.transport.clone()));
        let chats = Chats::new(ChatPorts {
            store: Arc::new(a.store.clone()),
            reader: Arc::new(a.store.clone()),
            publish: posted.clone(),
            watch: Arc::new(a.transport.clone()),
        });
        let endless = chats.create(new_chat()?, Reach::Everything).await?.chat;
        status(&mut conn, endless, "running").await?;
        let (notes, noted) = mpsc::unbounded_channel();
        let b = Replica::start(
            database,
            "b",
            CAPACITY,
            Noting { inner: Echo { pace: Duration::ZERO }, notes },
        )
        .await?;
        Ok(Self { a, b, posted, chats, noted, conn })
    }

    /// Returns the worker of A.
    pub(super) fn full_worker(&self) -> WorkerId {
        self.a.worker
    }

    /// Posts a chat on A; returns when B's runner began and when it had the prompt.
    ///
    /// Waits until the run's end is written, so that B is idle again.
    pub(super) async fn sample(&mut self) -> Result<(Duration, Duration)> {
        self.posted.clear();
        let chat = self.chats.create(new_chat()?, Reach::Everything).await?.chat;
        let posted = self.posted.at().context("nothing was published")?;
        let began = self.noted(Noted::Began).await?;
        let prompted = self.noted(Noted::Prompted).await?;
        status(&mut self.conn, chat, "waiting").await?;
        Ok((began - posted, prompted - posted))
    }

    pub(super) async fn end(self) -> Result<()> {
        for replica in [self.a, self.b] {
            replica.shutdown.request();
            replica.shutdown.request();
            replica.work.await.context("a worker's task broke off")?;
            replica.transport.close(PATIENCE).await.context("a transport did not end")?;
        }
        Ok(())
    }

    async fn noted(&mut self, expected: Noted) -> Result<Instant> {
        let noted = timeout(PATIENCE, self.noted.recv()).await;
        let (noted, at) = noted.context("B does not start the chat")?.context("B has ended")?;
        ensure!(noted == expected, "B noted {noted:?} and not {expected:?}");
        Ok(at)
    }
}

impl Replica {
    /// Starts a worker with a transport and a pool of its own, and waits until it is idle.
    async fn start(
        database: &TestDatabase,
        name: &str,
        capacity: u32,
        runner: impl Answers,
    ) -> Result<Self> {
        let url = database.url();
        let transport = PgTransport::start(url, &PgTransportOptions::DEFAULT)?;
        let store = PgStore::new(musterbeat_db::connect(url, &PoolLimits::default()).await?);
        let publish: Arc<dyn Publish> = Arc::new(transport.clone());
        let times = LeaseTimes::DEFAULT;
        let ports = Ports {
            leases: Arc::new(store.clone()),
            beats: Arc::new(PgBeats::new(url, times.beat_interval())?),
            runs: Arc::new(store.clone()),
            queue: Arc::new(store.clone()),
            publish: Arc::clone(&publish),
            watch: Arc::new(transport.clone()),
            clock: Arc::new(SystemClock::default()),
        };
        let id = WorkerId::new(Uuid::now_v7());
        let release = env!("CARGO_PKG_VERSION").to_owned();
        let lease =
            Lease { worker: id, name: name.to_owned(), advertise_url: None, release, capacity };
        let options =
            WorkerOptions { poll_interval: POLL_INTERVAL, times, ..WorkerOptions::new(lease) };
        let chats = Chats::new(ChatPorts {
            store: Arc::new(store.clone()),
            reader: Arc::new(store.clone()),
            publish,
            watch: Arc::new(transport.clone()),
        });
        let serving = Serving { runner: runner.over(chats), capacity: capacity as usize };
        let shutdown = Shutdown::default();
        let parts = PartStreams::default();
        let worker = Worker::new(ports, vec![serving], parts, options, shutdown.clone());
        let work = tokio::spawn(worker.run());
        let watched = transport.clone();
        until(&format!("notices arrive at {name}"), PATIENCE, async || {
            let served = 0 < watched.watchers(Topic::Pending) && watched.is_confirmed();
            Ok(served.then_some(()))
        })
        .await?;
        let mut conn = database.connect().await?;
        until(&format!("{name} works"), PATIENCE, async || {
            let query = "select 1 from worker_leases where name = $1";
            let lease = sqlx::query(query).bind(name).fetch_optional(&mut conn).await;
            Ok(lease.context("failed to read a lease")?.map(drop))
        })
        .await?;
        Ok(Self { worker: id, store, transport, shutdown, work })
    }
}

/// Makes the runner of a replica.
trait Answers {
    fn over(self, chats: Chats) -> Arc<dyn Runner>;
}

/// Answers nothing until it is stopped.
struct Endless;

#[async_trait]
impl ChatRunner for Endless {
    async fn turn(&self, _: ChatTurn, context: Arc<dyn ChatContext>) -> TurnEnd {
        context.stopped().await;
        TurnEnd::Stopped(vec![])
    }
}

impl Answers for Endless {
    fn over(self, chats: Chats) -> Arc<dyn Runner> {
        Arc::new(ChatRuns::new(chats, Arc::new(self)))
    }
}

/// Notes when it begins, and has `inner` do the work.
struct Noting<R> {
    inner: R,
    notes: Notes,
}

impl Answers for Noting<Echo> {
    fn over(self, chats: Chats) -> Arc<dyn Runner> {
        let notes = self.notes.clone();
        Arc::new(Noting { inner: ChatRuns::new(chats, Arc::new(self)), notes })
    }
}

#[async_trait]
impl ChatRunner for Noting<Echo> {
    async fn turn(&self, turn: ChatTurn, context: Arc<dyn ChatContext>) -> TurnEnd {
        // Nobody reads the notes any more when the benchmark is over.
        let _ = self.notes.send((Noted::Prompted, Instant::now()));
        self.inner.turn(turn, context).await
    }
}

#[async_trait]
impl Runner for Noting<ChatRuns> {
    fn kind(&self) -> RunKind {
        self.inner.kind()
    }

    async fn run(&self, run: Run, context: Arc<dyn RunContext>) -> Outcome {
        let _ = self.notes.send((Noted::Began, Instant::now()));
        self.inner.run(run, context).await
    }

    fn changed(&self, run: RunId, owner: OwnerId) {
        self.inner.changed(run, owner);
    }
}

fn new_chat() -> Result<NewChat> {
    let turn = Turn { content: Content::text("Are you there?")?, model: None, created_by: None };
    let owner = OwnerId::new(Uuid::from_u128(1));
    Ok(NewChat::new(ChatId::new(Uuid::now_v7()), owner, Title::new("woken")?, turn))
}

/// Waits until the run of a chat stands in `status`.
async fn status(conn: &mut PgConnection, chat: ChatId, status: &str) -> Result<()> {
    until(&format!("the chat is {status}"), PATIENCE, async || {
        let query = "select 1 from runs where run_id = $1 and status = $2::run_status";
        let run = sqlx::query(query).bind(chat.uuid()).bind(status).fetch_optional(&mut *conn);
        Ok(run.await.context("failed to read a run")?.map(drop))
    })
    .await
}
