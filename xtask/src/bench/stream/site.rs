//! Servers of one cluster in this process.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::time::Duration;

use anyhow::{Context, Result};
use musterbeat_engine::shutdown::Shutdown;
use musterbeat_server::serve::Server;
use musterbeat_server::settings::Settings;
use musterbeat_testkit::TestDatabase;
use tokio::time::timeout;

use super::super::replica::{Asker, client};

/// Known to all replicas.
const SECRET: &str = "a secret of the benchmark's own cluster";

/// More of anything than a benchmark asks for.
const PLENTY: NonZeroU32 = NonZeroU32::new(1_000_000).expect("it is not zero");

/// Nothing here takes longer on a machine that can be measured on.
pub(super) const PATIENCE: Duration = Duration::from_mins(2);

/// A server.
pub(super) struct Member {
    pub(super) address: SocketAddr,
    server: Server,
    shutdown: Shutdown,
}

impl Member {
    /// Starts a server whose answers come a word each `pace`.
    pub(super) async fn start(database: &TestDatabase, pace: Duration) -> Result<Self> {
        let listen = free_address()?;
        let settings = Settings {
            listen,
            dev: true,
            database_url: Some(database.url().into()),
            advertise_url: Some(format!("http://{listen}")),
            cluster_secret: Some(SECRET.into()),
            echo_pace: pace,
            drain_timeout: Duration::ZERO,
            connections_max: PLENTY,
            connections_per_address: PLENTY,
            rate_per_second: PLENTY,
            rate_burst: PLENTY,
            ..Settings::default()
        };
        let shutdown = Shutdown::default();
        let server = Server::start(settings, shutdown.clone()).await?;
        Ok(Self { address: server.address(), server, shutdown })
    }

    pub(super) fn asker(&self) -> Result<Asker> {
        Ok(Asker::new(client()?, &format!("http://{}", self.address)))
    }

    pub(super) async fn stop(self) -> Result<()> {
        self.shutdown.request();
        let ended = timeout(PATIENCE, self.server.ended()).await;
        ended.context("a server does not end")?.context("a server did not end well")
    }
}

/// Returns an address that nobody listens on: others must know it before the server listens.
fn free_address() -> Result<SocketAddr> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").context("no port is free")?;
    Ok(listener.local_addr()?)
}
