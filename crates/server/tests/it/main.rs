//! The server over HTTP, each test with a server and a database of its own.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod access;
mod agents;
mod catalogue;
mod chats;
mod client;
mod diffs;
mod doctor;
mod events;
mod families;
mod mcp;
mod models;
mod operations;
mod outage;
mod ownership;
mod prebuilds;
mod process;
mod recital;
mod refusals;
mod relay;
mod replica;
mod spawning;
mod subagents;
mod summaries;
mod takeovers;
mod tour;
mod turns;
