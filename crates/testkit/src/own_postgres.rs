//! A PostgreSQL that a test may stop, kill and start again.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result, ensure};
use musterbeat_embedded::{Durability, Options, Server, default_cache_dir};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use tokio::task::spawn_blocking;

use crate::provider::Settings;
use crate::proxy::FaultProxy;

/// A PostgreSQL of a test's own, behind an address that stays while it comes and goes.
///
/// It keeps what it acknowledged: killing it is not a crash of the machine.
///
/// Dropping it stops it and removes its data.
#[derive(Debug)]
pub struct OwnPostgres {
    /// `None` while it is away.
    server: Option<Server>,
    options: Options,
    proxy: FaultProxy,
    url: String,
    _folder: TempDir,
}

impl OwnPostgres {
    /// Starts one on an empty data folder.
    pub async fn start() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("musterbeat-own-").tempdir()?;
        // Root starts it as another user, who must reach its folder.
        std::fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
        let options = Options {
            source: Settings::from_env()?.source,
            data_dir: folder.path().join("data"),
            cache_dir: default_cache_dir(),
            // What a killed server had written is kept by the system, without a flush; but a
            // commit must not be acknowledged before it is written.
            durability: Durability::None,
            settings: vec![("synchronous_commit".to_owned(), "on".to_owned())],
        };
        let server = launch(options.clone()).await?;
        let direct = server.url("postgres");
        let proxy = FaultProxy::in_front_of(&direct).await?;
        let url = proxy.url(&direct)?;
        Ok(Self { server: Some(server), options, proxy, url, _folder: folder })
    }

    /// Returns the URL of its database, which holds for as long as this lives.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Stops it in good order; who is connected is told.
    pub async fn stop(&mut self) -> Result<()> {
        let server = self.server.take().context("it is away already")?;
        spawn_blocking(move || server.stop()).await?.context("the own PostgreSQL did not stop")?;
        self.proxy.refuse();
        self.proxy.reset();
        Ok(())
    }

    /// Kills its first process without a word; the others end by themselves.
    pub async fn kill(&mut self) -> Result<()> {
        let mut server = self.server.take().context("it is away already")?;
        let pid = Pid::from_raw(server.pid().try_into()?);
        kill(pid, Signal::SIGKILL).context("failed to kill the own PostgreSQL")?;
        self.proxy.refuse();
        self.proxy.reset();
        // Dropped only when it has ended: its last processes hold the data folder.
        let ended = spawn_blocking(move || {
            while !server.has_ended() {
                std::thread::yield_now();
            }
        });
        ended.await.context("the own PostgreSQL was not seen to end")
    }

    /// Starts it again on the data that it had.
    pub async fn start_again(&mut self) -> Result<()> {
        ensure!(self.server.is_none(), "it is there already");
        let server = launch(self.options.clone()).await?;
        self.proxy.lead_to(([127, 0, 0, 1], server.port()).into());
        self.server = Some(server);
        self.proxy.heal();
        Ok(())
    }
}

async fn launch(options: Options) -> Result<Server> {
    let start = move || Server::start(&options, &|line| eprintln!("{line}"));
    let started = spawn_blocking(start).await?;
    started.context("no PostgreSQL of its own: MUSTERBEAT_POSTGRES says where its programs are")
}
