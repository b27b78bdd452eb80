//! The PostgreSQL that a command works on.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::thread;

use anyhow::{Context, Result};
use musterbeat_embedded::{Durability, Options, Server, Source, default_cache_dir};
use musterbeat_testkit::{Provider, Settings, TestServer};
use tempfile::TempDir;
use tokio::sync::oneshot;

/// Starts the first server that works, or only what `provider` or the environment asks for.
pub(crate) async fn start(provider: Option<Provider>) -> Result<TestServer> {
    let settings = Settings::from_env()?;
    let provider = provider.or(settings.provider);
    TestServer::start_with(Settings { provider, ..settings }).await
}

/// Starts a server that keeps what was committed in `data_dir`.
///
/// It ends when it is dropped, or with this program.
pub(crate) async fn start_in(data_dir: &Path) -> Result<Server> {
    let options = Options {
        source: Settings::from_env()?.source,
        data_dir: data_dir.to_owned(),
        cache_dir: default_cache_dir(),
        durability: Durability::Full,
        settings: Vec::new(),
    };
    detached(move || Server::start(&options, &say))
        .await?
        .context("no PostgreSQL started: MUSTERBEAT_POSTGRES says where its programs are")
}

/// A server whose commits reach the disk, for measurements: test servers skip that.
pub(crate) struct Durable {
    url: String,
    /// None when the environment named the server, whose owner answers for it.
    /// INVARIANT: the server is dropped before its folder.
    _own: Option<(Server, TempDir)>,
}

impl Durable {
    /// Takes the server of `TEST_DATABASE_URL`, or starts one in a temporary folder.
    pub(crate) async fn start() -> Result<Self> {
        if let Some(url) = Settings::from_env()?.url {
            return Ok(Self { url, _own: None });
        }
        // PostgreSQL does not run as root: its user must reach the data through this folder.
        let folder = tempfile::Builder::new()
            .prefix("musterbeat-bench-")
            .permissions(Permissions::from_mode(0o755))
            .tempdir()
            .context("no folder for the data: let TMPDIR name a disk with room")?;
        let server = start_in(&folder.path().join("data")).await?;
        Ok(Self { url: server.url("postgres"), _own: Some((server, folder)) })
    }

    /// Returns the URL of the server, for an administrator.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }
}

/// Returns the folder of PostgreSQL's programs from `source`, fetching them where needed.
pub(crate) async fn programs(source: Source) -> Result<PathBuf> {
    let find = move || musterbeat_embedded::find(&source, &default_cache_dir(), &say);
    let found = detached(find).await??;
    say(&format!("PostgreSQL {} ({})", found.version, found.origin));
    Ok(found.bin_dir)
}

/// Runs what blocks on a thread that nobody joins, so that an interrupt need not wait for it.
async fn detached<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let (answer, answered) = oneshot::channel();
    thread::spawn(move || drop(answer.send(work())));
    answered.await.context("the thread that looks for PostgreSQL panicked")
}

/// Tells what takes long, apart from what a command prints.
pub(crate) fn say(line: &str) {
    eprintln!("{line}");
}
