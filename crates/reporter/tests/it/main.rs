//! The reporter with real requests and real processes, and so real time.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod report;
mod server;
