//! PgBouncer in transaction mode: each transaction may meet another session of PostgreSQL.

mod config;
mod program;

use std::env;
use std::fs::{self, File, Permissions};

use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::unistd::{Uid, User};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection};
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use crate::provider::{Heir, not_run};
use program::Program;

/// How long a pooler may take until it answers.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// Ports tried: between its choice and its use a free one may be taken.
const PORTS_MAX: u32 = 5;

/// Makes it an error that there is no PgBouncer, when it says `required`.
const WISH: &str = "MUSTERBEAT_TEST_PGBOUNCER";

/// Ends the pooler `$1` and removes its folder.
const INHERIT: &str = r#"kill -9 "$1"; rm -rf "$2""#;

/// A PgBouncer in transaction mode in front of one server, ended when this is dropped.
///
/// A client gets a session of the server for one transaction at a time.
/// So `LISTEN` succeeds and nothing ever arrives, and a prepared statement may meet a session
/// that does not know it.
#[derive(Debug)]
pub struct PgBouncer {
    url: String,
    child: Child,
    folder: PathBuf,
    _heir: Option<Heir>,
}

impl PgBouncer {
    /// Says whether there is a PgBouncer; one that is not installed is fetched from Debian.
    ///
    /// Where there is none, a line on stderr says that the test which asks is not run.
    ///
    /// # Errors
    /// When there is none and `MUSTERBEAT_TEST_PGBOUNCER` is `required`.
    pub async fn is_here() -> Result<bool> {
        let Err(why) = program().await else { return Ok(true) };
        ensure!(
            env::var(WISH).as_deref() != Ok("required"),
            "this test needs PgBouncer and {WISH} is `required`: {why}"
        );
        not_run("PgBouncer", why);
        Ok(false)
    }

    /// Starts a pooler on a free loopback port in front of the server that `database_url` names.
    ///
    /// # Errors
    /// When there is no PgBouncer here, or it does not come to answer.
    pub async fn in_front_of(database_url: &str) -> Result<Self> {
        let program = program().await.map_err(anyhow::Error::msg)?;
        let upstream = PgConnectOptions::from_str(database_url)
            .context("the URL of the database does not parse: it begins with postgres://")?;
        let mut failure = None;
        for _ in 0..PORTS_MAX {
            let mut pooler = Self::spawn(program, &upstream)?;
            match pooler.answers().await {
                Ok(()) => return Ok(pooler),
                Err(error) => failure = Some(error.context(pooler.log())),
            }
        }
        Err(failure.context("PgBouncer was never started: this is a bug")?)
    }

    /// Returns the URL of the database by way of the pooler.
    pub fn url(&self) -> &str {
        &self.url
    }

    fn spawn(program: &Program, upstream: &PgConnectOptions) -> Result<Self> {
        let port = free_port()?;
        let folder = env::temp_dir().join(format!("testkit-pgbouncer-{}", Uuid::now_v7().simple()));
        fs::create_dir(&folder).context("no folder for PgBouncer: let TMPDIR name another")?;
        let mut command = program.command();
        let (config, log) = (folder.join("pgbouncer.ini"), folder.join("log"));
        fs::write(&config, config::text(upstream, port)?)?;
        fs::set_permissions(&config, Permissions::from_mode(0o600))?;
        // It refuses root.
        if Uid::effective().is_root() {
            let nobody = User::from_name("nobody")?.context("root finds no user `nobody`")?;
            let (uid, gid) = (nobody.uid.as_raw(), nobody.gid.as_raw());
            chown(&folder, Some(uid), Some(gid))?;
            chown(&config, Some(uid), Some(gid))?;
            command.uid(uid).gid(gid);
        }
        let child = command
            .arg("-q")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .process_group(0)
            .spawn()
            .context("PgBouncer cannot be run")?;
        let heir = Heir::appoint(INHERIT, &[&child.id().to_string(), &folder.to_string_lossy()]);
        let url = config::url(upstream, port);
        Ok(Self { url, child, folder, _heir: heir })
    }

    /// Waits until a statement comes through.
    async fn answers(&mut self) -> Result<()> {
        let options = PgConnectOptions::from_str(&self.url)?;
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            if let Some(status) = self.child.try_wait()? {
                bail!("PgBouncer ended before it answered ({status})");
            }
            let asked = async {
                let mut conn = options.connect().await?;
                sqlx::raw_sql("select 1").execute(&mut conn).await?;
                conn.close().await
            };
            match timeout(START_TIMEOUT, asked).await.context("PgBouncer is silent")? {
                Ok(()) => return Ok(()),
                Err(error) if deadline < Instant::now() => return Err(error.into()),
                Err(_) => sleep(Duration::from_millis(10)).await,
            }
        }
    }

    fn log(&self) -> String {
        let text = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        format!("PgBouncer's log says:\n{text}")
    }
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Returns the program of this process, looked for by whoever asks first.
async fn program() -> Result<&'static Program, &'static str> {
    static FOUND: OnceCell<Result<Program, String>> = OnceCell::const_new();
    let look = async || match tokio::task::spawn_blocking(program::find).await {
        Ok(found) => found.map_err(|error| format!("{error:#}")),
        Err(error) => Err(error.to_string()),
    };
    FOUND.get_or_init(look).await.as_ref().map_err(String::as_str)
}

fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .context("PgBouncer found no free port on loopback: close some sockets")?;
    Ok(listener.local_addr()?.port())
}
