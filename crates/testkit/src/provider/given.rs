//! A server that somebody else runs.

use std::str::FromStr;

use anyhow::{Context, Result, ensure};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection};

use super::{TestServer, ready};

/// Takes the server at `url`, if its user may create databases.
pub(super) async fn find(url: Option<&str>) -> Result<TestServer> {
    let url = url.context("no server is given: set TEST_DATABASE_URL")?;
    let options = PgConnectOptions::from_str(url)
        .context("TEST_DATABASE_URL does not parse: it begins with postgres://")?;
    let home = options.get_database().unwrap_or("postgres").to_owned();
    let options = options.database(&home);
    let url = options.to_url_lossy().to_string();
    let version = ready::version(&url)
        .await
        .context("TEST_DATABASE_URL leads nowhere: start that server, or unset it")?;
    ensure!(
        may_create(&options).await.context("TEST_DATABASE_URL stopped answering")?,
        "the user of TEST_DATABASE_URL may not create databases: ALTER ROLE {} CREATEDB",
        options.get_username()
    );
    let (host, port) = (options.get_host(), options.get_port());
    let description = format!("PostgreSQL {version} from TEST_DATABASE_URL, at {host}:{port}");
    Ok(TestServer { url, description, _kept: None })
}

async fn may_create(options: &PgConnectOptions) -> Result<bool, sqlx::Error> {
    let mut conn = options.connect().await?;
    let answer = sqlx::query_scalar(
        "select rolsuper or rolcreatedb from pg_roles where rolname = current_user",
    )
    .fetch_one(&mut conn)
    .await?;
    conn.close().await?;
    Ok(answer)
}
