//! The transports of this crate, through its public API.

#![expect(clippy::unwrap_used, reason = "the helpers of tests are tests, too")]

mod conformance;
mod doctor;
mod memory;
mod pooler;
mod postgres;
mod queue;
mod torture;
