//! Settings, from four sources: defaults < `musterbeat.toml` < `MUSTERBEAT_*` < flags.
//!
//! An unknown key or a bad value is an error that names its source.

mod agent;
mod choices;
mod environment;
mod secret;

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use axum::http::Uri;
use figment::providers::{Format, Toml};
use figment::{Figment, Provider};
use musterbeat_agent::guard::GuardTimes;
use musterbeat_agent::mcp::McpServer;
use musterbeat_agent::providers::ProviderKind;
use musterbeat_core::chat::SubagentPolicy;
use musterbeat_core::invalid::Invalid;
use musterbeat_core::lease::LeaseTimes;
use musterbeat_core::prebuild::Limits;
use musterbeat_embedded::Source;
use musterbeat_engine::chat::AwaitTimes;
use musterbeat_engine::metadata::MetadataOptions;
use musterbeat_engine::prebuild;
use musterbeat_engine::worker;
use musterbeat_provision::CommandLimits;
use musterbeat_pubsub::PgTransportOptions;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Deserializer, de};

pub use self::agent::{DEFAULT_PROVIDER, ProviderSettings};
pub use self::choices::{GitHost, GitProviderKind, ProvisionerChoice, RunnerChoice};
pub use self::secret::KeyFile;

use self::environment::Environment;
use self::secret::some_secret;

/// File that is read when no other is named; it need not be there.
pub const FILE: &str = "musterbeat.toml";

/// A shorter pause between looks for work would only load the database.
const POLL_INTERVAL_MIN: Duration = Duration::from_millis(10);

/// A shorter patience would only make connections anew, or ask again and again.
const PATIENCE_MIN: Duration = Duration::from_millis(100);

/// A shorter secret is guessed; 16 random bytes are not.
const SECRET_BYTES_MIN: usize = 16;

