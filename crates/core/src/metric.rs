//! How a metric is declared: once, with its unit and help, in the `metrics.rs` of its crate.
//!
//! The declarations are described to the exporter at start and listed in `docs/metrics.md`.

use std::fmt;

/// One metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Metric {
    /// Name as exported, with the prefix `musterbeat_` and the unit last.
    pub name: &'static str,
    /// How its values are to be read.
    pub kind: Kind,
    /// What its values count.
    pub unit: Unit,
    /// Keys of its labels; each has few values, never an id.
    pub labels: &'static [&'static str],
    /// One sentence for whoever reads the dashboard.
    pub help: &'static str,
}

/// How a metric's values are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// A distribution.
    Histogram,
}

/// What a metric's values count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Things.
    Count,
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
}

impl Unit {
    /// Returns the unit's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Seconds => "seconds",
            Self::Bytes => "bytes",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        })
    }
}
