//! The database that all others are copied from: built once a server, then closed.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use sqlx::migrate::Migrator;
use sqlx::{Connection, PgConnection};
use tokio::sync::OnceCell;
use tokio::time::{Instant, sleep};

use super::admin::{self, Admin, execute, sqlstate};
use super::leftover;
use crate::fingerprint::fingerprint;

/// Taken while a template is built, so that processes that race build it once.
const LOCK: i64 = 0x6d75_7374_6572;

/// How long the builder waits until nobody is connected to what it built.
const QUIET_TIMEOUT: Duration = Duration::from_secs(30);

/// What is part of the name besides the migrations; raise it when the way of building changes.
const FORMAT: &[u8] = b"1";

struct Migrations {
    migrator: Migrator,
    template: String,
}

/// Returns the name of the template that has all migrations applied.
pub(super) async fn name() -> Result<String> {
    Ok(migrations().await?.template.clone())
}

/// Builds `template`, or waits for who builds it already.
pub(super) async fn build(admin: &Admin, template: &str) -> Result<()> {
    let mut conn = admin.connect().await?;
    sqlx::query("select pg_advisory_lock($1)")
        .bind(LOCK)
        .execute(&mut conn)
        .await
        .context("failed to wait for the template's builder: run the tests again")?;
    let is_mine = !exists(&mut conn, template).await?;
    let built = if is_mine { build_alone(admin, &mut conn, template).await } else { Ok(()) };
    // The lock goes with its connection, even if this fails.
    let _ = conn.close().await;
    // Once a template, by one process, and when those that wait for it have gone on.
    if is_mine && let Err(error) = leftover::sweep(admin).await {
        eprintln!("testkit: databases of killed tests stay: {error:#}");
    }
    built
}

/// Builds under another name first, so that a template is complete if it is there.
async fn build_alone(admin: &Admin, conn: &mut PgConnection, template: &str) -> Result<()> {
    drop_partial(conn).await?;
    let partial = format!("mb_partial_{}", uuid::Uuid::now_v7().simple());
    execute(conn, &admin::create_empty(&partial, "UTF8")).await?;
    migrate(admin, &partial).await?;
    execute(conn, &format!("alter database {partial} allow_connections false")).await?;
    match rename(conn, &partial, template).await {
        // Servers reached through two home databases do not share the lock.
        Err(error) if sqlstate(&error).as_deref() == Some(admin::EXISTS) => {
            execute(conn, &format!("drop database {partial}")).await
        }
        Err(error) => Err(error),
        Ok(()) => execute(conn, &format!("alter database {template} is_template true")).await,
    }
}

async fn migrate(admin: &Admin, database: &str) -> Result<()> {
    let mut conn = PgConnection::connect_with(&admin.options_of(database))
        .await
        .context("failed to connect to the new template: is the server still up?")?;
    let migrator = &migrations().await?.migrator;
    migrator
        .run_direct(None, &mut conn, false)
        .await
        .context("a migration failed: mend it in migrations/")?;
    conn.close().await.context("failed to leave the new template: is the server still up?")
}

/// Renames once the last connection has gone, which is a moment after it was closed.
async fn rename(conn: &mut PgConnection, from: &str, to: &str) -> Result<()> {
    let deadline = Instant::now() + QUIET_TIMEOUT;
    loop {
        match execute(conn, &format!("alter database {from} rename to {to}")).await {
            Err(error) if sqlstate(&error).as_deref() == Some(admin::IN_USE) => {
                if deadline < Instant::now() {
                    return Err(error);
                }
            }
            done => return done,
        }
        sleep(Duration::from_millis(10)).await;
    }
}

/// Drops what builders left that were killed; one that is in use belongs to somebody alive.
async fn drop_partial(conn: &mut PgConnection) -> Result<()> {
    let names: Vec<String> = sqlx::query_scalar(
        r"select datname::text from pg_database where datname like 'mb\_partial\_%'",
    )
    .fetch_all(&mut *conn)
    .await
    .context("failed to list databases: may the user of the tests read pg_database?")?;
    for name in names {
        if let Err(error) = execute(conn, &format!("drop database if exists {name}")).await {
            eprintln!("testkit: a half-built template stays: {error:#}");
        }
    }
    Ok(())
}

async fn exists(conn: &mut PgConnection, database: &str) -> Result<bool> {
    sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
        .bind(database)
        .fetch_one(conn)
        .await
        .context("failed to look for the template: may the user of the tests read pg_database?")
}

async fn migrations() -> Result<&'static Migrations> {
    static READ: OnceCell<Migrations> = OnceCell::const_new();
    READ.get_or_try_init(read).await
}

async fn read() -> Result<Migrations> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../migrations");
    if !folder.is_dir() {
        bail!("{} is not a folder: run the tests from a full checkout", folder.display());
    }
    let migrator = Migrator::new(folder)
        .await
        .context("failed to read migrations/: does each file have the name that sqlx expects?")?;
    let checksums = migrator.iter().map(|migration| &*migration.checksum);
    let template = fingerprint(std::iter::once(FORMAT).chain(checksums));
    Ok(Migrations { migrator, template: format!("mb_template_{template}") })
}