/// Everything that can be set.
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Address to listen on; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Folder for what the server keeps, above all its own PostgreSQL.
    pub data_dir: PathBuf,
    /// PostgreSQL to use instead of an own one.
    pub database_url: Option<SecretString>,
    /// Where an own PostgreSQL's binaries come from.
    #[serde(deserialize_with = "from_text")]
    pub postgres: Source,
    /// Where other replicas reach this one.
    pub advertise_url: Option<String>,
    /// What all replicas know and nobody else, to bring each other the parts of answers.
    #[serde(deserialize_with = "some_secret")]
    pub cluster_secret: Option<SecretString>,
    /// Serve without tokens, on loopback only.
    pub dev: bool,
    /// Who answers chats.
    #[serde(deserialize_with = "from_text")]
    pub runner: RunnerChoice,
    /// Where the model is that the runner `agent` asks by default.
    pub model_url: Option<String>,
    /// What speaks there.
    pub model_kind: ProviderKind,
    /// The key for it.
    #[serde(deserialize_with = "some_secret")]
    pub model_key: Option<SecretString>,
    /// A file that holds the key for it.
    pub model_key_file: Option<KeyFile>,
    /// What it calls the model that chats get which name none.
    pub model: Option<String>,
    /// How many tokens that model's window holds; without it no history is summarised by itself.
    pub model_context: Option<NonZeroU32>,
    /// How long a model may take to begin an answer, before it is asked again.
    #[serde(with = "humantime_serde")]
    pub model_start_timeout: Duration,
    /// How long it may then be silent.
    #[serde(with = "humantime_serde")]
    pub model_silence_timeout: Duration,
    /// Further providers of models, for configurations that name them.
    pub provider: Vec<ProviderSettings>,
    /// Servers of tools.
    pub mcp: Vec<McpServer>,
    /// What precedes every history that the runner `agent` shows its model.
    pub agent_instructions: Option<String>,
    /// How deep a family of chats may be that a runner makes, unless its owner says; 0 for no
    /// children.
    pub subagent_depth_max: u32,
    /// Children of one family that are at work at once, unless its owner says.
    pub subagents_max: u32,
    /// How deep an owner may have a family be, at most.
    pub subagent_depth_limit: u32,
    /// Children of one family that an owner may have at work at once, at most.
    pub subagents_limit: u32,
    /// Time that the runner `echo` takes for a word.
    #[serde(with = "humantime_serde")]
    pub echo_pace: Duration,
    /// Who carries out builds; by default folders with an own PostgreSQL, else nobody.
    #[serde(deserialize_with = "some_from_text")]
    pub provisioner: Option<ProvisionerChoice>,
    /// Folder of the workspaces that are folders; by default `workspaces` in `data_dir`.
    pub workspaces_dir: Option<PathBuf>,
    /// Folder of their templates; by default `templates` in `data_dir`.
    pub templates_dir: Option<PathBuf>,
    /// Builds that this replica carries out at once.
    pub build_capacity: NonZeroU32,
    /// How long a program may take for a build.
    #[serde(with = "humantime_serde")]
    pub build_timeout: Duration,
    /// Longest time between two looks at the pools of prebuilds.
    #[serde(with = "humantime_serde")]
    pub reconcile_interval: Duration,
    /// Pause of a preset after a failed build; after several in a row, as many times as long.
    #[serde(with = "humantime_serde")]
    pub backoff_interval: Duration,
    /// After what time failed builds are forgotten.
    #[serde(with = "humantime_serde")]
    pub backoff_lookback: Duration,
    /// How long prebuilds that were deleted are remembered, with their builds and logs.
    #[serde(with = "humantime_serde")]
    pub prebuild_history: Duration,
    /// How long workspaces that were deleted and somebody's are remembered, likewise.
    #[serde(with = "humantime_serde")]
    pub workspace_history: Duration,
    /// Failed builds in a row after which a preset is given up; 0 for no end.
    pub failure_hard_limit: u32,
    /// Chats that this replica answers at once.
    pub capacity: NonZeroU32,
    /// Runs taken by one claim.
    pub claim_batch: NonZeroU32,
    /// Time between beats, each of which keeps the lease and calls the roll.
    #[serde(with = "humantime_serde")]
    pub beat_interval: Duration,
    /// How long the lease outlives its last beat: a dead replica's runs go elsewhere after it.
    #[serde(with = "humantime_serde")]
    pub lease_ttl: Duration,
    /// How long before the end of its lease a replica that cannot beat stops its runs.
    #[serde(with = "humantime_serde")]
    pub fence_margin: Duration,
    /// Deaths of its replica in a row after which a run goes to error.
    pub max_attempts: NonZeroU32,
    /// Whether each beat also stamps each run, for readers of `run_heartbeats`.
    pub stamp_runs: bool,
    /// Longest wait before looking for work.
    #[serde(with = "humantime_serde")]
    pub poll_interval: Duration,
    /// Shortest time between two statements that tell other replicas what changed.
    #[serde(with = "humantime_serde")]
    pub notify_min_interval: Duration,
    /// Silence of other replicas after which the connection that listens is examined.
    #[serde(with = "humantime_serde")]
    pub notify_silence: Duration,
    /// How long that may take before the connection is made anew.
    #[serde(with = "humantime_serde")]
    pub notify_probe_timeout: Duration,
    /// Time that runs get to finish when the server ends.
    #[serde(with = "humantime_serde")]
    pub drain_timeout: Duration,
    /// Connections to the database.
    pub pool_max: NonZeroU32,
    /// Turns that may wait in one chat's queue.
    pub queue_max: u32,
    /// Chats of one owner at work at once, over all replicas.
    pub owner_running_max: Option<NonZeroU32>,
    /// Chats at work at once, over all replicas.
    pub running_max: Option<NonZeroU32>,
    /// How long somebody waits for a chat who does not say.
    #[serde(with = "humantime_serde")]
    pub await_timeout: Duration,
    /// How often they look, whatever notices say.
    #[serde(with = "humantime_serde")]
    pub await_poll: Duration,
    /// Values of agents that are written at once.
    pub metadata_batch_max: NonZeroU32,
    /// Time from one write of agents' values to the next.
    #[serde(with = "humantime_serde")]
    pub metadata_flush_interval: Duration,
    /// Values of agents that may wait to be written; then new ones are refused.
    pub metadata_pending_max: NonZeroU32,
    /// Hosts of the branches that chats work on.
    pub git: Vec<GitHost>,
    /// Connections of clients at once.
    pub connections_max: NonZeroU32,
    /// Connections of one address at once.
    pub connections_per_address: NonZeroU32,
    /// Requests a second that one caller may send.
    pub rate_per_second: NonZeroU32,
    /// Requests that one caller may send at once.
    pub rate_burst: NonZeroU32,
}

