//! The statements and the store, each test on a PostgreSQL database of its own.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod activity;
mod beats;
mod builds;
mod caps;
mod chats;
mod diffs;
mod doctor;
mod family;
mod faults;
mod feed;
mod lead;
mod matrix;
mod messages;
mod metadata;
mod migrations;
mod models;
mod plans;
mod pools;
mod prebuilds;
mod queue;
mod recovery;
mod runs;
mod setup;
mod statements;
mod subagents;
mod supply;
mod templates;
mod tokens;
mod workspaces;
