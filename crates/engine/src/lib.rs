//! The loops that keep work running: claim, run, finish, hand over.
//!
//! The crate knows only `musterbeat-core`: it meets storage, notices and those who bring work
//! through the ports. A loop waits, reads its clock once, asks `core`, and carries out the answer.
//!
//! A [`Worker`](worker::Worker) owns runs of the kinds that its runners take. Chats are one kind:
//! [`ChatRuns`](chat::ChatRuns) takes them and asks a `ChatRunner`, such as
//! [`Echo`](echo::Echo) or [`Command`](command::Command), for each answer. [`PartStreams`](parts::PartStreams) carry the pieces
//! of an answer to whoever follows it live.

pub mod clock;
pub mod shutdown;

pub mod parts;
pub mod worker;

pub mod activity;
pub mod agents;
pub mod builds;
pub mod chat;
pub mod command;
pub mod echo;
pub mod metadata;
pub mod prebuild;
pub mod refresh;
pub mod runs;
pub mod workspaces;

pub mod lookup;
pub mod metrics;
pub mod notices;
pub mod weak_map;

mod context;
mod panic;
mod retry;
