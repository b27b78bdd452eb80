//! The metrics of this crate.

use metrics::{counter, gauge};
use musterbeat_core::metric::{Kind, Metric, Unit};
use musterbeat_core::port::{Notice, Topic};

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

/// Every metric of this crate.
pub const METRICS: &[Metric] = &[PUBLISHED, DELIVERED, RESYNCS, WATCHERS];

pub(crate) fn published(topic: Topic) {
    counter!(PUBLISHED.name, "topic" => topic.as_str()).increment(1);
}

pub(crate) fn delivered(topic: Topic, notice: &Notice) {
    counter!(DELIVERED.name, "topic" => topic.as_str()).increment(1);
    if let Notice::Resync(cause) = notice {
        counter!(RESYNCS.name, "cause" => cause.as_str()).increment(1);
    }
}

pub(crate) fn watcher_began(topic: Topic) {
    gauge!(WATCHERS.name, "topic" => topic.as_str()).increment(1);
}

pub(crate) fn watcher_ended(topic: Topic) {
    gauge!(WATCHERS.name, "topic" => topic.as_str()).decrement(1);
}
