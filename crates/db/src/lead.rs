//! The lead in supplying pools, on a connection of its own.

use std::time::Duration;

use async_trait::async_trait;
use musterbeat_core::port::{GlobalSnapshot, PrebuildLead, StoreError};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::error::{failed, silent};
use crate::pool::{ConnectError, session_options};
use crate::prebuilds::{self, Shown};

/// Names the advisory lock of whoever leads: "prebuild", as eight bytes.
const LOCK: i64 = i64::from_be_bytes(*b"prebuild");

/// How long a snapshot may take, with connecting.
const ANSWER_TIME: Duration = Duration::from_secs(30);

/// Leads by an advisory lock on one connection that is opened outside every pool.
///
/// It connects with the first call, and anew after each that failed or was given up. The database
/// closes the connection of a leader that does not ask for three intervals, so that one which is
/// frozen or cut off leads no longer.
#[derive(Debug)]
pub struct PgPrebuildLead {
    options: PgConnectOptions,
    held: Mutex<Option<Held>>,
}

/// A connection, and whether it leads.
#[derive(Debug)]
struct Held {
    conn: PgConnection,
    leads: bool,
}

impl PgPrebuildLead {
    /// Leads on the database at `url`; whoever leads asks each `interval`, at least.
    ///
    /// # Errors
    /// Refuses what is no URL of PostgreSQL, and a remote one that says nothing about TLS.
    pub fn new(url: &str, interval: Duration) -> Result<Self, ConnectError> {
        let idle = interval.saturating_mul(3).max(ANSWER_TIME);
        let options = session_options(url)?.application_name("musterbeat prebuilds").options([
            ("statement_timeout", ANSWER_TIME.as_millis().to_string()),
            ("idle_session_timeout", idle.as_millis().to_string()),
            // The one statement is planned for its parameters: a plan for any costs a third more, and
            // what is compiled for it costs more than it gains.
            ("plan_cache_mode", "force_custom_plan".to_owned()),
            ("jit", "off".to_owned()),
            ("default_transaction_isolation", "read committed".to_owned()),
            ("timezone", "UTC".to_owned()),
        ]);
        Ok(Self { options, held: Mutex::default() })
    }

    async fn ask(
        &self,
        held: Option<Held>,
        lookback: Duration,
    ) -> sqlx::Result<(Held, Option<GlobalSnapshot>)> {
        let mut held = match held {
            Some(held) => held,
            None => Held { conn: PgConnection::connect_with(&self.options).await?, leads: false },
        };
        if !held.leads {
            held.leads =
                sqlx::query_scalar!(r#"select pg_try_advisory_lock($1) as "taken!""#, LOCK)
                    .fetch_one(&mut held.conn)
                    .await?;
        }
        if !held.leads {
            return Ok((held, None));
        }
        let shown = Shown { preset: None, while_paused: false, lookback: Some(lookback) };
        let snapshot = prebuilds::snapshot(&mut held.conn, shown).await?;
        Ok((held, Some(snapshot)))
    }
}

#[async_trait]
impl PrebuildLead for PgPrebuildLead {
    async fn snapshot(&self, lookback: Duration) -> Result<Option<GlobalSnapshot>, StoreError> {
        const SNAPSHOT: &str = "look at the pools";
        let mut place = self.held.lock().await;
        // Taken out, so that a call which is given up takes its connection with it.
        let asked = timeout(ANSWER_TIME, self.ask(place.take(), lookback)).await;
        let (held, snapshot) = asked.map_err(silent(SNAPSHOT))?.map_err(failed(SNAPSHOT))?;
        *place = Some(held);
        Ok(snapshot)
    }

    async fn resign(&self) {
        let held = self.held.lock().await.take();
        if let Some(held) = held {
            // Dropped, the connection would hold the lock until the database notices.
            let _ = timeout(Duration::from_secs(5), held.conn.close()).await;
        }
    }
}
