//! A database that crashes and recovers.

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use sqlx::{Connection, PgConnection};

/// Kills a session of a server on this machine, which makes all of the server recover.
///
/// Every connection to it breaks, and what was not flushed to disk is forgotten. Never for the
/// server that tests share.
pub async fn crash(database_url: &str) -> Result<()> {
    let failed = "failed to ask the server for a session to kill: is it up?";
    let mut conn = PgConnection::connect(database_url).await.context(failed)?;
    let session = sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut conn).await;
    let session = Pid::from_raw(session.context(failed)?);
    kill(session, Signal::SIGKILL)
        .context("failed to kill a session: is the server another user's?")
}
