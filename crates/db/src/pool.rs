//! The pool of connections, with the settings that every statement relies on.

use std::net::IpAddr;
use std::str::FromStr;
use std::time::Duration;

use sqlx::PgPool;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgSslMode};

/// How many connections a pool holds and how long anything on them may take.
#[derive(Clone, Debug)]
pub struct PoolLimits {
    /// Connections, at most.
    pub connections_max: u32,
    /// Longest wait for a connection; then the call fails as unavailable.
    pub acquire_timeout: Duration,
    /// Longest run of one statement.
    pub statement_timeout: Duration,
    /// Longest wait for a row's lock.
    pub lock_timeout: Duration,
    /// Longest pause inside a transaction, which would hold locks and keep vacuum from working.
    pub idle_in_transaction_timeout: Duration,
    /// What the database's administrator sees.
    pub application_name: String,
}

impl Default for PoolLimits {
    fn default() -> Self {
        Self {
            // Two cores serve ten busy connections; more only queue inside the database.
            connections_max: 10,
            acquire_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(30),
            lock_timeout: Duration::from_secs(10),
            idle_in_transaction_timeout: Duration::from_secs(30),
            application_name: "musterbeat".to_owned(),
        }
    }
}

/// The pool could not be made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The URL is not one of PostgreSQL.
    #[error("the database URL is not valid; expected postgres://USER:PASSWORD@HOST:PORT/DATABASE")]
    Url(#[source] sqlx::Error),
    /// A remote server would be spoken to in the clear.
    #[error(
        "the database at {host} is remote and its URL does not ask for TLS; \
         add ?sslmode=require (or verify-full), or ?sslmode=disable if the network is private"
    )]
    NoTls {
        /// Where the database is.
        host: String,
    },
    /// The server does not answer.
    #[error("failed to connect to the database at {host}:{port}")]
    Connect {
        /// Where the database is.
        host: String,
        /// On which port.
        port: u16,
        /// What went wrong.
        #[source]
        source: sqlx::Error,
    },
}

/// Connects to the database and returns a pool, after one connection has answered.
pub async fn connect(url: &str, limits: &PoolLimits) -> Result<PgPool, ConnectError> {
    let options = session_options(url)?;
    let (host, port) = (options.get_host().to_owned(), options.get_port());
    PgPoolOptions::new()
        .max_connections(limits.connections_max)
        .acquire_timeout(limits.acquire_timeout)
        .connect_with(with_session_settings(options, limits))
        .await
        .map_err(|source| ConnectError::Connect { host, port, source })
}

/// Reads a URL, and refuses one that would speak to a remote server in the clear.
pub(crate) fn session_options(url: &str) -> Result<PgConnectOptions, ConnectError> {
    let options = PgConnectOptions::from_str(url).map_err(ConnectError::Url)?;
    refuse_remote_without_tls(&options)?;
    Ok(options)
}

fn with_session_settings(options: PgConnectOptions, limits: &PoolLimits) -> PgConnectOptions {
    let millis = |time: Duration| time.as_millis().to_string();
    options.application_name(&limits.application_name).options([
        // The locking protocol of `runs` is written for READ COMMITTED and no other level.
        ("default_transaction_isolation", "read committed".to_owned()),
        ("statement_timeout", millis(limits.statement_timeout)),
        ("lock_timeout", millis(limits.lock_timeout)),
        ("idle_in_transaction_session_timeout", millis(limits.idle_in_transaction_timeout)),
        ("timezone", "UTC".to_owned()),
    ])
}

/// The driver's default mode falls back to the clear when TLS is not compiled in or not offered.
fn refuse_remote_without_tls(options: &PgConnectOptions) -> Result<(), ConnectError> {
    let host = options.get_host();
    let is_local = host == "localhost"
        || host.starts_with('/')
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    let falls_back = matches!(options.get_ssl_mode(), PgSslMode::Prefer | PgSslMode::Allow);
    if is_local || !falls_back || options.get_socket().is_some() {
        return Ok(());
    }
    Err(ConnectError::NoTls { host: host.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remote_database_needs_a_word_on_tls() {
        let check = |url: &str, allowed: bool| {
            let options = PgConnectOptions::from_str(url).unwrap();
            assert_eq!(refuse_remote_without_tls(&options).is_ok(), allowed, "{url}");
        };
        check("postgres://db.example/app", false);
        check("postgres://10.0.0.7/app?sslmode=prefer", false);
        check("postgres://db.example/app?sslmode=require", true);
        check("postgres://10.0.0.7/app?sslmode=disable", true);
        check("postgres://127.0.0.1/app", true);
        check("postgres://localhost/app", true);
    }
}
