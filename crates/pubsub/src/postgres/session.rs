//! Connections of a transport: one that listens, one that publishes.

use std::str::FromStr;
use std::time::Duration;

use musterbeat_core::finding::Verdict;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use sqlx::{Executor, Row};
use tokio::time::timeout;

use crate::doctor::{self, Limits};

/// How long connecting may take, with everything that makes a connection ready.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// SQLSTATE of a full queue, `program_limit_exceeded`.
const QUEUE_FULL: &str = "54000";

/// Settings of a session, and whether the server is a standby, in one round trip.
///
/// A client that has stopped reading pins the queue for all databases, and no time limit of the
/// server ends it but `tcp_user_timeout`: so the session asks to be dropped. A server that ends
/// idle sessions by default would end a listener that only waits.
const READY: &str = "
    set tcp_user_timeout = 10000;
    set tcp_keepalives_idle = 10;
    set tcp_keepalives_interval = 5;
    set tcp_keepalives_count = 3;
    set idle_session_timeout = 0;
    select pg_is_in_recovery()";

/// Opens connections to one database.
#[derive(Clone, Debug)]
pub(super) struct Session {
    options: PgConnectOptions,
}

/// Why there is no connection, or no answer on it.
#[derive(Debug, thiserror::Error)]
pub(super) enum SessionError {
    #[error("failed to speak to the database")]
    Failed(#[source] sqlx::Error),
    #[error("the database did not answer in time")]
    Silent,
    #[error(
        "the database is a standby, which takes no notifications; \
         name the primary, or all hosts with target_session_attrs=read-write"
    )]
    Standby,
}

impl SessionError {
    /// Says whether the queue of notifications is full.
    pub(super) fn is_queue_full(&self) -> bool {
        let Self::Failed(sqlx::Error::Database(error)) = self else { return false };
        error.code().as_deref() == Some(QUEUE_FULL)
    }
}

impl Session {
    /// Reads the URL of a database.
    pub(super) fn new(url: &str) -> sqlx::Result<Self> {
        Ok(Self { options: PgConnectOptions::from_str(url)? })
    }

    /// Opens a connection that publishes.
    ///
    /// It listens to nothing, but behind a pooler it may share a session with one that does, and
    /// to a plain connection a notification would be a breach of the protocol.
    pub(super) async fn publisher(&self) -> Result<PgListener, SessionError> {
        self.open("musterbeat publisher").await
    }

    /// Opens a connection that listens, so far to nothing.
    pub(super) async fn listener(&self) -> Result<PgListener, SessionError> {
        self.open("musterbeat listener").await
    }

    /// Opens a connection that bears notifications.
    ///
    /// It must be dropped on the first error and never connect again by itself: the driver loses
    /// its buffer of notifications when that is cancelled.
    async fn open(&self, application_name: &str) -> Result<PgListener, SessionError> {
        let options = self.options.clone().application_name(application_name);
        let opening = async {
            let pool = PgPoolOptions::new()
                .max_connections(1)
                .acquire_timeout(CONNECT_TIMEOUT)
                .max_lifetime(None)
                .idle_timeout(None)
                .connect_lazy_with(options);
            let mut listener = PgListener::connect_with(&pool).await.map_err(failed)?;
            listener.eager_reconnect(false);
            listener.ignore_pool_close_event(true);
            make_ready(&mut listener).await?;
            Ok(listener)
        };
        timeout(CONNECT_TIMEOUT, opening).await.map_err(|_| SessionError::Silent)?
    }

    /// Has a full queue shrink if nobody keeps it, and names those who do.
    ///
    /// To be asked for its usage moves the end of the queue on. Only writers do so otherwise, and
    /// nobody can write into a full queue: it would stay full after whoever kept it has gone.
    pub(super) async fn relieve_queue(&self) {
        let limits = Limits { idle_in_transaction_max: Duration::ZERO, ..Limits::default() };
        match doctor::queue::usage(&self.options, &limits).await {
            Ok(Verdict { found, remedy, .. }) => tracing::warn!(remedy, "{found}"),
            Err(failure) => tracing::warn!(
                error = &failure as &dyn std::error::Error,
                "the queue of notifications could not be looked at"
            ),
        }
    }
}

async fn make_ready(session: &mut PgListener) -> Result<(), SessionError> {
    let row = session.fetch_one(sqlx::raw_sql(READY)).await.map_err(failed)?;
    if row.try_get(0).map_err(failed)? { Err(SessionError::Standby) } else { Ok(()) }
}

pub(super) fn failed(error: sqlx::Error) -> SessionError {
    SessionError::Failed(error)
}
