//! What is to be reported, as far as it concerns who finds it.

use std::time::Duration;

use musterbeat_core::metadata::{INTERVAL_SECONDS_MAX, Key, TIMEOUT_SECONDS_MAX};

/// A value that is to be found again and again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Duty {
    pub(crate) key: Key,
    /// How to find it; empty when this crate knows.
    pub(crate) script: String,
    pub(crate) interval: Duration,
    /// How long that may take.
    pub(crate) time_max: Duration,
}

impl Duty {
    /// Takes over a definition; times that no server should give are brought within bounds.
    pub(crate) fn new(
        key: Key,
        script: String,
        interval_seconds: u32,
        timeout_seconds: u32,
    ) -> Self {
        let bounded = |seconds: u32, max| Duration::from_secs(seconds.clamp(1, max).into());
        Self {
            key,
            script,
            interval: bounded(interval_seconds, INTERVAL_SECONDS_MAX),
            time_max: bounded(timeout_seconds, TIMEOUT_SECONDS_MAX),
        }
    }
}

/// All that is to be reported; at most as many as an agent may have keys, each key once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Assignment {
    /// By which the server tells whether something changed.
    pub(crate) version: i64,
    pub(crate) duties: Vec<Duty>,
}