const fn number(value: u32) -> NonZeroU32 {
    NonZeroU32::new(value).expect("a default is not zero")
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 7878)),
            data_dir: musterbeat_embedded::default_data_dir(),
            database_url: None,
            postgres: Source::Auto,
            advertise_url: None,
            cluster_secret: None,
            dev: false,
            runner: RunnerChoice::Echo,
            model_url: None,
            model_kind: ProviderKind::default(),
            model_key: None,
            model_key_file: None,
            model: None,
            model_context: None,
            model_start_timeout: GuardTimes::DEFAULT.first,
            model_silence_timeout: GuardTimes::DEFAULT.silence,
            provider: vec![],
            mcp: vec![],
            agent_instructions: None,
            subagent_depth_max: SubagentPolicy::DEFAULT.default.depth_max,
            subagents_max: SubagentPolicy::DEFAULT.default.at_work_max,
            subagent_depth_limit: SubagentPolicy::DEFAULT.bound.depth_max,
            subagents_limit: SubagentPolicy::DEFAULT.bound.at_work_max,
            // About the pace of a model, slow enough to see it stream.
            echo_pace: Duration::from_millis(50),
            provisioner: None,
            workspaces_dir: None,
            templates_dir: None,
            build_capacity: number(10),
            build_timeout: CommandLimits::default().time_max,
            reconcile_interval: prebuild::INTERVAL,
            backoff_interval: Limits::DEFAULT.backoff_interval,
            backoff_lookback: prebuild::LOOKBACK,
            prebuild_history: prebuild::PREBUILD_HISTORY,
            workspace_history: prebuild::WORKSPACE_HISTORY,
            failure_hard_limit: Limits::DEFAULT.failure_hard_limit.map_or(0, NonZeroU32::get),
            capacity: number(1_000),
            claim_batch: number(worker::CLAIM_BATCH),
            beat_interval: LeaseTimes::DEFAULT.beat_interval(),
            lease_ttl: LeaseTimes::DEFAULT.ttl(),
            fence_margin: LeaseTimes::DEFAULT.fence_margin(),
            max_attempts: number(musterbeat_core::run::ATTEMPTS_MAX),
            stamp_runs: false,
            poll_interval: worker::POLL_INTERVAL,
            notify_min_interval: PgTransportOptions::DEFAULT.min_interval,
            notify_silence: PgTransportOptions::DEFAULT.silence,
            notify_probe_timeout: PgTransportOptions::DEFAULT.probe_timeout,
            drain_timeout: worker::DRAIN_TIMEOUT,
            pool_max: number(10),
            queue_max: musterbeat_core::chat::QUEUE_MAX,
            owner_running_max: None,
            running_max: None,
            await_timeout: AwaitTimes::default().timeout,
            await_poll: AwaitTimes::default().poll,
            metadata_batch_max: number(5_000),
            metadata_flush_interval: MetadataOptions::DEFAULT.flush_interval,
            metadata_pending_max: number(25_000),
            git: vec![],
            // A follower's connection costs some tens of kilobytes: these fit into a small machine.
            connections_max: number(10_000),
            connections_per_address: number(1_000),
            rate_per_second: number(200),
            rate_burst: number(400),
        }
    }
}

impl Settings {
    /// Reads `file` if it is there, then the environment, then `flags`.
    ///
    /// # Errors
    /// Names the setting, what is wrong with it and where it was set. A file that was named
    /// by the user must be there.
    pub fn load(file: Option<&Path>, flags: impl Provider) -> anyhow::Result<Self> {
        let mut figment = Figment::new();
        let named = file.is_some();
        let file = file.unwrap_or(Path::new(FILE));
        anyhow::ensure!(
            !named || file.is_file(),
            "the settings file {} is not there",
            file.display()
        );
        if file.is_file() {
            // Exactly there: a file further up may be somebody else's.
            figment = figment.merge(Toml::file_exact(file));
            // By itself, since only what is no file may write a number as a text.
            figment.extract::<Self>().map_err(described)?;
        }
        let figment = figment.merge(Environment::new()).merge(flags);
        let settings: Self = figment.extract_lossy().map_err(described)?;
        settings.checked()
    }

