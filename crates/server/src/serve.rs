//! The wiring: database, store, notices, worker and HTTP, from start to end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use musterbeat_core::id::WorkerId;
use musterbeat_core::port::{ChatRunner, ChatStore, Lease, Publish, Watch};
use musterbeat_db::tokens::TokenKind;
use musterbeat_engine::chat::{ChatRuns, Chats};
use musterbeat_engine::echo::Echo;
use musterbeat_engine::parts::{PartLimits, PartStreams};
use musterbeat_engine::shutdown::Shutdown;
use musterbeat_engine::worker::{Ports, Serving, Worker, WorkerOptions};
use musterbeat_pubsub::MemoryTransport;
use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::api;
use crate::app::App;
use crate::database::Database;
use crate::http::connections::{self, ConnectionLimits};
use crate::http::limits::{Rate, TIME_MAX};
use crate::settings::{RunnerChoice, Settings};
use crate::{announce, identity, metrics};

/// How long requests may go on once everything else has ended.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// A follower's connection costs some tens of kilobytes: this many fit into a small machine.
const CONNECTIONS: ConnectionLimits =
    ConnectionLimits { connections_max: 10_000, head_time_max: TIME_MAX };

/// How often what is idle is forgotten, and histograms are tidied.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(10);

/// A server that is up.
pub struct Server {
    address: SocketAddr,
    announcement: String,
    admin_token: Option<SecretString>,
    shutdown: Shutdown,
    database: Database,
    worker: JoinHandle<()>,
    http: JoinHandle<()>,
    upkeep: JoinHandle<()>,
    streams_end: CancellationToken,
    http_end: CancellationToken,
}

impl Server {
    /// Starts everything that `settings` ask for; it ends when `shutdown` is requested.
    ///
    /// # Errors
    /// Says what could not be started, and what to do; what had been started is stopped.
    pub async fn start(settings: Settings, shutdown: Shutdown) -> anyhow::Result<Self> {
        let metrics = metrics::recorder()?;
        // First of all: a port that is taken should not cost the start of a database.
        let listener = TcpListener::bind(settings.listen).await.with_context(|| {
            format!("failed to listen on {}; set `listen` to a free address", settings.listen)
        })?;
        let address = listener.local_addr()?;
        let database = Database::open(&settings).await?;
        let admin_token = first_admin(&database, &settings).await?;

        let notices = Arc::new(MemoryTransport::default());
        let publish: Arc<dyn Publish> = notices.clone();
        let watch: Arc<dyn Watch> = notices;
        let parts = PartStreams::new(PartLimits::default());
        let chat_store: Arc<dyn ChatStore> = Arc::new(database.store.clone());
        let chats = Chats::new(Arc::clone(&chat_store), Arc::clone(&publish));
        let ports = Ports {
            leases: Arc::new(database.store.clone()),
            runs: Arc::new(database.store.clone()),
            publish,
            watch: Arc::clone(&watch),
        };
        let worker = worker(&settings, ports, &chats, parts.clone(), shutdown.clone());
        let streams_end = CancellationToken::new();
        let app = App {
            chats,
            chat_store,
            store: database.store.clone(),
            watch,
            parts,
            shutdown: shutdown.clone(),
            streams_end: streams_end.clone(),
            metrics: metrics.clone(),
            dev: settings.dev,
        };
        let rate = Arc::new(Rate::new(settings.rate_per_second, settings.rate_burst));
        let http_end = CancellationToken::new();
        let upkeep = tokio::spawn(upkeep(Arc::clone(&rate), metrics, http_end.clone()));
        let http =
            connections::serve(listener, api::router(app, rate), CONNECTIONS, http_end.clone());
        let http = tokio::spawn(http);
        let url = format!("http://{address}");
        let described = database.describe(&settings);
        let announcement =
            announce::text(&url, described.as_deref(), &settings, admin_token.as_ref());
        Ok(Self {
            address,
            announcement,
            admin_token,
            shutdown,
            database,
            worker: tokio::spawn(worker.run()),
            http,
            upkeep,
            streams_end,
            http_end,
        })
    }

    /// Returns where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns what a new user should read.
    pub fn announcement(&self) -> &str {
        &self.announcement
    }

    /// Returns the admin's token if this start made one.
    pub fn admin_token(&self) -> Option<&SecretString> {
        self.admin_token.as_ref()
    }

    /// Waits until the end was asked for and everything has ended, in this order:
    /// the worker drains, open streams end, requests finish, the database closes.
    ///
    /// It also ends when its own PostgreSQL has: whoever supervises it starts both again.
    ///
    /// # Errors
    /// Says what did not end well; the rest was ended all the same.
    pub async fn ended(mut self) -> anyhow::Result<()> {
        let lost = tokio::select! {
            () = self.shutdown.requested() => Ok(()),
            () = self.database.lost() => {
                self.shutdown.request();
                self.shutdown.request();
                Err(anyhow::anyhow!("the own PostgreSQL ended by itself; `postgres.log` in the data folder says why"))
            }
        };
        // Followers see the end of the turns that the worker still finishes.
        let worked = finished(self.worker.await);
        self.streams_end.cancel();
        self.http_end.cancel();
        let served = match tokio::time::timeout(CLOSE_TIMEOUT, self.http).await {
            Ok(joined) => finished(joined),
            // Connections that do not end in time are dropped with their runtime.
            Err(_) => Ok(()),
        };
        let kept = finished(self.upkeep.await);
        let closed = self.database.close().await;
        lost.and(closed).and(worked).and(served).and(kept)
    }
}

fn finished<T>(joined: Result<T, JoinError>) -> anyhow::Result<T> {
    joined.context("a task of the server panicked")
}

async fn upkeep(
    rate: Arc<Rate>,
    metrics: metrics_exporter_prometheus::PrometheusHandle,
    end: CancellationToken,
) {
    let mut tick = tokio::time::interval(UPKEEP_INTERVAL);
    loop {
        tokio::select! {
            () = end.cancelled() => return,
            _ = tick.tick() => {}
        }
        rate.forget_idle();
        metrics.run_upkeep();
    }
}

fn worker(
    settings: &Settings,
    ports: Ports,
    chats: &Chats,
    parts: PartStreams,
    shutdown: Shutdown,
) -> Worker {
    let answers: Arc<dyn ChatRunner> = match settings.runner {
        RunnerChoice::Echo => Arc::new(Echo { pace: settings.echo_pace }),
    };
    let serving = Serving {
        runner: Arc::new(ChatRuns::new(chats.clone(), answers)),
        capacity: settings.capacity.get() as usize,
    };
    let options = WorkerOptions {
        lease: Lease {
            worker: WorkerId::new(Uuid::now_v7()),
            name: host_name(),
            advertise_url: settings.advertise_url.clone(),
            release: env!("CARGO_PKG_VERSION").to_owned(),
            capacity: settings.capacity.get(),
        },
        claim_batch: settings.claim_batch.get(),
        poll_interval: settings.poll_interval,
        drain_timeout: settings.drain_timeout,
    };
    Worker::new(ports, vec![serving], parts, options, shutdown)
}

/// Makes the admin's token at the first start.
async fn first_admin(
    database: &Database,
    settings: &Settings,
) -> anyhow::Result<Option<SecretString>> {
    if settings.dev || database.store.admin_token_exists().await? {
        return Ok(None);
    }
    let minted = identity::mint(&database.store, TokenKind::Admin, None, "first start").await?;
    Ok(Some(minted.text))
}

fn host_name() -> String {
    std::env::var("HOSTNAME").unwrap_or_else(|_| "musterbeat".to_owned())
}
