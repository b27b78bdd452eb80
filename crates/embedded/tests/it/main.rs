//! The crate through its public API, with real servers.
//!
//! `MUSTERBEAT_POSTGRES` chooses the binaries, in the text form of `Source`.
//! The suite passes as root and as an ordinary user.

#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod find;
mod folder;
mod helper;
mod life;
mod start;
