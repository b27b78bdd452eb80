//! The ports, implemented: each method takes a connection, is one transaction, and commits.

mod chats;
mod leases;
mod runs;
mod tokens;

use std::time::Instant;

use musterbeat_core::chat::QUEUE_MAX;
use musterbeat_core::port::StoreError;
use sqlx::pool::PoolConnection;
use sqlx::{PgPool, Postgres, SqlSafeStr, Transaction};

use crate::error::failed;
use crate::metrics::POOL_WAIT;

/// Storage on one PostgreSQL; implements every store port. Clones share the pool.
#[derive(Clone, Debug)]
pub struct PgStore {
    pool: PgPool,
    queue_max: u32,
}

impl PgStore {
    /// Stores on the database of `pool`, whose schema is up to date.
    pub fn new(pool: PgPool) -> Self {
        Self { pool, queue_max: QUEUE_MAX }
    }

    /// Sets how many turns may wait in one chat's queue.
    #[must_use]
    pub fn with_queue_max(self, queue_max: u32) -> Self {
        Self { queue_max, ..self }
    }

    /// Asks the database for a sign of life.
    pub async fn ping(&self) -> Result<(), StoreError> {
        let mut conn = self.acquire("reach the database").await?;
        sqlx::query!("select 1 as one")
            .fetch_one(&mut *conn)
            .await
            .map_err(failed("reach the database"))?;
        Ok(())
    }

    async fn acquire(
        &self,
        operation: &'static str,
    ) -> Result<PoolConnection<Postgres>, StoreError> {
        let asked = Instant::now();
        let conn = self.pool.acquire().await.map_err(failed(operation));
        metrics::histogram!(POOL_WAIT.name).record(asked.elapsed());
        conn
    }

    async fn begin(
        &self,
        operation: &'static str,
    ) -> Result<Transaction<'static, Postgres>, StoreError> {
        let conn = self.acquire(operation).await?;
        Transaction::begin(conn, None).await.map_err(failed(operation))
    }

    /// Begins a transaction whose statements all see the same state and write nothing.
    async fn begin_snapshot(
        &self,
        operation: &'static str,
    ) -> Result<Transaction<'static, Postgres>, StoreError> {
        const BEGIN: &str = "begin isolation level repeatable read, read only";
        let conn = self.acquire(operation).await?;
        Transaction::begin(conn, Some(BEGIN.into_sql_str())).await.map_err(failed(operation))
    }
}
