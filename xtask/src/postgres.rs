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
    start_with(data_dir, Vec::new()).await
}

async fn start_with(data_dir: &Path, settings: Vec<(String, String)>) -> Result<Server> {
    let options = Options {
        source: Settings::from_env()?.source,
        data_dir: data_dir.to_owned(),
        cache_dir: default_cache_dir(),
        durability: Durability::Full,
        settings,
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
    #[cfg_attr(not(feature = "product"), expect(dead_code, reason = "kept for its end"))]
    own: Option<(Server, TempDir)>,
}

impl Durable {
    /// Takes the server of `TEST_DATABASE_URL`, or starts one in a temporary folder.
    pub(crate) async fn start() -> Result<Self> {
        if let Some(url) = Settings::from_env()?.url {
            return Ok(Self { url, own: None });
        }
        // PostgreSQL does not run as root: its user must reach the data through this folder.
        let folder = tempfile::Builder::new()
            .prefix("musterbeat-bench-")
            .permissions(Permissions::from_mode(0o755))
            .tempdir()
            .context("no folder for the data: let TMPDIR name a disk with room")?;
        let mut settings = counting().await?;
        // Some benchmarks have a hundred listeners.
        settings.push(("max_connections".to_owned(), "300".to_owned()));
        let server = start_with(&folder.path().join("data"), settings).await?;
        Ok(Self { url: server.url("postgres"), own: Some((server, folder)) })
    }

    /// Returns the URL of the server, for an administrator.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Returns the folder of the server's programs, or of those found here for a foreign server.
    #[cfg(feature = "product")]
    pub(crate) async fn programs(&self) -> Result<PathBuf> {
        match &self.own {
            Some((server, _)) => Ok(server.binaries().bin_dir.clone()),
            None => programs(Settings::from_env()?.source).await,
        }
    }
}

/// Returns the settings by which a server counts its statements, if it has the library for it.
async fn counting() -> Result<Vec<(String, String)>> {
    const LIBRARY: &str = "pg_stat_statements";
    let source = Settings::from_env()?.source;
    let find = move || musterbeat_embedded::find(&source, &default_cache_dir(), &say);
    let root = detached(find).await??.bin_dir.join("..");
    let places = ["lib", "lib/postgresql", "lib64/pgsql"].into_iter();
    let files = places.flat_map(|place| ["so", "dylib"].map(|end| (place, end)));
    let has_it = |(place, end)| root.join(place).join(LIBRARY).with_extension(end).exists();
    if files.into_iter().any(has_it) {
        return Ok(vec![("shared_preload_libraries".to_owned(), LIBRARY.to_owned())]);
    }
    say("pg_stat_statements is not installed: statements are counted by the client alone");
    Ok(Vec::new())
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
