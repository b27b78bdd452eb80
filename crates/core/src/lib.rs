//! The domain of musterbeat, pure: it takes the time and data, and returns decisions.
//!
//! Nothing here waits, reads a clock, draws a random number or does I/O.
//! A loop of `musterbeat-engine` waits, asks this crate, and carries out the answer
//! through the [ports](port), which `musterbeat-db` and `musterbeat-pubsub` implement.
//!
//! ```
//! use musterbeat_core::chat::{decide, table, Event, WhenBusy, Write, QUEUE_MAX};
//! use musterbeat_core::message::{Content, Turn};
//! use musterbeat_core::run::RunStatus;
//!
//! let waiting = table::State::ALL[0].facts(0);
//! let turn = Turn { content: Content::text("hello")?, model: None, created_by: None };
//! let event = Event::Send { turn, when_busy: WhenBusy::Queue };
//! let effects = decide(&waiting, event, QUEUE_MAX)?.expect("it changes the chat");
//! assert_eq!(effects.status, RunStatus::Pending);
//! assert!(matches!(effects.writes[..], [Write::Append(_)]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod id;
pub mod invalid;
pub mod timestamp;

pub mod message;
pub mod run;

pub mod lease;
pub mod roster;
pub mod sighting;
pub mod summons;

pub mod activity;
pub mod build;
pub mod call;
pub mod chat;
pub mod diff;
pub mod lineage;
pub mod metadata;
pub mod model_config;
pub mod page;
pub mod prebuild;
pub mod refresh;
pub mod template;
pub mod workspace;

pub mod backoff;
pub mod batch;
pub mod finding;
pub mod metric;
pub mod mix;

pub mod port;
