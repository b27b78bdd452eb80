//! The wiring: database, store, notices, worker and HTTP, from start to end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use musterbeat_core::id::WorkerId;
use musterbeat_core::port::{ChatReader, ChatRunner, Lease, Publish, Watch};
use musterbeat_db::PgBeats;
use musterbeat_db::tokens::TokenKind;
use musterbeat_engine::chat::{AwaitTimes, ChatPorts, ChatRuns, Chats};
use musterbeat_engine::clock::SystemClock;
use musterbeat_engine::command::{Command, CommandLimits};
use musterbeat_engine::echo::Echo;
use musterbeat_engine::parts::{PartLimits, PartStreams};
use musterbeat_engine::shutdown::Shutdown;
use musterbeat_engine::worker::{Ports, Serving, Worker, WorkerOptions};
use musterbeat_pubsub::{PgTransport, PgTransportOptions};
use secrecy::{ExposeSecret, SecretString};
use tokio::net::TcpListener;
use tokio::task::{JoinError, JoinHandle};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::api::{self, FollowPorts, Followed};
use crate::app::App;
use crate::cluster::Cluster;
use crate::database::Database;
use crate::http::connections::{self, ConnectionLimits};
use crate::http::limits::{Rate, TIME_MAX};
use crate::readiness::Readiness;
use crate::revocation::Revocations;
use crate::settings::{RunnerChoice, Settings};
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
    notices: PgTransport,
    /// Cancelled when a task has ended without which the server is none.
    crippled: CancellationToken,
    worker: JoinHandle<()>,
    streams: JoinHandle<()>,
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
        let answers = chosen(&settings);
        Self::start_with_runner(settings, answers, shutdown).await
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
        let metrics = metrics::recorder()?;
        // First of all: a port that is taken should not cost the start of a database.
        let listener = TcpListener::bind(settings.listen).await.with_context(|| {
            format!("failed to listen on {}; set `listen` to a free address", settings.listen)
        })?;
        let address = listener.local_addr()?;
        let database = Database::open(&settings).await?;
        let admin_token = first_admin(&database, &settings).await?;

        let notices = transport(&settings, &database)?;
        let publish: Arc<dyn Publish> = Arc::new(notices.clone());
        let watch: Arc<dyn Watch> = Arc::new(notices.clone());
        let parts = PartStreams::new(PartLimits::default(), api::part_frame);
        let chat_reader: Arc<dyn ChatReader> = Arc::new(database.store.clone());
        let chats = chats(&settings, &database, &publish, &watch);
        let ports = ports(&settings, &database, &publish, &watch)?;
        let worker = worker(&settings, ports, &chats, answers, parts.clone(), shutdown.clone())?;
        let streams_end = CancellationToken::new();
        let cluster = Cluster::of(&settings)?;
        let followed = followed(&chat_reader, &watch, &parts, &cluster, &streams_end);
        let revocations = Revocations::new(database.store.clone(), Arc::clone(&watch));
        let app = App {
            chats,
            chat_reader,
            store: database.store.clone(),
            followed: followed.clone(),
            revocations: revocations.clone(),
            cluster,
            readiness: Readiness::of(database.store.clone()),
            publish,
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
        let router = api::router(app, rate);
        let http = connections::serve(listener, router, limits(&settings), http_end.clone());
        let announcement = announced(address, &database, &settings, admin_token.as_ref());
        let crippled = CancellationToken::new();
        Ok(Self {
            address,
            announcement,
            admin_token,
            shutdown,
            drain_timeout: settings.drain_timeout,
            database,
            notices,
            worker: essential(worker.run(), &crippled),
            streams: essential(attend(followed, revocations, streams_end.clone()), &crippled),
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
    /// the worker drains, open streams end, requests finish, changes are told, the database closes.
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
        self.streams_end.cancel();
        self.http_end.cancel();
        // Connections that do not end in time are dropped with their runtime.
        let served = joined(self.http, tokio::time::sleep(CLOSE_TIMEOUT)).await;
        let served = served.or_else(|failed| if failed.is_panic() { Err(failed) } else { Ok(()) });
        let kept = self.streams.await.and(self.upkeep.await);
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

/// Serves what all event streams need, until their end.
async fn attend(followed: Followed, revocations: Revocations, end: CancellationToken) {
    tokio::join!(followed.run(), revocations.run(end));
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

fn transport(settings: &Settings, database: &Database) -> anyhow::Result<PgTransport> {
    let options = PgTransportOptions {
        silence: settings.notify_silence,
        probe_timeout: settings.notify_probe_timeout,
        min_interval: settings.notify_min_interval,
        ..PgTransportOptions::DEFAULT
    };
    Ok(PgTransport::start(database.url.expose_secret(), &options)?)
}

fn followed(
    chats: &Arc<dyn ChatReader>,
    watch: &Arc<dyn Watch>,
    parts: &PartStreams,
    cluster: &Cluster,
    end: &CancellationToken,
) -> Followed {
    Followed::new(FollowPorts {
        chats: Arc::clone(chats),
        watch: Arc::clone(watch),
        parts: parts.clone(),
        cluster: cluster.clone(),
        end: end.clone(),
    })
}

fn chats(
    settings: &Settings,
    database: &Database,
    publish: &Arc<dyn Publish>,
    watch: &Arc<dyn Watch>,
) -> Chats {
    let ports = ChatPorts {
        store: Arc::new(database.store.clone()),
        publish: Arc::clone(publish),
        watch: Arc::clone(watch),
    };
    let times = AwaitTimes { timeout: settings.await_timeout, poll: settings.await_poll };
    Chats::new(ports).with_await_times(times)
}

fn ports(
    settings: &Settings,
    database: &Database,
    publish: &Arc<dyn Publish>,
    watch: &Arc<dyn Watch>,
) -> anyhow::Result<Ports> {
    let store = Arc::new(database.store.clone());
    let beats = PgBeats::new(database.url.expose_secret(), settings.beat_interval)?;
    Ok(Ports {
        leases: store.clone(),
        beats: Arc::new(beats),
        runs: store.clone(),
        queue: store,
        publish: Arc::clone(publish),
        watch: Arc::clone(watch),
        clock: Arc::new(SystemClock::default()),
    })
}

/// Returns who answers chats as the settings say.
fn chosen(settings: &Settings) -> Arc<dyn ChatRunner> {
    match &settings.runner {
        RunnerChoice::Echo => Arc::new(Echo { pace: settings.echo_pace }),
        RunnerChoice::Command(program) => Arc::new(Command {
            program: program.clone(),
            args: vec![],
            limits: CommandLimits::default(),
        }),
    }
}

fn worker(
    settings: &Settings,
    ports: Ports,
    chats: &Chats,
    answers: Arc<dyn ChatRunner>,
    parts: PartStreams,
    shutdown: Shutdown,
) -> anyhow::Result<Worker> {
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
        times: settings.lease_times()?,
        claim_batch: settings.claim_batch.get(),
        poll_interval: settings.poll_interval,
        drain_timeout: settings.drain_timeout,
        attempts_max: settings.max_attempts.get(),
        stamp_runs: settings.stamp_runs,
    };
    Ok(Worker::new(ports, vec![serving], parts, options, shutdown))
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
