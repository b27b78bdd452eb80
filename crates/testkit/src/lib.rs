//! Databases, faults and servers for the tests of musterbeat.
//!
//! A test asks for a [`TestDatabase`] and gets one of its own, with all migrations applied.
//! The first that asks in a process starts a [`TestServer`], unless `TEST_DATABASE_URL` names one:
//! `cargo xtask test` starts one server for all test processes and passes it on that way.
//!
//! ```no_run
//! use musterbeat_testkit::{FaultProxy, TestDatabase};
//!
//! # async fn example() -> anyhow::Result<()> {
//! let database = TestDatabase::create().await?;
//! let pool = database.pool().await?;
//! sqlx::query("select 1").execute(&pool).await?;
//!
//! // The same database, behind a network that can break.
//! let proxy = FaultProxy::in_front_of(database.url()).await?;
//! let fragile = sqlx::PgPool::connect(&proxy.url(database.url())?).await?;
//! proxy.reset();
//! # Ok(())
//! # }
//! ```
//!
//! | variable | meaning |
//! |---|---|
//! | `TEST_DATABASE_URL` | a server whose user may create databases |
//! | `MUSTERBEAT_TEST_PROVIDER` | `url`, `docker` or `embedded`, and no other |
//! | `PG_IMAGE` | the image for Docker, `postgres:18` unless set |
//! | `MUSTERBEAT_POSTGRES` | the programs for an embedded server, as [`Source`] reads them |
//! | `MUSTERBEAT_TEST_WHEEL`, `MUSTERBEAT_TEST_PGBOUNCER` | `required` where tests that need PostgreSQL 18 from PyPI, or a PgBouncer, must not be left out |
//! | `MUSTERBEAT_TEST_PGBOUNCER` | `required`: without PgBouncer its tests fail instead of being left out |
//!
//! [`Source`]: musterbeat_embedded::Source

mod crash;
mod database;
mod fingerprint;
mod github;
pub mod image;
mod journal;
mod models;
mod own_postgres;
mod pgbouncer;
mod provider;
mod proxy;
mod wait;
mod web;

pub use crash::crash;
pub use database::TestDatabase;
pub use github::{Call, FakeGitHub, FakePull, Fault, Whom};
pub use journal::{Entry, Journal};
pub use models::{Answer, Asked, FakeModels, Gate, Tokens, demo};
pub use own_postgres::OwnPostgres;
pub use pgbouncer::PgBouncer;
pub use provider::{ImageName, Provider, Settings, TestServer};
pub use proxy::{BlackHole, FaultProxy};
pub use wait::eventually;
pub use web::Web;