    /// Checks what no setting shows by itself.
    ///
    /// # Errors
    /// Refuses `dev` on an address that others reach, a `poll_interval` that is no pause, a
    /// lease that leaves no room for a beat that fails, an `advertise_url` that nobody can call,
    /// and a `cluster_secret` that can be guessed.
    pub fn checked(self) -> anyhow::Result<Self> {
        anyhow::ensure!(
            !self.dev || self.listen.ip().is_loopback(),
            "`dev` serves without tokens and only on loopback, but `listen` is {}; \
             listen on 127.0.0.1 or leave `dev` out",
            self.listen
        );
        anyhow::ensure!(
            self.poll_interval >= POLL_INTERVAL_MIN,
            "`poll_interval` is {:?}, at least {POLL_INTERVAL_MIN:?} is allowed",
            self.poll_interval
        );
        for (name, time) in [
            ("notify_silence", self.notify_silence),
            ("notify_probe_timeout", self.notify_probe_timeout),
            ("await_timeout", self.await_timeout),
            ("await_poll", self.await_poll),
            ("metadata_flush_interval", self.metadata_flush_interval),
            ("reconcile_interval", self.reconcile_interval),
            ("build_timeout", self.build_timeout),
            ("model_start_timeout", self.model_start_timeout),
            ("model_silence_timeout", self.model_silence_timeout),
        ] {
            anyhow::ensure!(
                time >= PATIENCE_MIN,
                "`{name}` is {time:?}, at least {PATIENCE_MIN:?} is allowed"
            );
        }
        anyhow::ensure!(
            self.metadata_batch_max <= self.metadata_pending_max,
            "`metadata_batch_max` is {}, but no more than `metadata_pending_max`, {}, can wait",
            self.metadata_batch_max,
            self.metadata_pending_max
        );
        self.lease_times()?;
        self.cluster_checked()?;
        self.agent_checked()?;
        Ok(self)
    }

    fn cluster_checked(&self) -> anyhow::Result<()> {
        if let Some(url) = &self.advertise_url {
            let scheme =
                url.parse::<Uri>().ok().and_then(|uri| uri.scheme_str().map(str::to_owned));
            anyhow::ensure!(
                matches!(scheme.as_deref(), Some("http" | "https")) && !url.contains('?'),
                "`advertise_url` is {url:?}; write where other replicas reach this one, \
                 like http://10.0.0.7:7878"
            );
        }
        if let Some(secret) = &self.cluster_secret {
            anyhow::ensure!(
                secret.expose_secret().len() >= SECRET_BYTES_MIN,
                "`cluster_secret` is shorter than {SECRET_BYTES_MIN} bytes; \
                 `openssl rand -hex 32` makes one"
            );
        }
        Ok(())
    }

    /// Returns the folder of the workspaces that are folders.
    pub fn workspaces_folder(&self) -> PathBuf {
        self.workspaces_dir.clone().unwrap_or_else(|| self.data_dir.join("workspaces"))
    }

    /// Returns the folder of their templates.
    pub fn templates_folder(&self) -> PathBuf {
        self.templates_dir.clone().unwrap_or_else(|| self.data_dir.join("templates"))
    }

    /// Returns who carries out builds on this replica.
    ///
    /// Others may share its database, but only who has a PostgreSQL of its own is alone for sure.
    pub fn provisioner(&self) -> ProvisionerChoice {
        match &self.provisioner {
            Some(chosen) => chosen.clone(),
            None if self.database_url.is_none() => ProvisionerChoice::Directory,
            None => ProvisionerChoice::None,
        }
    }

    /// Returns how often the worker beats and how long its lease lasts.
    ///
    /// # Errors
    /// Names the time that does not fit the others.
    pub fn lease_times(&self) -> Result<LeaseTimes, Invalid> {
        LeaseTimes::new(self.beat_interval, self.lease_ttl, self.fence_margin)
    }
}

fn described(errors: figment::Error) -> anyhow::Error {
    let lines: Vec<String> = errors.into_iter().map(|error| error.to_string()).collect();
    anyhow::Error::msg(lines.join("\n"))
}

fn from_text<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: FromStr<Err: std::fmt::Display>,
    D: Deserializer<'de>,
{
    String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
}

fn some_from_text<'de, T, D>(deserializer: D) -> Result<Option<T>, D::Error>
where
    T: FromStr<Err: std::fmt::Display>,
    D: Deserializer<'de>,
{
    from_text(deserializer).map(Some)
}

#[cfg(test)]
mod tests;
