//! Processor time, of this program and of the server's sessions.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::resource::{UsageWho, getrusage};
use sqlx::PgConnection;

/// Returns the processor time that this program has used.
pub(super) fn own() -> Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF).context("the system tells no processor time")?;
    let micros = [usage.user_time(), usage.system_time()]
        .map(|time| i128::from(time.tv_sec()) * 1_000_000 + i128::from(time.tv_usec()));
    Ok(Duration::from_micros(u64::try_from(micros.iter().sum::<i128>()).unwrap_or(0)))
}

/// Sessions of the server, as processes of this machine.
#[derive(Debug, Default)]
pub(super) struct Sessions(Vec<PathBuf>);

impl Sessions {
    /// Finds the sessions that call themselves `application` in the database of `conn`.
    pub(super) async fn named(conn: &mut PgConnection, application: &str) -> Result<Self> {
        let query = "
            select pid from pg_stat_activity
            where datname = current_database() and application_name = $1";
        let pids: Vec<i32> = sqlx::query_scalar(query)
            .bind(application)
            .fetch_all(conn)
            .await
            .context("failed to ask the server for its sessions")?;
        Ok(Self(pids.into_iter().filter_map(scheduling).collect()))
    }

    /// Finds the session of `conn`.
    pub(super) async fn of(conn: &mut PgConnection) -> Result<Self> {
        let pid: i32 = sqlx::query_scalar("select pg_backend_pid()")
            .fetch_one(conn)
            .await
            .context("failed to ask the server for a session's process")?;
        Ok(Self(scheduling(pid).into_iter().collect()))
    }

    /// Adds the sessions of `other`.
    pub(super) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Returns the processor time they have used; none where the system does not tell.
    pub(super) fn used(&self) -> Duration {
        let nanos = |path: &PathBuf| -> Option<u64> {
            std::fs::read_to_string(path).ok()?.split_whitespace().next()?.parse().ok()
        };
        Duration::from_nanos(self.0.iter().filter_map(nanos).sum())
    }
}

/// Returns where the system tells of a session's time, if the server runs on this machine.
fn scheduling(pid: i32) -> Option<PathBuf> {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let command = std::fs::read_to_string(process.join("cmdline")).ok()?;
    let own = command.contains("postgres");
    own.then(|| process.join("schedstat"))
}

/// Returns whole microseconds, as counts have it.
pub(super) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
