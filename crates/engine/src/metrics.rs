//! The metrics of this crate.

use musterbeat_core::metric::{Kind, Metric, Unit};

const fn counter(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric { name, kind: Kind::Counter, unit: Unit::Count, labels, help }
}

const fn gauge(
    name: &'static str,
    unit: Unit,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric { name, kind: Kind::Gauge, unit, labels, help }
}

pub(crate) const CLAIMS: Metric =
    counter("musterbeat_claims_total", &["kind"], "Claims sent to the database.");
pub(crate) const CLAIM_FAILURES: Metric = counter(
    "musterbeat_claim_failures_total",
    &["kind"],
    "Claims that failed and were backed off.",
);
pub(crate) const RUNS_CLAIMED: Metric =
    counter("musterbeat_runs_claimed_total", &["kind"], "Runs that this worker came to own.");
pub(crate) const RUNS_ENDED: Metric = counter(
    "musterbeat_runs_ended_total",
    &["kind", "outcome"],
    "Runs that ended on this worker, by how.",
);
pub(crate) const RUNS_OWNED: Metric =
    gauge("musterbeat_runs_owned", Unit::Count, &["kind"], "Runs that this worker works on.");
pub(crate) const WRITES_GIVEN_UP: Metric = counter(
    "musterbeat_run_writes_given_up_total",
    &["kind"],
    "Ends of runs that could not be written in time; the runs wait for their recovery.",
);
pub(crate) const STREAM_READERS: Metric =
    gauge("musterbeat_stream_readers", Unit::Count, &[], "Readers that follow an answer live.");
pub(crate) const STREAM_BUFFERED_BYTES: Metric = gauge(
    "musterbeat_stream_buffered_bytes",
    Unit::Bytes,
    &[],
    "Pieces of unfinished answers held in memory.",
);
pub(crate) const STREAM_PARTS: Metric =
    counter("musterbeat_stream_parts_total", &[], "Pieces of answers published.");
pub(crate) const STREAM_RESYNCS: Metric = counter(
    "musterbeat_stream_resyncs_total",
    &[],
    "Times that a reader was too slow and was told how many pieces it missed.",
);
pub(crate) const COMMAND_PROGRAMS: Metric = gauge(
    "musterbeat_command_programs",
    Unit::Count,
    &[],
    "Programs of the runner `command` that answer a turn.",
);
pub(crate) const COMMAND_TURNS: Metric = counter(
    "musterbeat_command_turns_total",
    &["outcome"],
    "Turns that the runner `command` ended: answered, failed or stopped.",
);

/// Every metric of this crate.
pub const METRICS: &[Metric] = &[
    CLAIMS,
    CLAIM_FAILURES,
    RUNS_CLAIMED,
    RUNS_ENDED,
    RUNS_OWNED,
    WRITES_GIVEN_UP,
    STREAM_READERS,
    STREAM_BUFFERED_BYTES,
    STREAM_PARTS,
    STREAM_RESYNCS,
    COMMAND_PROGRAMS,
    COMMAND_TURNS,
];
