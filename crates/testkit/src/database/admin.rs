//! Statements about whole databases.

use std::borrow::Cow;
use std::str::FromStr;

use anyhow::{Context, Error, Result};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};

/// The database was not found.
pub(super) const NO_SUCH_DATABASE: &str = "3D000";
/// Somebody is connected to the database.
pub(super) const IN_USE: &str = "55006";
/// There is a database of that name.
pub(super) const EXISTS: &str = "42P04";

/// A server, seen from a database that nobody tests on.
#[derive(Clone, Debug)]
pub(super) struct Admin {
    options: PgConnectOptions,
}

impl Admin {
    /// Takes the database of `server_url` for its statements, or `postgres` if it names none.
    pub(super) fn new(server_url: &str) -> Result<Self> {
        let options = PgConnectOptions::from_str(server_url)
            .context("the URL of the server does not parse: check TEST_DATABASE_URL")?;
        let home = options.get_database().unwrap_or("postgres").to_owned();
        Ok(Self { options: options.database(&home) })
    }

    /// Returns how to connect to the database `name` of this server.
    pub(super) fn options_of(&self, name: &str) -> PgConnectOptions {
        self.options.clone().database(name)
    }

    /// Returns the URL of the database `name` of this server.
    pub(super) fn url_of(&self, name: &str) -> String {
        self.options_of(name).to_url_lossy().to_string()
    }

    pub(super) async fn connect(&self) -> Result<PgConnection> {
        let (host, port) = (self.options.get_host(), self.options.get_port());
        let failed = || format!("failed to connect to {host}:{port}: is the test server up?");
        self.options.connect().await.with_context(failed)
    }

    /// Runs one statement on a connection of its own.
    pub(super) async fn execute(&self, statement: &str) -> Result<()> {
        let mut conn = self.connect().await?;
        let done = execute(&mut conn, statement).await;
        // The statement's own answer counts.
        let _ = conn.close().await;
        done
    }
}

/// Returns the statement that makes an empty database, the same on every server.
pub(super) fn create_empty(name: &str, encoding: &str) -> String {
    format!(
        "create database {name} template template0 \
         encoding '{encoding}' locale_provider libc locale 'C'"
    )
}

/// Runs a statement that is made of our own words only.
pub(super) async fn execute(conn: &mut PgConnection, statement: &str) -> Result<()> {
    let failed = || format!("`{statement}` failed: may the user of the tests create databases?");
    sqlx::query(AssertSqlSafe(statement.to_owned())).execute(conn).await.with_context(failed)?;
    Ok(())
}

/// Returns the code that the server gave for `error`.
pub(super) fn sqlstate(error: &Error) -> Option<String> {
    let error = error.downcast_ref::<sqlx::Error>()?.as_database_error()?;
    error.code().map(Cow::into_owned)
}
