//! A binary of one's own: `cargo run --example own_runner -- postgres://localhost/musterbeat`

use std::sync::Arc;

use async_trait::async_trait;
use musterbeat_core::chat::{NewChat, Title};
use musterbeat_core::id::{ChatId, OwnerId};
use musterbeat_core::lease::LeaseTimes;
use musterbeat_core::message::{Content, NewMessage, Turn};
use musterbeat_core::port::{ChatContext, ChatRunner, ChatTurn, Reach, TurnEnd};
use musterbeat_db::{PgBeats, PgStore, PoolLimits, connect, migrate};
use musterbeat_engine::chat::{ChatPorts, ChatRuns, Chats};
use musterbeat_engine::parts::PartStreams;
use musterbeat_engine::shutdown::Shutdown;
use musterbeat_engine::worker::{Ports, Serving, Worker, WorkerOptions};
use musterbeat_pubsub::{PgTransport, PgTransportOptions};
use uuid::Uuid;

/// Answers in capitals.
struct Parrot;

#[async_trait]
impl ChatRunner for Parrot {
    async fn turn(&self, turn: ChatTurn, _context: Arc<dyn ChatContext>) -> TurnEnd {
        let question = turn.prompt.last().map(|message| message.content.to_text());
        let answer = Content::produced(&question.unwrap_or_default().to_uppercase());
        TurnEnd::Answer(vec![NewMessage::answer(answer, turn.model)])
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let url = std::env::args().nth(1).ok_or(anyhow::anyhow!("name a database: postgres://…"))?;
    let pool = connect(&url, &PoolLimits::default()).await?;
    migrate(&pool).await?;
    let store = Arc::new(PgStore::new(pool));
    let beats = Arc::new(PgBeats::new(&url, LeaseTimes::DEFAULT.beat_interval())?);
    let notices = Arc::new(PgTransport::start(&url, &PgTransportOptions::DEFAULT)?);
    let chats = Chats::new(ChatPorts::new(store.clone(), notices.clone()));
    let runner = Arc::new(ChatRuns::new(chats.clone(), Arc::new(Parrot)));
    let serving = vec![Serving { runner, capacity: 100 }];
    let (options, shutdown) = (WorkerOptions::named("example"), Shutdown::default());
    let ports = Ports::new(store, beats, notices);
    let worker = Worker::new(ports, serving, PartStreams::default(), options, shutdown.clone());
    let worker = tokio::spawn(worker.run());

    let (id, owner) = (ChatId::new(Uuid::now_v7()), OwnerId::new(Uuid::now_v7()));
    let content = Content::text("hello from a binary of one's own")?;
    let turn = Turn { content, model: None, created_by: Some(owner) };
    let reach = Reach::Of(owner);
    chats.create(NewChat::new(id, owner, Title::new("example")?, turn), reach).await?;
    println!("{}", chats.wait(id, reach, None).await?.text.unwrap_or_default());

    shutdown.request();
    Ok(worker.await?)
}
