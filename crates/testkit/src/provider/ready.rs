//! Waits until a server answers.

use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, Result};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection};
use tokio::time::{Instant, sleep, timeout_at};

/// How long a server that has been started may take until it answers.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// Pause between two attempts.
const PAUSE: Duration = Duration::from_millis(20);

/// Waits until the server answers a query, and returns its version.
pub(super) async fn version(url: &str) -> Result<String> {
    let options = PgConnectOptions::from_str(url)
        .context("the URL of the server does not parse: it begins with postgres://")?;
    let (host, port) = (options.get_host(), options.get_port());
    let failed =
        || format!("{host}:{port} did not answer within {READY_TIMEOUT:?}: is it PostgreSQL?");
    let deadline = Instant::now() + READY_TIMEOUT;
    loop {
        match timeout_at(deadline, ask(&options)).await.with_context(failed)? {
            Ok(version) => return Ok(version),
            Err(error) if is_final(&error) => {
                let refused =
                    || format!("{host}:{port} refuses the user or the database: check both");
                return Err(error).with_context(refused);
            }
            Err(error) if deadline < Instant::now() + PAUSE => {
                return Err(error).with_context(failed);
            }
            // An official image starts twice, and its proxy accepts before PostgreSQL does.
            Err(_) => sleep(PAUSE).await,
        }
    }
}

/// Whether asking again cannot help: the server has answered, and is not just starting.
fn is_final(error: &sqlx::Error) -> bool {
    const STARTING: &str = "57P03";
    let answer = error.as_database_error();
    answer.is_some_and(|answer| answer.code().as_deref() != Some(STARTING))
}

async fn ask(options: &PgConnectOptions) -> Result<String, sqlx::Error> {
    let mut conn = options.connect().await?;
    let version: String = sqlx::query_scalar("show server_version").fetch_one(&mut conn).await?;
    conn.close().await?;
    Ok(version)
}
