//! The metrics of this crate.

use metrics::{counter, gauge};
use musterbeat_core::metric::{Kind, Metric, Unit};

/// How often hosts were asked.
const CALLS: Metric = Metric {
    name: "musterbeat_git_calls_total",
    kind: Kind::Counter,
    unit: Unit::Count,
    labels: &["outcome"],
    help: "Calls of hosts: answered anew, answered as not modified, or failed.",
};

/// How much is kept of their answers.
const CACHE_BYTES: Metric = Metric {
    name: "musterbeat_git_cache_bytes",
    kind: Kind::Gauge,
    unit: Unit::Bytes,
    labels: &[],
    help: "Bytes that the cache of answers holds.",
};

/// Every metric of this crate.
pub const METRICS: &[Metric] = &[CALLS, CACHE_BYTES];

/// How a call ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Outcome {
    Fresh,
    NotModified,
    Failed,
}

pub(crate) fn called(outcome: Outcome) {
    let outcome = match outcome {
        Outcome::Fresh => "fresh",
        Outcome::NotModified => "not_modified",
        Outcome::Failed => "failed",
    };
    counter!(CALLS.name, "outcome" => outcome).increment(1);
}

pub(crate) fn cache_grew(bytes: usize) {
    gauge!(CACHE_BYTES.name).increment(gauge_value(bytes));
}

pub(crate) fn cache_shrank(bytes: usize) {
    gauge!(CACHE_BYTES.name).decrement(gauge_value(bytes));
}

fn gauge_value(bytes: usize) -> f64 {
    // Exact up to 4 GiB, and a cache of more is none.
    u32::try_from(bytes).unwrap_or(u32::MAX).into()
}
