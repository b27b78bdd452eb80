//! The statements and the store, each test on a PostgreSQL database of its own.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod beats;
mod caps;
mod chats;
mod diffs;
mod doctor;
mod family;
mod faults;
mod feed;
mod matrix;
mod messages;
mod metadata;
mod migrations;
mod plans;
mod queue;
mod recovery;
mod runs;
mod setup;
mod statements;
mod tokens;
