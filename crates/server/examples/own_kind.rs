//! A kind of run of one's own: nightly reports, beside chats or without them.
//!
//! `cargo run --example own_kind -- postgres://localhost/musterbeat`

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use musterbeat_core::id::{OwnerId, RunId};
use musterbeat_core::lease::LeaseTimes;
use musterbeat_core::port::{Reach, RunContext, Runner};
use musterbeat_core::run::{NewRun, Outcome, Run, RunKind, RunStatus};
use musterbeat_db::{PgBeats, PgStore, PoolLimits, connect, migrate};
use musterbeat_engine::parts::PartStreams;
use musterbeat_engine::runs::Runs;
use musterbeat_engine::shutdown::Shutdown;
use musterbeat_engine::worker::{Ports, Serving, Worker, WorkerOptions};
use musterbeat_pubsub::{PgTransport, PgTransportOptions};
use uuid::Uuid;

/// Builds a nightly report, page by page.
struct NightlyReport;

#[async_trait]
impl Runner for NightlyReport {
    fn kind(&self) -> RunKind {
        RunKind::new("nightly-report").expect("the name is plain")
    }

    async fn run(&self, run: Run, context: Arc<dyn RunContext>) -> Outcome {
        for page in 1..=3 {
            // Asked before each side effect: somebody else may own the run by now.
            if context.stop_cause().is_some() {
                return Outcome::Stopped;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
            println!("page {page} of report {}", run.id);
        }
        Outcome::Done
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let url = std::env::args().nth(1).context("name a database: postgres://…")?;
    let pool = connect(&url, &PoolLimits::default()).await?;
    migrate(&pool).await?;
    let store = Arc::new(PgStore::new(pool));
    let notices = Arc::new(PgTransport::start(&url, &PgTransportOptions::DEFAULT)?);
    let beats = Arc::new(PgBeats::new(&url, LeaseTimes::DEFAULT.beat_interval())?);
    let ports = Ports::new(store.clone(), beats, notices.clone());
    let serving = vec![Serving { runner: Arc::new(NightlyReport), capacity: 4 }];
    let (options, shutdown) = (WorkerOptions::named("example"), Shutdown::default());
    let worker = Worker::new(ports, serving, PartStreams::default(), options, shutdown.clone());
    let worker = tokio::spawn(worker.run());

    let runs = Runs::new(store, notices);
    let (id, owner) = (RunId::new(Uuid::now_v7()), OwnerId::new(Uuid::now_v7()));
    let kind = NightlyReport.kind();
    runs.submit(&NewRun { id, kind, owner }).await?;
    loop {
        let run = runs.get(id, Reach::Of(owner)).await?.context("it was submitted")?;
        if run.status == RunStatus::Waiting {
            println!("report {id} is done");
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    shutdown.request();
    worker.await?;
    Ok(())
}
