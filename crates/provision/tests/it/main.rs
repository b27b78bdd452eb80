//! The provisioners with real processes and real folders.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod command;
mod directory;
mod estate;
mod world;
