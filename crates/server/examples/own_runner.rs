//! A binary of one's own: a chat runner, wired to a database by the library crates.
//!
//! `cargo run --example own_runner -- postgres://localhost/musterbeat`

use std::sync::Arc;

use anyhow::Context;
use async_trait::async_trait;
use musterbeat_core::chat::{NewChat, Title};
use musterbeat_core::id::{ChatId, OwnerId, WorkerId};
use musterbeat_core::lease::LeaseTimes;
use musterbeat_core::message::{Content, NewMessage, Turn};
use musterbeat_core::port::{
    ChatRunner, ChatStore, ChatTurn, Interest, Lease, Reach, RunContext, Topic, TurnEnd, Watch,
};
use musterbeat_core::run::RunStatus;
use musterbeat_db::{PgBeats, PgStore, PoolLimits, connect, migrate};
use musterbeat_engine::chat::{ChatRuns, Chats};
use musterbeat_engine::clock::SystemClock;
use musterbeat_engine::parts::PartStreams;
use musterbeat_engine::shutdown::Shutdown;
use musterbeat_engine::worker::{Ports, Serving, Worker, WorkerOptions};
use musterbeat_pubsub::{PgTransport, PgTransportOptions};
use uuid::Uuid;

/// Answers in capitals.
struct Parrot;

#[async_trait]
impl ChatRunner for Parrot {
    async fn turn(&self, turn: ChatTurn, _context: Arc<dyn RunContext>) -> TurnEnd {
        let question = turn.prompt.last().map(|message| message.content.to_text());
        let answer = Content::produced(&question.unwrap_or_default().to_uppercase());
        TurnEnd::Answer(vec![NewMessage::answer(answer, turn.model)])
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let url = std::env::args().nth(1).context("name a database: postgres://…")?;
    let pool = connect(&url, &PoolLimits::default()).await?;
    migrate(&pool).await?;
    let store = Arc::new(PgStore::new(pool));
    let notices = Arc::new(PgTransport::start(&url, &PgTransportOptions::DEFAULT)?);
    let shutdown = Shutdown::default();

    let chats = Chats::new(store.clone(), notices.clone());
    let ports = Ports {
        leases: store.clone(),
        beats: Arc::new(PgBeats::new(&url, LeaseTimes::DEFAULT.beat_interval())?),
        runs: store.clone(),
        queue: store.clone(),
        publish: notices.clone(),
        watch: notices.clone(),
        clock: Arc::new(SystemClock::default()),
    };
    let runner = Arc::new(ChatRuns::new(chats.clone(), Arc::new(Parrot)));
    let serving = vec![Serving { runner, capacity: 100 }];
    let options = WorkerOptions::new(lease());
    let worker = Worker::new(ports, serving, PartStreams::default(), options, shutdown.clone());
    let worker = tokio::spawn(worker.run());

    let id = ChatId::new(Uuid::now_v7());
    let mut changes = notices.watch(Topic::Chat, Interest::Ids([id.uuid()].into())).await?;
    chats.create(new_chat(id)?).await?;
    loop {
        changes.recv().await;
        let changes =
            store.changes(id, Reach::Everything, None).await?.context("it was created")?;
        if changes.chat.status == RunStatus::Waiting {
            let answer = changes.messages.last().context("it was answered")?;
            println!("{}", answer.content.to_text());
            break;
        }
    }
    shutdown.request();
    worker.await?;
    Ok(())
}

fn new_chat(id: ChatId) -> anyhow::Result<NewChat> {
    let content = Content::text("hello from a binary of one's own")?;
    Ok(NewChat {
        id,
        owner: OwnerId::new(Uuid::now_v7()),
        workspace: None,
        title: Title::new("example")?,
        turn: Turn { content, model: None, created_by: None },
    })
}

fn lease() -> Lease {
    Lease {
        worker: WorkerId::new(Uuid::now_v7()),
        name: "example".to_owned(),
        advertise_url: None,
        release: "example".to_owned(),
        capacity: 100,
    }
}
