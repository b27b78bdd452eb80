//! What a round cost the server, in numbers that do not wobble.

use anyhow::{Context, Result};
use musterbeat_testkit::TestDatabase;
use sqlx::{PgConnection, Row};

/// Named counts of one round, in the order in which they are shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts(pub(super) Vec<(&'static str, u64)>);

/// What the count by the server itself is called, for arms that count what they send too.
pub(super) const STATEMENTS: &str = "statements the server counted";

/// Reads the server's counters on a connection of its own.
pub(super) struct Meter {
    pub(super) conn: PgConnection,
    /// Whether the server can tell the images of full pages from the other WAL.
    tells_images: bool,
    /// Whether the server counts its statements.
    tells_statements: bool,
}

/// The counters at one moment.
pub(super) struct Reading {
    /// Transactions that ever wrote: ids are given out on the first write, one each.
    writes: i64,
    /// Where the WAL ends, in bytes.
    wal: i64,
    statements: i64,
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
        let installed = sqlx::query("create extension if not exists pg_stat_statements");
        let mut tells_statements = installed.execute(&mut conn).await.is_ok();
        tells_statements &= statements(&mut conn).await.is_ok();
        Ok(Self { conn, tells_images, tells_statements })
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
        if self.tells_statements {
            counts.insert(0, (STATEMENTS, delta(before.statements, after.statements)));
        }
        let wal = delta(before.wal, after.wal);
        if self.tells_images {
            // Who only reads writes none, and the end of the WAL cannot be looked into.
            let images = if wal > 0 { self.images(before.wal, after.wal).await? } else { 0 };
            counts.push(("WAL bytes", wal.saturating_sub(images)));
            counts.push(("bytes of page images", images));
        } else {
            counts.push(("WAL bytes with page images", wal));
        }
        counts.push(("updates", delta(before.updates, after.updates)));
        counts.push(("HOT updates", delta(before.hot_updates, after.hot_updates)));
        Ok(Counts(counts))
    }

    /// Returns where the WAL ends.
    #[cfg(feature = "product")]
    pub(super) async fn wal_end(&mut self) -> Result<i64> {
        let query = "select (pg_current_wal_insert_lsn() - '0/0')::bigint";
        let end = sqlx::query_scalar(query).fetch_one(&mut self.conn).await;
        end.context("failed to ask the server for the end of its WAL")
    }

    /// Returns how many bytes lie between two places of the WAL, images of full pages apart.
    #[cfg(feature = "product")]
    pub(super) async fn wal(&mut self, from: i64, to: i64) -> Result<(u64, u64)> {
        let all = delta(from, to);
        let images = if self.tells_images && all > 0 { self.images(from, to).await? } else { 0 };
        Ok((all.saturating_sub(images), images))
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
        let statements = if self.tells_statements { statements(&mut self.conn).await? } else { 0 };
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
            statements,
            updates: row.try_get(2).context(failed)?,
            hot_updates: row.try_get(3).context(failed)?,
        })
    }

    /// Returns how many bytes between two places of the WAL are images of full pages.
    async fn images(&mut self, from: i64, to: i64) -> Result<u64> {
        // What is not on disk cannot be looked into, and a beat does not wait for the disk.
        let flush = "
            select pg_logical_emit_message(true, 'bench', '')
            where pg_current_wal_flush_lsn() < '0/0'::pg_lsn + $1::numeric";
        let flush = sqlx::query(flush).bind(to).execute(&mut self.conn).await;
        flush.context("failed to have the WAL written out")?;
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

/// Returns how many statements this database has executed, but for those that measure:
/// nothing else speaks of what begins with `pg_`, except to notify and to take a lock.
async fn statements(conn: &mut PgConnection) -> Result<i64> {
    let query = r"
        select coalesce(sum(calls), 0)::bigint
        from pg_stat_statements
        where dbid = (select oid from pg_database where datname = current_database())
          and (query not like '%pg\_%' or query like '%pg\_notify(%' or query like '%\_advisory\_%')
          and query !~* '^\s*checkpoint'";
    let calls = sqlx::query_scalar(query).fetch_one(conn).await;
    calls.context("failed to ask the server for its count of statements")
}

/// Makes the server account for what `conn` did; else the cumulative counters lag by a second.
#[cfg(feature = "product")]
pub(super) async fn settle(conn: &mut PgConnection) -> Result<()> {
    let flush = sqlx::query("select pg_stat_force_next_flush()");
    flush.execute(conn).await.context("failed to make the server account for the round")?;
    Ok(())
}

fn delta(before: i64, after: i64) -> u64 {
    u64::try_from(after - before).unwrap_or(0)
}
