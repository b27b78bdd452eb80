//! What the domain must keep, whoever uses it: a search through the ownership of runs.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod search;
