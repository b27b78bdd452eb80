//! What a round cost the server, in numbers that do not wobble.

use anyhow::{Context, Result};
use musterbeat_testkit::TestDatabase;
use sqlx::{PgConnection, Row};

/// Named counts of one round, in the order in which they are shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts(pub(super) Vec<(&'static str, u64)>);

/// Reads the server's counters on a connection of its own.
pub(super) struct Meter {
    conn: PgConnection,
    /// Whether the server can tell the images of full pages from the other WAL.
    tells_images: bool,
}

/// The counters at one moment.
pub(super) struct Reading {
    /// Transactions that ever wrote: ids are given out on the first write, one each.
    writes: i64,
    /// Where the WAL ends, in bytes.
    wal: i64,
    updates: i64,
    hot_updates: i64,
}

impl Meter {
    /// Connects to `database`, and counts for all of its server.
    pub(super) async fn connect(database: &TestDatabase) -> Result<Self> {
        let mut conn = database.connect().await?;
        // Comes with PostgreSQL, but some distributions leave it out.
        let installed = sqlx::query("create extension if not exists pg_walinspect");
        let tells_images = installed.execute(&mut conn).await.is_ok();
        Ok(Self { conn, tells_images })
    }

    /// Gives every round the same start, and reads the counters.
    pub(super) async fn start(&mut self) -> Result<Reading> {
        sqlx::query("checkpoint")
            .execute(&mut self.conn)
            .await
            .context("failed to checkpoint: benchmarks need a superuser")?;
        self.read().await
    }

    /// Returns what was counted since `before`.
    pub(super) async fn since(&mut self, before: Reading) -> Result<Counts> {
        let after = self.read().await?;
        let mut counts = vec![("commits", delta(before.writes, after.writes))];
        let wal = delta(before.wal, after.wal);
        if self.tells_images {
            let images = self.images(before.wal, after.wal).await?;
            counts.push(("WAL bytes", wal.saturating_sub(images)));
            counts.push(("bytes of page images", images));
        } else {
            counts.push(("WAL bytes with page images", wal));
        }
        counts.push(("updates", delta(before.updates, after.updates)));
        counts.push(("HOT updates", delta(before.hot_updates, after.hot_updates)));
        Ok(Counts(counts))
    }

    /// Returns the server's version and the settings that decide what a commit costs.
    pub(super) async fn server(&mut self) -> Result<String> {
        let query = "select format('PostgreSQL %s, fsync %s, synchronous_commit %s',
            current_setting('server_version'), current_setting('fsync'),
            current_setting('synchronous_commit'))";
        let server = sqlx::query_scalar(query).fetch_one(&mut self.conn).await;
        server.context("failed to ask the server for its version")
    }

    async fn read(&mut self) -> Result<Reading> {
        let query = "
            select
                pg_snapshot_xmax(pg_current_snapshot())::text::bigint,
                (pg_current_wal_insert_lsn() - '0/0')::bigint,
                coalesce(sum(pg_stat_get_tuples_updated(oid)), 0)::bigint,
                coalesce(sum(pg_stat_get_tuples_hot_updated(oid)), 0)::bigint
            from pg_class
            where relnamespace = 'public'::regnamespace and relkind = 'r'";
        let failed = "failed to read the server's counters";
        let row = sqlx::query(query).fetch_one(&mut self.conn).await.context(failed)?;
        Ok(Reading {
            writes: row.try_get(0).context(failed)?,
            wal: row.try_get(1).context(failed)?,
            updates: row.try_get(2).context(failed)?,
            hot_updates: row.try_get(3).context(failed)?,
        })
    }

    /// Returns how many bytes between two places of the WAL are images of full pages.
    async fn images(&mut self, from: i64, to: i64) -> Result<u64> {
        let query = "
            select coalesce(sum(fpi_size), 0)::bigint
            from pg_get_wal_stats('0/0'::pg_lsn + $1::numeric, '0/0'::pg_lsn + $2::numeric)";
        let images = sqlx::query_scalar(query)
            .bind(from)
            .bind(to)
            .fetch_one(&mut self.conn)
            .await
            .context("failed to look into the WAL: was it removed within the round?")?;
        Ok(delta(0, images))
    }
}

/// Makes the server account for what `conn` did; else the cumulative counters lag by a second.
pub(super) async fn settle(conn: &mut PgConnection) -> Result<()> {
    let flush = sqlx::query("select pg_stat_force_next_flush()");
    flush.execute(conn).await.context("failed to make the server account for the round")?;
    Ok(())
}

fn delta(before: i64, after: i64) -> u64 {
    u64::try_from(after - before).unwrap_or(0)
}
