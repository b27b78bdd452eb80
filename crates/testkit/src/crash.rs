//! A database that crashes and recovers.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlx::{Connection, PgConnection};
use tokio::time::timeout;

/// How long a server may take to throw out those who are connected.
const PATIENCE: Duration = Duration::from_secs(30);

/// Kills a session of a server on this machine, which makes all of the server recover.
///
/// Every connection to it breaks, and what was not flushed to disk is forgotten; returns when the
/// server has thrown out those who were connected. Never for the server that tests share.
pub async fn crash(database_url: &str) -> Result<()> {
    let failed = "failed to ask the server for a session to kill: is it up?";
    let mut conn = PgConnection::connect(database_url).await.context(failed)?;
    let session = sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut conn).await;
    let session = Pid::from_raw(session.context(failed)?);
    let mut witness = PgConnection::connect(database_url).await.context(failed)?;
    kill(session, Signal::SIGKILL)
        .context("failed to kill a session: is the server another user's?")?;
    let slept = timeout(PATIENCE, sqlx::query("select pg_sleep(3600)").execute(&mut witness)).await;
    ensure!(slept.is_ok_and(|slept| slept.is_err()), "the server survived a killed session");
    Ok(())
}
