//! How the crates are put together, as the settings say.

use std::num::NonZeroU32;
use std::sync::Arc;

use metrics_exporter_prometheus::PrometheusHandle;
use musterbeat_core::id::WorkerId;
use musterbeat_core::port::{ChatRunner, Lease, Publish, Watch};
use musterbeat_core::prebuild::{Limits, concurrency};
use musterbeat_db::{PgBeats, PgPrebuildLead};
use musterbeat_engine::activity::{ActivityOptions, ActivityTracker};
use musterbeat_engine::agents::{AgentPorts, Agents};
use musterbeat_engine::builds::BuildRuns;
use musterbeat_engine::chat::{AwaitTimes, ChatPorts, ChatRuns, Chats};
use musterbeat_engine::clock::SystemClock;
use musterbeat_engine::command::{Command, CommandLimits};
use musterbeat_engine::echo::Echo;
use musterbeat_engine::metadata::{MetadataBatcher, MetadataOptions};
use musterbeat_engine::parts::{PartLimits, PartStreams};
use musterbeat_engine::prebuild::{ReconcileOptions, ReconcilePorts, Reconciler};
use musterbeat_engine::refresh::{RefreshOptions, RefreshPorts, Refresher};
use musterbeat_engine::runs::Runs;
use musterbeat_engine::shutdown::Shutdown;
use musterbeat_engine::worker::{Ports, Serving, Worker, WorkerOptions};
use musterbeat_engine::workspaces::{WorkspacePorts, Workspaces};
use musterbeat_git::{HostConfig, HostError, Hosts, ProviderConfig};
use musterbeat_pubsub::{PgTransport, PgTransportOptions};
use secrecy::ExposeSecret;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::agent::AgentParts;
use super::provisioner;
use crate::agent_tokens::AgentTokens;
use crate::api::{self, FollowPorts, Followed};
use crate::app::App;
use crate::cluster::Cluster;
use crate::database::Database;
use crate::readiness::Readiness;
use crate::revocation::Revocations;
use crate::settings::{GitHost, GitProviderKind, RunnerChoice, Settings};

/// What everything is made from.
pub(super) struct Wiring<'a> {
    settings: &'a Settings,
    database: &'a Database,
    publish: Arc<dyn Publish>,
    watch: Arc<dyn Watch>,
    chats: Chats,
    parts: PartStreams,
    cluster: Cluster,
    /// None unless the runner is `agent`.
    pub(super) agent: Option<AgentParts>,
    shutdown: Shutdown,
    /// Learns which agents report and which chats are at work.
    pub(super) activity: ActivityTracker,
    /// Ends every event stream.
    pub(super) streams_end: CancellationToken,
}

impl<'a> Wiring<'a> {
    pub(super) fn of(
        settings: &'a Settings,
        database: &'a Database,
        notices: &PgTransport,
        shutdown: Shutdown,
    ) -> anyhow::Result<Self> {
        let publish: Arc<dyn Publish> = Arc::new(notices.clone());
        let watch: Arc<dyn Watch> = Arc::new(notices.clone());
        let ports = ChatPorts {
            store: Arc::new(database.store.clone()),
            reader: Arc::new(database.store.clone()),
            publish: Arc::clone(&publish),
            watch: Arc::clone(&watch),
        };
        let Settings { await_timeout, await_poll, .. } = *settings;
        let times = AwaitTimes { timeout: await_timeout, poll: await_poll };
        let agent = (settings.runner == RunnerChoice::Agent)
            .then(|| AgentParts::new(settings, &database.store));
        Ok(Self {
            settings,
            database,
            publish,
            watch,
            chats: Chats::new(ports).with_await_times(times),
            parts: PartStreams::new(PartLimits::default(), api::part_frame),
            cluster: Cluster::of(settings)?,
            agent: agent.transpose()?,
            shutdown,
            activity: ActivityTracker::new(
                Arc::new(database.store.clone()),
                ActivityOptions::DEFAULT,
            ),
            streams_end: CancellationToken::new(),
        })
    }

    /// Returns what requests work with; `batcher` takes what agents report.
    pub(super) fn app(
        &self,
        batcher: &MetadataBatcher,
        metrics: PrometheusHandle,
    ) -> anyhow::Result<App> {
        let store = &self.database.store;
        Ok(App {
            chats: self.chats.clone(),
            chat_reader: Arc::new(store.clone()),
            store: store.clone(),
            refresher: self.refresher()?,
            followed: self.followed(),
            agents: self.agents(batcher),
            workspaces: self.workspaces(),
            runs: Runs::new(Arc::new(store.clone()), Arc::clone(&self.publish)),
            agent: self.agent.clone(),
            agent_tokens: AgentTokens::new(store.clone(), Arc::clone(&self.watch)),
            revocations: Revocations::new(store.clone(), Arc::clone(&self.watch)),
            cluster: self.cluster.clone(),
            readiness: Readiness::of(store.clone()),
            publish: Arc::clone(&self.publish),
            watch: Arc::clone(&self.watch),
            parts: self.parts.clone(),
            shutdown: self.shutdown.clone(),
            streams_end: self.streams_end.clone(),
            metrics,
            dev: self.settings.dev,
        })
    }

    fn followed(&self) -> Followed {
        Followed::new(FollowPorts {
            chats: Arc::new(self.database.store.clone()),
            watch: Arc::clone(&self.watch),
            parts: self.parts.clone(),
            cluster: self.cluster.clone(),
            end: self.streams_end.clone(),
        })
    }

