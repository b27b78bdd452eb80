//! The metrics of this crate.

use musterbeat_core::metric::{Kind, Metric, Unit};

/// How long calls waited for a connection.
pub(crate) const POOL_WAIT: Metric = Metric {
    name: "musterbeat_pool_wait_seconds",
    kind: Kind::Histogram,
    unit: Unit::Seconds,
    labels: &[],
    help: "Time a call waited for a connection of the pool.",
};

/// How long runs were ready before a worker claimed them.
pub(crate) const READY_TO_RUNNING: Metric = Metric {
    name: "musterbeat_run_ready_to_running_seconds",
    kind: Kind::Histogram,
    unit: Unit::Seconds,
    labels: &["kind"],
    help: "Time from a run's being ready to its claim, on the database's clock.",
};

/// How long events of chats took, and how they ended.
pub(crate) const TRANSITION_SECONDS: Metric = Metric {
    name: "musterbeat_chat_transition_seconds",
    kind: Kind::Histogram,
    unit: Unit::Seconds,
    labels: &["event", "outcome"],
    help: "Time that an event of a chat took, from the wish for a connection to its commit.",
};

/// Every metric of this crate.
pub const METRICS: &[Metric] = &[POOL_WAIT, READY_TO_RUNNING, TRANSITION_SECONDS];
