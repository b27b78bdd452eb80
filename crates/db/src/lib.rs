//! PostgreSQL behind the ports of `musterbeat-core`.
//!
//! [`PgStore`] implements the ports; each of their methods is one transaction.
//! Below it there is one module a table, whose functions are one statement each and take
//! a `&mut PgConnection`, so that their caller owns the transaction.
//!
//! ```no_run
//! use musterbeat_core::port::{ChatReader, Reach};
//! use musterbeat_db::{PgStore, PoolLimits, connect, migrate};
//!
//! # async fn example(chat: musterbeat_core::id::ChatId) -> Result<(), Box<dyn std::error::Error>> {
//! let pool = connect("postgres://localhost/musterbeat", &PoolLimits::default()).await?;
//! migrate(&pool).await?;
//! let store = PgStore::new(pool);
//! let chat = store.get(chat, Reach::Everything).await?;
//! # Ok(())
//! # }
//! ```

mod pool;
pub use pool::{ConnectError, PoolLimits, connect};
mod migration;
pub use migration::{MIGRATOR, MigrateError, migrate};

mod store;
pub use store::PgStore;
mod beats;
pub use beats::PgBeats;
mod lead;
pub use lead::PgPrebuildLead;

pub mod activity;
pub mod agent_metadata;
pub mod agents;
pub mod build_logs;
pub mod builds;
pub mod chat_diff_statuses;
pub mod chat_messages;
pub mod chat_queued_messages;
pub mod chats;
pub mod model_configs;
pub mod prebuilds;
pub mod presets;
pub mod run_heartbeats;
pub mod runs;
pub mod templates;
pub mod tokens;
pub mod worker_leases;
pub mod workspaces;

pub mod doctor;
mod error;
pub mod metrics;
mod row;

pub use sqlx::{PgConnection, PgPool};