    pub(super) fn batcher(&self) -> MetadataBatcher {
        let settings = self.settings;
        let options = MetadataOptions {
            batch_max: settings.metadata_batch_max.get() as usize,
            flush_interval: settings.metadata_flush_interval,
            pending_max: settings.metadata_pending_max.get() as usize,
            ..MetadataOptions::DEFAULT
        };
        let store = Arc::new(self.database.store.clone());
        MetadataBatcher::new(store, Arc::clone(&self.publish), options)
    }

    fn agents(&self, batcher: &MetadataBatcher) -> Agents {
        let store = Arc::new(self.database.store.clone());
        let ports = AgentPorts {
            agents: store.clone(),
            metadata: store,
            publish: Arc::clone(&self.publish),
            watch: Arc::clone(&self.watch),
            batcher: batcher.clone(),
            activity: self.activity.clone(),
        };
        Agents::new(ports, api::metadata_frame)
    }

    fn workspaces(&self) -> Workspaces {
        let store = Arc::new(self.database.store.clone());
        Workspaces::new(WorkspacePorts {
            templates: store.clone(),
            workspaces: store.clone(),
            prebuilds: store,
            publish: Arc::clone(&self.publish),
        })
    }

    pub(super) fn reconciler(&self) -> anyhow::Result<Reconciler> {
        let settings = self.settings;
        let interval = settings.reconcile_interval;
        let ports = ReconcilePorts {
            lead: Arc::new(PgPrebuildLead::new(self.database.url.expose_secret(), interval)?),
            prebuilds: Arc::new(self.database.store.clone()),
            publish: Arc::clone(&self.publish),
            watch: Arc::clone(&self.watch),
        };
        let options = ReconcileOptions {
            interval,
            limits: Limits {
                backoff_interval: settings.backoff_interval,
                failure_hard_limit: NonZeroU32::new(settings.failure_hard_limit),
            },
            lookback: settings.backoff_lookback,
            prebuild_history: settings.prebuild_history,
            workspace_history: settings.workspace_history,
            concurrency: concurrency(settings.pool_max.get()),
        };
        Ok(Reconciler::new(ports, options))
    }

    fn refresher(&self) -> Result<Refresher, HostError> {
        let hosts = self.settings.git.iter().map(HostConfig::from);
        let ports = RefreshPorts {
            diffs: Arc::new(self.database.store.clone()),
            hosts: Arc::new(Hosts::new(hosts.collect())?),
            publish: Arc::clone(&self.publish),
            watch: Arc::clone(&self.watch),
        };
        Ok(Refresher::new(ports, RefreshOptions::DEFAULT))
    }

    /// Returns who answers chats as the settings say.
    pub(super) fn runner(&self) -> Arc<dyn ChatRunner> {
        match &self.settings.runner {
            RunnerChoice::Echo => Arc::new(Echo { pace: self.settings.echo_pace }),
            RunnerChoice::Agent => {
                let agent = self.agent.as_ref().expect("this runner's parts were made for it");
                agent.runner(self.settings)
            }
            RunnerChoice::Command(program) => Arc::new(Command {
                program: program.clone(),
                args: vec![],
                limits: CommandLimits::default(),
            }),
        }
    }

    pub(super) fn worker(&self, answers: Arc<dyn ChatRunner>) -> anyhow::Result<Worker> {
        let settings = self.settings;
        let runner = ChatRuns::new(self.chats.clone(), answers);
        let chats = Serving {
            runner: Arc::new(runner.with_activity(self.activity.clone())),
            capacity: settings.capacity.get() as usize,
        };
        let builds = provisioner::chosen(settings).map(|provisioner| Serving {
            runner: Arc::new(BuildRuns::new(
                Arc::new(self.database.store.clone()),
                provisioner,
                Arc::clone(&self.publish),
            )),
            capacity: settings.build_capacity.get() as usize,
        });
        let serving = [chats].into_iter().chain(builds).collect();
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
        let (parts, shutdown) = (self.parts.clone(), self.shutdown.clone());
        Ok(Worker::new(self.ports()?, serving, parts, options, shutdown))
    }

    fn ports(&self) -> anyhow::Result<Ports> {
        let store = Arc::new(self.database.store.clone());
        let url = self.database.url.expose_secret();
        let beats = PgBeats::new(url, self.settings.beat_interval)?;
        Ok(Ports {
            leases: store.clone(),
            beats: Arc::new(beats),
            runs: store.clone(),
            queue: store,
            publish: Arc::clone(&self.publish),
            watch: Arc::clone(&self.watch),
            clock: Arc::new(SystemClock::default()),
        })
    }
}

/// Starts what carries notices between replicas.
pub(super) fn transport(settings: &Settings, database: &Database) -> anyhow::Result<PgTransport> {
    let options = PgTransportOptions {
        silence: settings.notify_silence,
        probe_timeout: settings.notify_probe_timeout,
        min_interval: settings.notify_min_interval,
        ..PgTransportOptions::DEFAULT
    };
    Ok(PgTransport::start(database.url.expose_secret(), &options)?)
}

impl From<&GitHost> for HostConfig {
    fn from(host: &GitHost) -> Self {
        let GitHost { origin, provider, api, token, reviews } = host.clone();
        let provider = match provider {
            GitProviderKind::Github => ProviderConfig::GitHub { api, token, reviews },
            GitProviderKind::Local => ProviderConfig::Local,
        };
        Self { origin, provider }
    }
}

fn host_name() -> String {
    std::env::var("HOSTNAME").unwrap_or_else(|_| "musterbeat".to_owned())
}
