//! Who holds connections while pools are supplied, and who waits for one.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use musterbeat_db::PgStore;
use sqlx::{PgConnection, PgPool, Row};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

/// Time between two looks at the pool.
const SAMPLE_EACH: Duration = Duration::from_millis(10);

/// Pause of one who uses the same pool.
const PAUSE: Duration = Duration::from_millis(3);

/// The most that was seen at once.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Peaks {
    /// Connections that are out of the pool.
    pub(super) held: u32,
    /// Sessions that execute a statement or have a transaction open, as the server sees it.
    pub(super) busy: i64,
    /// Age of the oldest open transaction.
    pub(super) open_ms: f64,
    /// How often the pool was looked at.
    pub(super) samples: u64,
}

impl Peaks {
    /// Adds what was seen at another time.
    pub(super) fn add(&mut self, other: Self) {
        self.held = self.held.max(other.held);
        self.busy = self.busy.max(other.busy);
        self.open_ms = self.open_ms.max(other.open_ms);
        self.samples += other.samples;
    }
}

/// Looks at a pool and its sessions until it is stopped.
pub(super) struct Sampler {
    end: CancellationToken,
    pool: JoinHandle<Peaks>,
    sessions: JoinHandle<Result<(Peaks, PgConnection)>>,
}

impl Sampler {
    /// Begins to look; `conn` asks for the sessions that call themselves `application`.
    pub(super) fn start(pool: PgPool, conn: PgConnection, application: &'static str) -> Self {
        let end = CancellationToken::new();
        Self {
            pool: tokio::spawn(sample_pool(pool, end.clone())),
            sessions: tokio::spawn(sample_sessions(conn, application, end.clone())),
            end,
        }
    }

    /// Returns what was seen, and the connection.
    pub(super) async fn stop(self) -> Result<(Peaks, PgConnection)> {
        self.end.cancel();
        let mut peaks = self.pool.await.context("nobody looked at the pool")?;
        let (seen, conn) = self.sessions.await.context("nobody looked at the sessions")??;
        peaks.add(seen);
        Ok((peaks, conn))
    }
}

/// Two tasks, so that a slow answer of the server delays no look at the pool.
async fn sample_pool(pool: PgPool, end: CancellationToken) -> Peaks {
    let mut peaks = Peaks::default();
    let mut ticks = interval(SAMPLE_EACH);
    while end.run_until_cancelled(ticks.tick()).await.is_some() {
        let idle = u32::try_from(pool.num_idle()).unwrap_or(u32::MAX);
        let held = pool.size().saturating_sub(idle);
        peaks.add(Peaks { held, samples: 1, ..Peaks::default() });
    }
    peaks
}

async fn sample_sessions(
    mut conn: PgConnection,
    application: &str,
    end: CancellationToken,
) -> Result<(Peaks, PgConnection)> {
    let query = "
        select count(*) filter (where state <> 'idle'),
               coalesce(max(extract(epoch from clock_timestamp() - xact_start)) * 1000, 0)::float8
        from pg_stat_activity
        where datname = current_database() and application_name = $1";
    let mut peaks = Peaks::default();
    let mut ticks = interval(SAMPLE_EACH);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while end.run_until_cancelled(ticks.tick()).await.is_some() {
        let failed = "failed to look at the sessions";
        let row = sqlx::query(query).bind(application).fetch_one(&mut conn).await;
        let row = row.context(failed)?;
        let (busy, open_ms) = (row.try_get(0).context(failed)?, row.try_get(1).context(failed)?);
        peaks.add(Peaks { busy, open_ms, ..Peaks::default() });
    }
    Ok((peaks, conn))
}

/// How long others waited, in milliseconds.
#[derive(Clone, Debug, Default)]
pub(super) struct Waits {
    /// For a connection of the pool.
    pub(super) pool: Vec<f64>,
    /// For the answer to a call of the store that asks for nothing.
    pub(super) store: Vec<f64>,
}

/// Others who use the pool: one takes a connection each few milliseconds, another calls the store.
pub(super) struct Others {
    end: CancellationToken,
    pool: JoinHandle<Result<Vec<f64>>>,
    store: JoinHandle<Result<Vec<f64>>>,
}

impl Others {
    pub(super) fn start(pool: &PgPool, store: &PgStore) -> Self {
        let end = CancellationToken::new();
        Self {
            pool: tokio::spawn(acquire(pool.clone(), end.clone())),
            store: tokio::spawn(call(store.clone(), end.clone())),
            end,
        }
    }

    /// Ends them; who waits still gets what they wait for.
    pub(super) async fn stop(self) -> Result<Waits> {
        self.end.cancel();
        let (pool, store) = (self.pool.await, self.store.await);
        let failed = "somebody else broke off";
        Ok(Waits { pool: pool.context(failed)??, store: store.context(failed)?? })
    }
}

async fn acquire(pool: PgPool, end: CancellationToken) -> Result<Vec<f64>> {
    let mut waits = Vec::new();
    while end.run_until_cancelled(sleep(PAUSE)).await.is_some() {
        let asked = Instant::now();
        let mut conn = pool.acquire().await.context("somebody else found no connection")?;
        waits.push(millis(asked.elapsed()));
        let one = sqlx::query("select 1").execute(&mut *conn).await;
        one.context("somebody else got no answer")?;
    }
    Ok(waits)
}

async fn call(store: PgStore, end: CancellationToken) -> Result<Vec<f64>> {
    let mut waits = Vec::new();
    while end.run_until_cancelled(sleep(PAUSE)).await.is_some() {
        let asked = Instant::now();
        store.ping().await.context("somebody else's call failed")?;
        waits.push(millis(asked.elapsed()));
    }
    Ok(waits)
}

pub(super) fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peaks_are_the_highest_of_all() {
        let mut peaks = Peaks { held: 3, busy: 1, open_ms: 5.0, samples: 2 };
        peaks.add(Peaks { held: 2, busy: 4, open_ms: 1.0, samples: 1 });
        assert_eq!((peaks.held, peaks.busy, peaks.samples), (3, 4, 3));
        assert!((peaks.open_ms - 5.0).abs() < f64::EPSILON);
    }
}
