//! The metrics of this crate.

use std::time::Duration;

use metrics::{counter, gauge, histogram};
use musterbeat_core::metric::{Kind, Metric, Unit};
use musterbeat_core::port::{Notice, ResyncCause, Topic};

/// How many changes were published here.
const PUBLISHED: Metric = Metric {
    name: "musterbeat_notices_published_total",
    kind: Kind::Counter,
    unit: Unit::Count,
    labels: &["topic"],
    help: "Changes that this process published.",
};

/// How many notices watchers took.
const DELIVERED: Metric = Metric {
    name: "musterbeat_notices_delivered_total",
    kind: Kind::Counter,
    unit: Unit::Count,
    labels: &["topic"],
    help: "Notices that watchers took; one may name many changes.",
};

/// How many of them named nothing.
const RESYNCS: Metric = Metric {
    name: "musterbeat_resyncs_total",
    kind: Kind::Counter,
    unit: Unit::Count,
    labels: &["cause"],
    help: "Notices after which a watcher had to read everything again.",
};

/// How many watch.
const WATCHERS: Metric = Metric {
    name: "musterbeat_watchers",
    kind: Kind::Gauge,
    unit: Unit::Count,
    labels: &["topic"],
    help: "Watchers in this process.",
};

/// How many statements told what changed.
const FLUSHES: Metric = Metric {
    name: "musterbeat_notify_flushes_total",
    kind: Kind::Counter,
    unit: Unit::Count,
    labels: &["outcome"],
    help: "Statements that published changes: answered, or failed and tried again.",
};

/// How long they took.
const FLUSH_SECONDS: Metric = Metric {
    name: "musterbeat_notify_flush_seconds",
    kind: Kind::Histogram,
    unit: Unit::Seconds,
    labels: &[],
    help: "Time of a statement that published changes, from its sending to its answer.",
};

/// How many distinct ids were told.
const IDS: Metric = Metric {
    name: "musterbeat_notify_ids_total",
    kind: Kind::Counter,
    unit: Unit::Count,
    labels: &[],
    help: "Distinct changes that were published to other processes; the changes published here, \
           divided by these, say how many became one.",
};

/// How many payloads told them.
const PAYLOADS: Metric = Metric {
    name: "musterbeat_notify_payloads_total",
    kind: Kind::Counter,
    unit: Unit::Count,
    labels: &[],
    help: "Payloads that published them.",
};

/// How many bytes these had.
const PAYLOAD_BYTES: Metric = Metric {
    name: "musterbeat_notify_payload_bytes_total",
    kind: Kind::Counter,
    unit: Unit::Bytes,
    labels: &[],
    help: "Bytes of these payloads.",
};

/// How long changes take to come back.
const ROUND_TRIP_SECONDS: Metric = Metric {
    name: "musterbeat_notify_round_trip_seconds",
    kind: Kind::Histogram,
    unit: Unit::Seconds,
    labels: &[],
    help: "Time from asking for a heartbeat to its arrival at the process that sent it.",
};

/// Whether somebody listens.
const LISTENING: Metric = Metric {
    name: "musterbeat_notify_listening",
    kind: Kind::Gauge,
    unit: Unit::Count,
    labels: &[],
    help: "Whether this process listens: 1 or 0.",
};

/// How often the listening connection was lost.
const CONNECTIONS_LOST: Metric = Metric {
    name: "musterbeat_notify_connections_lost_total",
    kind: Kind::Counter,
    unit: Unit::Count,
    labels: &["cause"],
    help: "Connections that listened and were given up, or could not be made.",
};

/// How often something did not arrive.
const GAPS: Metric = Metric {
    name: "musterbeat_notify_gaps_total",
    kind: Kind::Counter,
    unit: Unit::Count,
    labels: &["topic"],
    help: "Holes in what a publisher told, on a connection that was not lost.",
};

/// How often something arrived that is not understood.
const NOT_UNDERSTOOD: Metric = Metric {
    name: "musterbeat_notify_not_understood_total",
    kind: Kind::Counter,
    unit: Unit::Count,
    labels: &["topic"],
    help: "Payloads that were not understood and were taken for a change of everything.",
};

/// Every metric of this crate.
pub const METRICS: &[Metric] = &[
    PUBLISHED,
    DELIVERED,
    RESYNCS,
    WATCHERS,
    FLUSHES,
    FLUSH_SECONDS,
    IDS,
    PAYLOADS,
    PAYLOAD_BYTES,
    ROUND_TRIP_SECONDS,
    LISTENING,
    CONNECTIONS_LOST,
    GAPS,
    NOT_UNDERSTOOD,
];

/// A flush of `ids` distinct ids was answered.
pub(crate) fn told(ids: usize, payloads: &[String], elapsed: Duration) {
    counter!(FLUSHES.name, "outcome" => "answered").increment(1);
    histogram!(FLUSH_SECONDS.name).record(elapsed);
    counter!(IDS.name).increment(ids as u64);
    counter!(PAYLOADS.name).increment(payloads.len() as u64);
    let bytes: usize = payloads.iter().map(String::len).sum();
    counter!(PAYLOAD_BYTES.name).increment(bytes as u64);
}

pub(crate) fn not_told() {
    counter!(FLUSHES.name, "outcome" => "failed").increment(1);
}

pub(crate) fn came_back(elapsed: Duration) {
    histogram!(ROUND_TRIP_SECONDS.name).record(elapsed);
}

pub(crate) fn listening(listening: bool) {
    gauge!(LISTENING.name).set(f64::from(u8::from(listening)));
}

pub(crate) fn connection_lost(cause: ResyncCause) {
    counter!(CONNECTIONS_LOST.name, "cause" => cause.as_str()).increment(1);
}

pub(crate) fn gap(topic: Topic) {
    counter!(GAPS.name, "topic" => topic.as_str()).increment(1);
}

pub(crate) fn not_understood(topic: Topic) {
    counter!(NOT_UNDERSTOOD.name, "topic" => topic.as_str()).increment(1);
}

pub(crate) fn published(topic: Topic, changes: usize) {
    counter!(PUBLISHED.name, "topic" => topic.as_str()).increment(changes as u64);
}

pub(crate) fn delivered(topic: Topic, notice: &Notice) {
    counter!(DELIVERED.name, "topic" => topic.as_str()).increment(1);
    if let Notice::Resync(resync) = notice {
        counter!(RESYNCS.name, "cause" => resync.cause.as_str()).increment(1);
    }
}

pub(crate) fn watcher_began(topic: Topic) {
    gauge!(WATCHERS.name, "topic" => topic.as_str()).increment(1);
}

pub(crate) fn watcher_ended(topic: Topic) {
    gauge!(WATCHERS.name, "topic" => topic.as_str()).decrement(1);
}
