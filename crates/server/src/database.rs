//! The database of a server: a given one, or its own.

use std::time::Duration;

use anyhow::Context;
use musterbeat_core::backoff::Backoff;
use musterbeat_db::runs::Caps;
use musterbeat_db::{PgPool, PgStore, PoolLimits};
use musterbeat_embedded::{Durability, Options, Server};
use secrecy::{ExposeSecret, SecretString};

use crate::settings::Settings;

/// Name of the database inside an own PostgreSQL; `initdb` creates it.
pub(crate) const OWN_DATABASE: &str = "postgres";

/// How those who cannot do without an answer wait for a database that gives none.
pub(crate) const RETRY_BACKOFF: Backoff =
    Backoff { delay_first: Duration::from_millis(100), delay_max: Duration::from_secs(5) };

/// How often to look whether the own PostgreSQL still runs.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// A pool, and the PostgreSQL behind it when it is the server's own.
pub(crate) struct Database {
    pub(crate) store: PgStore,
    /// Where it is, with its password.
    pub(crate) url: SecretString,
    pool: PgPool,
    own: Option<Server>,
}

impl Database {
    /// Connects to the database that is set, or starts an own PostgreSQL; then migrates.
    pub(crate) async fn open(settings: &Settings) -> anyhow::Result<Self> {
        let own = match settings.database_url {
            Some(_) => None,
            None => Some(start_own(settings).await?),
        };
        let url = match (&own, &settings.database_url) {
            (Some(server), _) => server.url(OWN_DATABASE),
            (None, Some(url)) => url.expose_secret().to_owned(),
            (None, None) => unreachable!("a server is started when no URL is set"),
        };
        let (pool, store) = connect(&url, settings).await?;
        Ok(Self { store, url: url.into(), pool, own })
    }

    /// Connects as a guest: also to the PostgreSQL of a server that is running.
    pub(crate) async fn visit(settings: &Settings) -> anyhow::Result<Self> {
        if settings.database_url.is_none()
            && let Some(running) = musterbeat_embedded::running(&settings.data_dir)?
        {
            let url = running.url(OWN_DATABASE);
            let (pool, store) = connect(&url, settings).await?;
            return Ok(Self { store, url: url.into(), pool, own: None });
        }
        Self::open(settings).await
    }

    /// Says where the data is, in one line.
    pub(crate) fn describe(&self, settings: &Settings) -> Option<String> {
        let own = self.own.as_ref()?;
        let (version, origin) = (&own.binaries().version, &own.binaries().origin);
        let folder = settings.data_dir.display();
        Some(format!("own PostgreSQL {version} ({origin}), data in {folder}"))
    }

    /// Waits until the own PostgreSQL has ended by itself; for ever when there is none.
    pub(crate) async fn lost(&mut self) {
        let Some(own) = &mut self.own else {
            return std::future::pending().await;
        };
        let mut look = tokio::time::interval(LOOK_INTERVAL);
        while !own.has_ended() {
            look.tick().await;
        }
    }

    /// Closes the pool, then stops the own PostgreSQL.
    ///
    /// Connections that a silent database holds are dropped after `patience`.
    pub(crate) async fn close(self, patience: Duration) -> anyhow::Result<()> {
        let _ = tokio::time::timeout(patience, self.pool.close()).await;
        if let Some(own) = self.own {
            tokio::task::spawn_blocking(|| own.stop())
                .await?
                .context("failed to stop the own PostgreSQL")?;
        }
        Ok(())
    }
}

async fn connect(url: &str, settings: &Settings) -> anyhow::Result<(PgPool, PgStore)> {
    let limits = PoolLimits { connections_max: settings.pool_max.get(), ..PoolLimits::default() };
    let pool = musterbeat_db::connect(url, &limits).await?;
    musterbeat_db::migrate(&pool).await?;
    let caps = Caps { owner: settings.owner_running_max, deployment: settings.running_max };
    let store = PgStore::new(pool.clone())
        .with_queue_max(settings.queue_max)
        .with_chat_caps(caps)
        .with_subagents(settings.subagents());
    Ok((pool, store))
}

async fn start_own(settings: &Settings) -> anyhow::Result<Server> {
    let options = Options {
        source: settings.postgres.clone(),
        data_dir: settings.data_dir.clone(),
        cache_dir: musterbeat_embedded::default_cache_dir(),
        durability: Durability::Full,
        settings: vec![],
    };
    let report = |line: &str| eprintln!("musterbeat: {line}");
    let server = tokio::task::spawn_blocking(move || Server::start(&options, &report)).await??;
    Ok(server)
}
