//! The testkit, tested through what it offers to the other crates.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod database;
mod journal;
mod models;
mod own_postgres;
mod pgbouncer;
mod proxy;
mod settings;
mod wait;

use std::time::Duration;

/// Long enough for a busy machine; nothing waits for it to pass.
const SOON: Duration = Duration::from_mins(1);
