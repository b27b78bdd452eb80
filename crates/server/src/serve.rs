//! A server from start to end: database, notices, worker and HTTP.

mod agent;
mod provisioner;
mod wiring;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use musterbeat_core::port::ChatRunner;
use musterbeat_db::tokens::TokenKind;
use musterbeat_engine::shutdown::Shutdown;
use musterbeat_pubsub::PgTransport;
use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;

pub(crate) use self::agent::AgentParts;
use self::wiring::Wiring;
use crate::api;
use crate::database::Database;
use crate::http::connections::{self, ConnectionLimits};
use crate::http::limits::{Rate, TIME_MAX};
use crate::settings::Settings;
use crate::{announce, identity, metrics};

/// How long requests and the pool may take to end once everything else has.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// Time in which a follower takes something of what it is sent; there is a `ping` each 15 s.
const WRITE_TIME_MAX: Duration = Duration::from_mins(1);

/// How long the worker may take for its last writes, once it waits for its runs no longer.
const WORKER_END_TIMEOUT: Duration = Duration::from_secs(20);

/// How often what is idle is forgotten, and histograms are tidied.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(10);

/// A server that is up.
pub struct Server {
    address: SocketAddr,
    announcement: String,
    admin_token: Option<SecretString>,
    shutdown: Shutdown,
    drain_timeout: Duration,
    database: Database,
    /// None unless the runner is `agent`.
    agent: Option<AgentParts>,
    notices: PgTransport,
    /// Cancelled when a task has ended without which the server is none.
    crippled: CancellationToken,
    worker: JoinHandle<()>,
    /// Of event streams, of agents, of activity, of the refresher and of the reconciler.
    tasks: Vec<JoinHandle<()>>,
    batcher: JoinHandle<()>,
    batcher_end: CancellationToken,
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
        Self::start_with(settings, None, shutdown).await
    }

    /// Starts as [`start`](Self::start) does; `answers` takes the place of the runner in `settings`.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub async fn start_with_runner(
        settings: Settings,
        answers: Arc<dyn ChatRunner>,
        shutdown: Shutdown,
    ) -> anyhow::Result<Self> {
        Self::start_with(settings, Some(answers), shutdown).await
    }

    async fn start_with(
        settings: Settings,
        answers: Option<Arc<dyn ChatRunner>>,
        shutdown: Shutdown,
    ) -> anyhow::Result<Self> {
        let metrics = metrics::recorder()?;
        // First of all: a port that is taken should not cost the start of a database.
        let listener = TcpListener::bind(settings.listen).await.with_context(|| {
            format!("failed to listen on {}; set `listen` to a free address", settings.listen)
        })?;
        let address = listener.local_addr()?;
        let database = Database::open(&settings).await?;
        let admin_token = first_admin(&database, &settings).await?;

        let notices = wiring::transport(&settings, &database)?;
        let wiring = Wiring::of(&settings, &database, &notices, shutdown.clone())?;
        let worker = wiring.worker(answers.unwrap_or_else(|| wiring.runner()))?;
        let batcher = wiring.batcher();
        let app = wiring.app(&batcher, metrics.clone())?;
        let streams_end = wiring.streams_end.clone();
        let crippled = CancellationToken::new();
        let reconciler = wiring.reconciler()?;
        let batcher_end = CancellationToken::new();
        let tasks = vec![
            essential(app.followed.clone().run(), &crippled),
            essential(app.revocations.clone().run(streams_end.clone()), &crippled),
            essential(app.agents.clone().run(streams_end.clone()), &crippled),
            essential(app.agent_tokens.clone().run(streams_end.clone()), &crippled),
            essential(wiring.activity.clone().run(batcher_end.clone()), &crippled),
            essential(app.refresher.clone().run(shutdown.clone()), &crippled),
            essential(reconciler.run(shutdown.drain()), &crippled),
        ];
        let batcher_ended = batcher_end.clone();
        // It says itself what it could not save.
        let batcher = async move {
            let _unsaved = batcher.run(batcher_ended).await;
        };
        let (per_second, burst) = (settings.rate_per_second, settings.rate_burst);
        let rate = Arc::new(Rate::new(per_second, burst, app.agent_tokens.clone()));
        let http_end = CancellationToken::new();
        let upkeep = tokio::spawn(upkeep(Arc::clone(&rate), metrics, http_end.clone()));
        let router = api::router(app, rate);
        let http = connections::serve(listener, router, limits(&settings), http_end.clone());
        let announcement = announced(address, &database, &settings, admin_token.as_ref());
        Ok(Self {
            address,
            announcement,
            admin_token,
            shutdown,
            drain_timeout: settings.drain_timeout,
            agent: wiring.agent.clone(),
            database,
            notices,
            worker: essential(worker.run(), &crippled),
            tasks,
            batcher: essential(batcher, &crippled),
            batcher_end,
            http: essential(http, &crippled),
            crippled,
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
    /// the worker drains, open streams end, requests finish, what agents reported is stored,
    /// changes are told, the database closes.
    ///
    /// It also ends when its own PostgreSQL has, or its worker: whoever supervises it starts all
    /// again. Each step has its time, so that a database that is silent does not hold it up.
    ///
    /// # Errors
    /// Says what did not end well; the rest was ended all the same.
    pub async fn ended(mut self) -> anyhow::Result<()> {
        let whole = tokio::select! {
            // Asked to end, parts end quickly, perhaps before this looks.
            biased;
            () = self.shutdown.requested() => Ok(()),
            () = self.database.lost() => {
                Err(anyhow!("the own PostgreSQL ended by itself; `postgres.log` in the data folder says why"))
            }
            () = self.crippled.cancelled() => Err(anyhow!("a part of the server ended by itself")),
        };
        if whole.is_err() {
            self.shutdown.request();
            self.shutdown.request();
        }
        let patience = async {
            tokio::select! {
                () = self.shutdown.urged() => {}
                () = tokio::time::sleep(self.drain_timeout) => {}
            }
            tokio::time::sleep(WORKER_END_TIMEOUT).await;
        };
        // Followers see the end of the turns that the worker still finishes.
        let worked = joined(self.worker, patience).await.context("the worker did not end well");
        if let Some(agent) = &self.agent {
            // No turn is left that would call their tools.
            agent.mcp.close().await;
        }
        self.streams_end.cancel();
        self.http_end.cancel();
        // Connections that do not end in time are dropped with their runtime.
        let served = joined(self.http, tokio::time::sleep(CLOSE_TIMEOUT)).await;
        let served = served.or_else(|failed| if failed.is_panic() { Err(failed) } else { Ok(()) });
        // Nobody reports any more: what was taken is stored, within its time.
        self.batcher_end.cancel();
        let mut kept = self.upkeep.await.and(self.batcher.await);
        for task in self.tasks {
            kept = kept.and(task.await);
        }
        // What it could not tell others find when they look; the database may be away.
        if let Err(error) = self.notices.close(CLOSE_TIMEOUT).await {
            tracing::warn!(error = &error as &dyn std::error::Error, "changes were left untold");
        }
        let closed = self.database.close(CLOSE_TIMEOUT).await;
        whole.and(worked).and(closed).and(served.and(kept).context("a task panicked"))
    }
}

fn announced(
    address: SocketAddr,
    database: &Database,
    settings: &Settings,
    admin_token: Option<&SecretString>,
) -> String {
    let described = database.describe(settings);
    announce::text(&format!("http://{address}"), described.as_deref(), settings, admin_token)
}

/// Starts a task; `crippled` is cancelled when it ends, even by a panic.
fn essential(
    task: impl Future<Output = ()> + Send + 'static,
    crippled: &CancellationToken,
) -> JoinHandle<()> {
    let ended = crippled.clone().drop_guard();
    tokio::spawn(async move {
        let _ended = ended;
        task.await;
    })
}

/// Waits for a task until `patience` has ended, which aborts it.
async fn joined(
    mut task: JoinHandle<()>,
    patience: impl Future<Output = ()>,
) -> Result<(), JoinError> {
    tokio::select! {
        joined = &mut task => return joined,
        () = patience => task.abort(),
    }
    task.await
}

fn limits(settings: &Settings) -> ConnectionLimits {
    let limits = ConnectionLimits {
        connections: settings.connections_max.get() as usize,
        per_address: settings.connections_per_address.get() as usize,
        head_time: TIME_MAX,
        write_time: WRITE_TIME_MAX,
    };
    limits.within_files()
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

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::*;

    #[tokio::test]
    async fn essential_task_that_panics_cripples_the_server() {
        let crippled = CancellationToken::new();
        let task = essential(async { panic!("a fault of the test") }, &crippled);
        crippled.cancelled().await;
        assert!(joined(task, pending()).await.unwrap_err().is_panic());
    }

    #[tokio::test]
    async fn task_that_never_ends_is_aborted_when_patience_does() {
        let task = tokio::spawn(pending());
        assert!(joined(task, async {}).await.unwrap_err().is_cancelled());
    }
}
