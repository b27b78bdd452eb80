//! Tells other tasks and processes that something changed.
//!
//! A transport implements the ports [`Publish`](musterbeat_core::port::Publish) and
//! [`Watch`](musterbeat_core::port::Watch) over a [`Hub`], which knows who in this process watches
//! what. [`PgTransport`] serves all processes that use one database, [`MemoryTransport`] one process.
//!
//! Notices are level-triggered: a watcher has a set of marks and no queue, so whoever is slow
//! loses nothing and holds up nobody. What cannot be named becomes a `Resync`, never silence.
//!
//! ```
//! use std::collections::BTreeSet;
//!
//! use musterbeat_core::port::{Interest, Notice, Publish, Topic, Watch};
//! use musterbeat_pubsub::MemoryTransport;
//! use uuid::Uuid;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let transport = MemoryTransport::default();
//! let chat = Uuid::from_u128(1);
//!
//! // Watch first and read afterwards: what changes in between is marked.
//! let interest = Interest::One(chat);
//! let mut watcher = transport.watch(Topic::Chat, interest).await?;
//!
//! transport.publish(Topic::Chat, chat);
//! transport.publish(Topic::Chat, chat);
//! assert_eq!(watcher.recv().await, Notice::Changed(BTreeSet::from([chat])));
//! # Ok(())
//! # }
//! ```

mod hub;
mod index;
mod slate;

mod channel;
pub mod codec;
mod ledger;
mod outbox;
mod pulse;

mod memory;
mod postgres;

mod after_commit;
pub mod doctor;
pub mod metrics;

pub use after_commit::AfterCommit;
pub use hub::{Hub, HubWatcher, MARKS_MAX};
pub use memory::MemoryTransport;
pub use outbox::DIRTY_MAX;
pub use postgres::{PgTransport, PgTransportOptions, UrlError};
