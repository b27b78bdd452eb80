//! The metrics of this crate, and the recorder of them all.

use std::sync::OnceLock;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use musterbeat_core::metric::{Kind, Metric, Unit};

pub(crate) const HTTP_REQUESTS: Metric = Metric {
    name: "musterbeat_http_requests_total",
    kind: Kind::Counter,
    unit: Unit::Count,
    labels: &["route", "method", "status"],
    help: "Requests answered.",
};

pub(crate) const HTTP_SECONDS: Metric = Metric {
    name: "musterbeat_http_request_seconds",
    kind: Kind::Histogram,
    unit: Unit::Seconds,
    labels: &["route"],
    help: "Time until a response began.",
};

pub(crate) const HTTP_CONNECTIONS: Metric = Metric {
    name: "musterbeat_http_connections",
    kind: Kind::Gauge,
    unit: Unit::Count,
    labels: &[],
    help: "Connections that are open.",
};

pub(crate) const HTTP_CONNECTIONS_REFUSED: Metric = Metric {
    name: "musterbeat_http_connections_refused_total",
    kind: Kind::Counter,
    unit: Unit::Count,
    labels: &[],
    help: "Connections closed because their address had enough.",
};

pub(crate) const FOLLOWERS: Metric = Metric {
    name: "musterbeat_followers",
    kind: Kind::Gauge,
    unit: Unit::Count,
    labels: &[],
    help: "Event streams of chats that are open.",
};

pub(crate) const CHATS_FOLLOWED: Metric = Metric {
    name: "musterbeat_chats_followed",
    kind: Kind::Gauge,
    unit: Unit::Count,
    labels: &[],
    help: "Chats with at least one event stream.",
};

pub(crate) const CHAT_READS: Metric = Metric {
    name: "musterbeat_follow_reads_total",
    kind: Kind::Counter,
    unit: Unit::Count,
    labels: &["for"],
    help: "Reads of what changed in a followed chat: for all its followers, or for one that came or fell behind.",
};

pub(crate) const DELTAS_SHARED: Metric = Metric {
    name: "musterbeat_follow_shared_total",
    kind: Kind::Counter,
    unit: Unit::Count,
    labels: &[],
    help: "Times that a follower was told what had been read for all.",
};

pub(crate) const RELAYS: Metric = Metric {
    name: "musterbeat_relays",
    kind: Kind::Gauge,
    unit: Unit::Count,
    labels: &[],
    help: "Connections that bring the parts of chats that other replicas work on.",
};

pub(crate) const RELAYS_SERVED: Metric = Metric {
    name: "musterbeat_relays_served",
    kind: Kind::Gauge,
    unit: Unit::Count,
    labels: &[],
    help: "Connections that bring other replicas the parts of chats that this one works on.",
};

pub(crate) const RELAY_DIALS: Metric = Metric {
    name: "musterbeat_relay_dials_total",
    kind: Kind::Counter,
    unit: Unit::Count,
    labels: &["outcome"],
    help: "Dials of other replicas for parts: connected, not_there, refused or failed.",
};

/// Every metric of this crate.
pub const METRICS: &[Metric] = &[
    HTTP_REQUESTS,
    HTTP_SECONDS,
    HTTP_CONNECTIONS,
    HTTP_CONNECTIONS_REFUSED,
    FOLLOWERS,
    CHATS_FOLLOWED,
    CHAT_READS,
    DELTAS_SHARED,
    RELAYS,
    RELAYS_SERVED,
    RELAY_DIALS,
];

/// Buckets of times: from a fast statement to a model that thinks.
const SECONDS: [f64; 16] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
    60.0,
];

/// Buckets of sizes: from a word to a whole library.
const BYTES: [f64; 9] =
    [64.0, 256.0, 1_024.0, 4_096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0, 4_194_304.0];

/// Installs the recorder of this process and describes every metric to it; once.
///
/// # Errors
/// Says that somebody else installed another recorder.
pub(crate) fn recorder() -> anyhow::Result<PrometheusHandle> {
    static RECORDER: OnceLock<Result<PrometheusHandle, String>> = OnceLock::new();
    let installed = RECORDER.get_or_init(|| {
        let handle = PrometheusBuilder::new()
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS)
            .and_then(|builder| {
                builder.set_buckets_for_metric(Matcher::Suffix("_bytes".to_owned()), &BYTES)
            })
            .and_then(PrometheusBuilder::install_recorder)
            .map_err(|error| error.to_string())?;
        describe_all();
        metrics_process::Collector::default().describe();
        Ok(handle)
    });
    installed.clone().map_err(|error| anyhow::anyhow!("failed to install the metrics: {error}"))
}

/// Returns the metrics of all crates that this server wires.
pub fn all() -> impl Iterator<Item = &'static Metric> {
    let crates = [
        musterbeat_agent::metrics::METRICS,
        musterbeat_db::metrics::METRICS,
        musterbeat_engine::metrics::METRICS,
        musterbeat_git::metrics::METRICS,
        musterbeat_pubsub::metrics::METRICS,
        METRICS,
    ];
    crates.into_iter().flatten()
}

fn describe_all() {
    for metric in all() {
        let unit = match metric.unit {
            Unit::Count => metrics::Unit::Count,
            Unit::Seconds => metrics::Unit::Seconds,
            Unit::Bytes => metrics::Unit::Bytes,
        };
        match metric.kind {
            Kind::Counter => metrics::describe_counter!(metric.name, unit, metric.help),
            Kind::Gauge => metrics::describe_gauge!(metric.name, unit, metric.help),
            Kind::Histogram => metrics::describe_histogram!(metric.name, unit, metric.help),
        }
    }
}
