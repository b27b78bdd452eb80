//! A database of its own for each test.

mod admin;
mod leftover;
mod template;

use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use sqlx::postgres::PgPoolOptions;
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};
use tokio::runtime;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

use crate::TestServer;
use admin::{Admin, sqlstate};

/// Copies made at a time by one process: each one is disk work for the server.
static COPIES: Semaphore = Semaphore::const_new(4);

/// How long a copy is tried while somebody holds the template.
const COPY_TIMEOUT: Duration = Duration::from_mins(1);

/// How long the end of a test waits for its database to go.
const DROP_TIMEOUT: Duration = Duration::from_secs(20);

/// A fresh database, dropped at the end of its test together with all connections to it.
#[derive(Debug)]
pub struct TestDatabase {
    admin: Admin,
    name: String,
    url: String,
}

impl TestDatabase {
    /// Creates a database with all migrations applied, on the server of this process.
    pub async fn create() -> Result<Self> {
        Self::create_on(TestServer::shared().await?.url()).await
    }

    /// Creates a database with all migrations applied, on the server that `server_url` names.
    pub async fn create_on(server_url: &str) -> Result<Self> {
        let admin = Admin::new(server_url)?;
        let template = template::name().await?;
        let database = Self::named(admin);
        database.copy(&template).await?;
        Ok(database)
    }

    /// Creates a database without any table, on the server of this process.
    pub async fn empty() -> Result<Self> {
        Self::empty_in("UTF8").await
    }

    /// Creates a database without any table in an encoding of PostgreSQL, such as `SQL_ASCII`.
    pub async fn empty_in(encoding: &str) -> Result<Self> {
        let admin = Admin::new(TestServer::shared().await?.url())?;
        let database = Self::named(admin);
        database.admin.execute(&admin::create_empty(&database.name, encoding)).await?;
        Ok(database)
    }

    /// Returns the URL of the database.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns the name of the database.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Opens one connection.
    pub async fn connect(&self) -> Result<PgConnection> {
        let failed = || format!("failed to connect to {}: is the server up?", self.name);
        PgConnection::connect_with(&self.admin.options_of(&self.name)).await.with_context(failed)
    }

    /// Opens a pool with sqlx's own options.
    pub async fn pool(&self) -> Result<PgPool> {
        self.pool_with(PgPoolOptions::new()).await
    }

    /// Opens a pool with `options`.
    pub async fn pool_with(&self, options: PgPoolOptions) -> Result<PgPool> {
        let failed = || format!("failed to open a pool on {}: is the server up?", self.name);
        options.connect_with(self.admin.options_of(&self.name)).await.with_context(failed)
    }

    /// Runs statements, for tests of crates that hold no SQL.
    pub async fn execute(&self, sql: &str) -> Result<()> {
        let mut conn = self.connect().await?;
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut conn).await.context(sql.to_owned())?;
        Ok(())
    }

    /// Returns the number that a statement selects.
    pub async fn number(&self, sql: &str) -> Result<i64> {
        let mut conn = self.connect().await?;
        let number = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(&mut conn).await;
        number.context(sql.to_owned())
    }

    /// Returns the texts that a statement selects.
    pub async fn texts(&self, sql: &str) -> Result<Vec<String>> {
        let mut conn = self.connect().await?;
        let texts = sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&mut conn).await;
        texts.context(sql.to_owned())
    }

    /// Takes a new name for a database that is made next.
    fn named(admin: Admin) -> Self {
        let name = leftover::unique_name();
        let url = admin.url_of(&name);
        Self { admin, name, url }
    }

    /// Copies the template, which is built if this server has none yet.
    async fn copy(&self, template: &str) -> Result<()> {
        let _permit = COPIES.acquire().await.context("no copy can be made: this is a bug")?;
        let deadline = Instant::now() + COPY_TIMEOUT;
        let statement = format!("create database {} template {template}", self.name);
        loop {
            let Err(error) = self.admin.execute(&statement).await else {
                return Ok(());
            };
            match sqlstate(&error).as_deref() {
                Some(admin::NO_SUCH_DATABASE) => template::build(&self.admin, template).await?,
                Some(admin::IN_USE) => sleep(Duration::from_millis(20)).await,
                _ => return Err(error),
            }
            if deadline < Instant::now() {
                return Err(error.context(format!("{template} stayed in use for {COPY_TIMEOUT:?}")));
            }
        }
    }
}

impl Drop for TestDatabase {
    /// Drops the database on a thread of its own, since the test's runtime may be gone.
    fn drop(&mut self) {
        let (admin, name) = (self.admin.clone(), self.name.clone());
        let dropping = thread::Builder::new()
            .name("testkit-drop".to_owned())
            .spawn(move || drop_database(&admin, &name));
        let failure = match dropping.map(thread::JoinHandle::join) {
            Ok(Ok(Ok(()))) => return,
            Ok(Ok(Err(error))) => format!("{error:#}"),
            Ok(Err(_)) => "its thread panicked".to_owned(),
            Err(error) => error.to_string(),
        };
        eprintln!("testkit: the database {} stays behind: {failure}", self.name);
    }
}

fn drop_database(admin: &Admin, name: &str) -> Result<()> {
    let statement = format!("drop database if exists {name} with (force)");
    let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(async { timeout(DROP_TIMEOUT, admin.execute(&statement)).await });
    // A name that resolves slowly must not hold up the test.
    runtime.shutdown_background();
    done.with_context(|| format!("no answer within {DROP_TIMEOUT:?}"))?
}
