//! What the tables say about who runs what.

use std::time::Duration;

use anyhow::{Context, Result};
use sqlx::{PgConnection, Row};
use time::OffsetDateTime;
use uuid::Uuid;

/// Chats that were created together, and everything that was created meanwhile.
///
/// Ids grow with time, so a range names them without a list of 10,000 ids in each look.
pub(super) struct Chats {
    /// INVARIANT: sorted, one at least.
    pub(super) ids: Vec<Uuid>,
}

impl Chats {
    fn first(&self) -> Uuid {
        self.ids.first().copied().unwrap_or_default()
    }

    fn last(&self) -> Uuid {
        self.ids.last().copied().unwrap_or_default()
    }
}

/// How a takeover stands.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Standing {
    /// Runs that nobody has taken back from the dead worker.
    pub(super) left: u64,
    /// Runs that are owned by another worker, or that one has finished.
    pub(super) elsewhere: u64,
    /// Claims elsewhere, after the kill.
    pub(super) first: Option<Duration>,
    pub(super) last: Option<Duration>,
    /// When this was read, after the kill.
    pub(super) at: Duration,
}

/// How the runs of chats are spread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Spread {
    /// Runs there are.
    pub(super) all: u64,
    /// Runs that `worker` owns under the fence asked for.
    pub(super) owned: u64,
    /// Runs that have ended well under the fence asked for.
    pub(super) waiting: u64,
    /// Runs whose fence is another one.
    pub(super) fenced: u64,
    /// Runs that stand in error.
    pub(super) failed: u64,
    /// Runs that wait for a worker or are with one.
    pub(super) busy: u64,
}

/// Asks on a connection of its own.
pub(super) struct Table(PgConnection);

impl Table {
    pub(super) fn new(conn: PgConnection) -> Self {
        Self(conn)
    }

    /// Returns the worker whose lease is called `name`.
    pub(super) async fn worker(&mut self, name: &str) -> Result<Option<Uuid>> {
        let query = "select worker_id from worker_leases where name = $1 and not dead";
        let worker = sqlx::query_scalar(query).bind(name).fetch_optional(&mut self.0).await;
        worker.context("failed to read a lease")
    }

    /// Returns the time, and how long ago `worker` last beat.
    pub(super) async fn last_beat(&mut self, worker: Uuid) -> Result<(OffsetDateTime, Duration)> {
        let query = "
            select now, extract(epoch from now - heartbeat_at)::float8
            from worker_leases, clock_timestamp() as now
            where worker_id = $1";
        let row = sqlx::query(query).bind(worker).fetch_one(&mut self.0).await;
        let row = row.context("failed to read when a worker last beat")?;
        Ok((row.try_get(0)?, seconds(row.try_get(1)?)))
    }

    /// Returns the time since `from` if the lease of `worker` is dead or gone.
    pub(super) async fn dead(
        &mut self,
        worker: Uuid,
        from: OffsetDateTime,
    ) -> Result<Option<Duration>> {
        let query = "
            select extract(epoch from clock_timestamp() - $2)::float8
            where not exists (select from worker_leases where worker_id = $1 and not dead)";
        let dead = sqlx::query_scalar(query).bind(worker).bind(from);
        let dead = dead.fetch_optional(&mut self.0).await.context("failed to look at a lease")?;
        Ok(dead.map(seconds))
    }

    /// Looks at the runs of `chats` after their `worker` was killed at `killed`.
    ///
    /// A run elsewhere has been claimed, taken back and claimed: its fence is 3.
    pub(super) async fn standing(
        &mut self,
        chats: &Chats,
        worker: Uuid,
        killed: OffsetDateTime,
    ) -> Result<Standing> {
        let query = "
            select
                count(*) filter (where worker_id = $3),
                count(*) filter (where fence >= 3 and status <> 'pending'),
                extract(epoch from min(started_at) filter (where fence >= 3) - $4)::float8,
                extract(epoch from max(started_at) filter (where fence >= 3) - $4)::float8,
                extract(epoch from clock_timestamp() - $4)::float8
            from runs
            where run_id between $1 and $2";
        let query = sqlx::query(query).bind(chats.first()).bind(chats.last());
        let row = query.bind(worker).bind(killed).fetch_one(&mut self.0).await;
        let row = row.context("failed to look at the runs")?;
        Ok(Standing {
            left: count(row.try_get(0)?),
            elsewhere: count(row.try_get(1)?),
            first: row.try_get::<Option<f64>, _>(2)?.map(seconds),
            last: row.try_get::<Option<f64>, _>(3)?.map(seconds),
            at: seconds(row.try_get(4)?),
        })
    }

    /// Returns how the runs of `chats` are spread, as seen from `worker` and `fence`.
    pub(super) async fn spread(
        &mut self,
        chats: &Chats,
        worker: Uuid,
        fence: i64,
    ) -> Result<Spread> {
        let query = "
            select
                count(*),
                count(*) filter (where worker_id = $3 and fence = $4),
                count(*) filter (where status = 'waiting' and fence = $4 and attempts = 0),
                count(*) filter (where fence <> $4),
                count(*) filter (where status = 'error'),
                count(*) filter (where status in ('pending', 'running', 'interrupting'))
            from runs
            where run_id between $1 and $2";
        let query = sqlx::query(query).bind(chats.first()).bind(chats.last());
        let row = query.bind(worker).bind(fence).fetch_one(&mut self.0).await;
        let row = row.context("failed to count the runs")?;
        Ok(Spread {
            all: count(row.try_get(0)?),
            owned: count(row.try_get(1)?),
            waiting: count(row.try_get(2)?),
            fenced: count(row.try_get(3)?),
            failed: count(row.try_get(4)?),
            busy: count(row.try_get(5)?),
        })
    }

    /// Returns how many of `chats` hold their question once and its whole answer once.
    ///
    /// The runner says back what was asked, so both have the same content.
    pub(super) async fn answered(&mut self, chats: &Chats) -> Result<u64> {
        let query = "
            select count(*)
            from (
                select
                    array_agg(role::text order by id) = array['user', 'assistant']
                    and count(distinct content) = 1 as is_whole
                from chat_messages
                where chat_id = any ($1)
                group by chat_id
            ) as history
            where is_whole";
        let answered = sqlx::query_scalar(query).bind(&chats.ids).fetch_one(&mut self.0).await;
        Ok(count(answered.context("failed to read the messages")?))
    }
}

fn count(count: i64) -> u64 {
    u64::try_from(count).unwrap_or(0)
}

/// Something may have happened just before the moment from which it is counted.
fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds.max(0.0))
}
