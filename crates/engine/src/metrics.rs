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
pub(crate) const CLAIM_TIMEOUTS: Metric = counter(
    "musterbeat_claim_timeouts_total",
    &["kind"],
    "Claims whose answer did not come in time; what they took comes back as orphans.",
);
pub(crate) const BEATS: Metric =
    counter("musterbeat_beats_total", &["outcome"], "Beats sent: one statement each.");
pub(crate) const BEAT_SECONDS: Metric = Metric {
    name: "musterbeat_beat_seconds",
    kind: Kind::Histogram,
    unit: Unit::Seconds,
    labels: &[],
    help: "Time from sending a beat to its answer with the whole roll.",
};
pub(crate) const ROLL_RUNS: Metric =
    gauge("musterbeat_roll_runs", Unit::Count, &[], "Runs on the roll of the last beat.");
pub(crate) const RUNS_LOST: Metric = counter(
    "musterbeat_runs_lost_total",
    &[],
    "Runs that a roll call found to be somebody else's, and stopped.",
);
pub(crate) const RUNS_ORPHANED: Metric = counter(
    "musterbeat_runs_orphaned_total",
    &[],
    "Runs that a roll call found owned and not worked on, each time it did.",
);
pub(crate) const RUNS_INTERRUPTED: Metric = counter(
    "musterbeat_runs_interrupted_total",
    &[],
    "Runs that learnt of an interrupt by a roll call and not by a notice.",
);
pub(crate) const LEASES_LIVE: Metric =
    gauge("musterbeat_leases_live", Unit::Count, &[], "Workers that are not marked dead.");
pub(crate) const LEASES_MARKED: Metric =
    counter("musterbeat_leases_marked_total", &[], "Leases of others that were marked dead.");
pub(crate) const LEASES_LAPSED: Metric = counter(
    "musterbeat_leases_lapsed_total",
    &["cause"],
    "Leases of this process that it could believe in no longer: everything was stopped.",
);
pub(crate) const RUNS_RECOVERED: Metric = counter(
    "musterbeat_runs_recovered_total",
    &["kind"],
    "Runs of dead workers that became pending again.",
);
pub(crate) const RUNS_GIVEN_UP: Metric = counter(
    "musterbeat_runs_given_up_total",
    &["kind"],
    "Runs that went to error because their workers kept dying.",
);
pub(crate) const RUNS_PENDING: Metric = gauge(
    "musterbeat_runs_pending",
    Unit::Count,
    &["kind"],
    "Runs that wait for a worker, counted up to 10,000.",
);
pub(crate) const RUNS_PENDING_OLDEST_SECONDS: Metric = gauge(
    "musterbeat_runs_pending_oldest_seconds",
    Unit::Seconds,
    &["kind"],
    "For how long the pending run that was ready first has been.",
);
pub(crate) const UPKEEP_FAILURES: Metric = counter(
    "musterbeat_upkeep_failures_total",
    &[],
    "Attempts to take back, stamp or count runs that failed and are repeated.",
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
pub(crate) const RUNS_WAITING: Metric = gauge(
    "musterbeat_runs_waiting",
    Unit::Count,
    &["kind"],
    "Runs of this worker that wait for others, and take no room of its capacity.",
);
pub(crate) const WAITS_BOUND_MET: Metric = counter(
    "musterbeat_waits_bound_met_total",
    &["kind"],
    "Looks for work that left runs without ancestors to others: three times the capacity is owned.",
);
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
pub(crate) const STREAM_PARTS_REFUSED: Metric = counter(
    "musterbeat_stream_parts_refused_total",
    &[],
    "Pieces of answers dropped because they could not be encoded: they are not JSON.",
);
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

pub(crate) const ACTIVITY_PENDING: Metric = gauge(
    "musterbeat_activity_pending",
    Unit::Count,
    &[],
    "Workspaces and chats in which somebody worked, and of which that is not written yet.",
);
pub(crate) const ACTIVITY_WRITES: Metric = counter(
    "musterbeat_activity_writes_total",
    &[],
    "Writes of where somebody works: one statement each.",
);
pub(crate) const ACTIVITY_WRITE_FAILURES: Metric = counter(
    "musterbeat_activity_write_failures_total",
    &[],
    "Writes of where somebody works that failed; what they held is in the next one.",
);
pub(crate) const ACTIVITY_WORKSPACES: Metric = counter(
    "musterbeat_activity_workspaces_total",
    &[],
    "Workspaces that such writes found, each time they did.",
);
pub(crate) const ACTIVITY_REFUSED: Metric = counter(
    "musterbeat_activity_refused_total",
    &[],
    "Marks of activity that were lost since too many wait.",
);
pub(crate) const METADATA_PENDING: Metric = gauge(
    "musterbeat_metadata_pending",
    Unit::Count,
    &[],
    "Entries that agents reported and that wait to be written.",
);
pub(crate) const METADATA_WRITTEN: Metric = counter(
    "musterbeat_metadata_written_total",
    &[],
    "Entries that were written, or were older than what is stored.",
);
pub(crate) const METADATA_REFUSED: Metric = counter(
    "musterbeat_metadata_refused_total",
    &[],
    "Entries that were refused since too many wait; their senders were told.",
);
pub(crate) const METADATA_DROPPED: Metric = counter(
    "musterbeat_metadata_dropped_total",
    &["cause"],
    "Entries that storage refuses, or that were left at the end.",
);
pub(crate) const METADATA_RETRIES: Metric = counter(
    "musterbeat_metadata_retries_total",
    &[],
    "Writes that found storage away; what they held went back.",
);
pub(crate) const METADATA_FLUSH_ENTRIES: Metric = Metric {
    name: "musterbeat_metadata_flush_entries",
    kind: Kind::Histogram,
    unit: Unit::Count,
    labels: &[],
    help: "Entries of a flush.",
};
pub(crate) const METADATA_AGENT_KEYS: Metric = Metric {
    name: "musterbeat_metadata_agent_keys",
    kind: Kind::Histogram,
    unit: Unit::Count,
    labels: &[],
    help: "Values of one agent in a flush.",
};
pub(crate) const METADATA_FLUSH_SECONDS: Metric = Metric {
    name: "musterbeat_metadata_flush_seconds",
    kind: Kind::Histogram,
    unit: Unit::Seconds,
    labels: &["reason"],
    help: "Time that a flush takes, by why it began.",
};
pub(crate) const METADATA_WATCHED: Metric = gauge(
    "musterbeat_metadata_agents_watched",
    Unit::Count,
    &[],
    "Agents whose values somebody watches here.",
);
pub(crate) const METADATA_READS: Metric = counter(
    "musterbeat_metadata_reads_total",
    &[],
    "Statements that read what changed, for all who watch.",
);
pub(crate) const LOOKUP_ASKED: Metric = counter(
    "musterbeat_lookup_asked_total",
    &["of"],
    "Questions about agents, whether or not the answer was remembered.",
);
pub(crate) const LOOKUPS: Metric = counter(
    "musterbeat_lookups_total",
    &["of"],
    "Statements that looked up agents, each for all who asked meanwhile.",
);
pub(crate) const REFRESH_ANSWERS: Metric = counter(
    "musterbeat_refresh_answers_total",
    &["outcome"],
    "Questions about branches that hosts were asked, by what came back.",
);
pub(crate) const REFRESHED: Metric = counter(
    "musterbeat_refreshed_total",
    &[],
    "Chats whose branch was asked about, or left alone, and written.",
);
pub(crate) const REFRESH_SECONDS: Metric = Metric {
    name: "musterbeat_refresh_seconds",
    kind: Kind::Histogram,
    unit: Unit::Seconds,
    labels: &[],
    help: "Time from leasing a batch of stale branches to having written it.",
};
pub(crate) const REFRESH_WRITES_GIVEN_UP: Metric = counter(
    "musterbeat_refresh_writes_given_up_total",
    &[],
    "Branches whose state could not be written; they are stale again when their lease ends.",
);
pub(crate) const BUILDS_ENDED: Metric = counter(
    "musterbeat_builds_ended_total",
    &["transition", "outcome"],
    "Builds that ended, by what they did and how.",
);
pub(crate) const BUILD_SECONDS: Metric = Metric {
    name: "musterbeat_build_seconds",
    kind: Kind::Histogram,
    unit: Unit::Seconds,
    labels: &["transition"],
    help: "Time from a worker's taking a build to its end.",
};
pub(crate) const BUILD_LOG_LINES_LOST: Metric = counter(
    "musterbeat_build_log_lines_lost_total",
    &[],
    "Lines of builds that could not be kept.",
);
pub(crate) const REPLACEMENTS: Metric = counter(
    "musterbeat_replacements_total",
    &["transition"],
    "Things that a claim has to build anew, each of which makes it slower.",
);
pub(crate) const CLAIM_SECONDS: Metric = Metric {
    name: "musterbeat_prebuild_claim_seconds",
    kind: Kind::Histogram,
    unit: Unit::Seconds,
    labels: &[],
    help: "Time that a claim of a prebuild takes, when one is ready.",
};
pub(crate) const PREBUILD_REFILL_SECONDS: Metric = Metric {
    name: "musterbeat_prebuild_refill_seconds",
    kind: Kind::Histogram,
    unit: Unit::Seconds,
    labels: &[],
    help: "Time from the first claim to a pool's being full again.",
};
pub(crate) const PREBUILDS_CREATED: Metric = counter(
    "musterbeat_prebuilds_created_total",
    &["template_name", "preset_name"],
    "Prebuilds that were ordered.",
);
pub(crate) const PREBUILDS_FAILED: Metric = counter(
    "musterbeat_prebuilds_failed_total",
    &["template_name", "preset_name"],
    "Builds of prebuilds that failed.",
);
pub(crate) const PREBUILDS_CLAIMED: Metric = counter(
    "musterbeat_prebuilds_claimed_total",
    &["template_name", "preset_name"],
    "Prebuilds that were claimed.",
);
pub(crate) const PREBUILDS_DESIRED: Metric = gauge(
    "musterbeat_prebuilds_desired",
    Unit::Count,
    &["template_name", "preset_name"],
    "Prebuilds that are wanted now; of whoever leads.",
);
pub(crate) const PREBUILDS_RUNNING: Metric = gauge(
    "musterbeat_prebuilds_running",
    Unit::Count,
    &["template_name", "preset_name"],
    "Prebuilds that are there, expired or not.",
);
pub(crate) const PREBUILDS_ELIGIBLE: Metric = gauge(
    "musterbeat_prebuilds_eligible",
    Unit::Count,
    &["template_name", "preset_name"],
    "Prebuilds that can be claimed.",
);
pub(crate) const PREBUILDS_OLDEST_SECONDS: Metric = gauge(
    "musterbeat_prebuilds_oldest_seconds",
    Unit::Seconds,
    &["template_name", "preset_name"],
    "Age of the oldest prebuild that can be claimed.",
);
pub(crate) const PRESETS_HARD_LIMITED: Metric = gauge(
    "musterbeat_presets_hard_limited",
    Unit::Count,
    &["template_name", "preset_name"],
    "Presets of which nothing is built any more, after failures.",
);
pub(crate) const PRESETS_VALIDATION_FAILED: Metric = gauge(
    "musterbeat_presets_validation_failed",
    Unit::Count,
    &["template_name", "preset_name"],
    "Presets of which nothing is built, since what they ask for is not valid.",
);
pub(crate) const PREBUILDS_PAUSED: Metric = gauge(
    "musterbeat_prebuilds_paused",
    Unit::Count,
    &[],
    "Whether the supply of pools is paused.",
);
pub(crate) const PREBUILDS_SNAPSHOT_SECONDS: Metric = gauge(
    "musterbeat_prebuilds_snapshot_timestamp_seconds",
    Unit::Seconds,
    &[],
    "When the pools were last looked at, since 1970.",
);
pub(crate) const RECONCILE_LEADS: Metric = gauge(
    "musterbeat_reconcile_leads",
    Unit::Count,
    &[],
    "Whether this process supplies the pools.",
);
pub(crate) const RECONCILE_SECONDS: Metric = Metric {
    name: "musterbeat_reconcile_seconds",
    kind: Kind::Histogram,
    unit: Unit::Seconds,
    labels: &[],
    help: "Time from a look at all pools to the last order for them.",
};
pub(crate) const RECONCILE_ACTIONS: Metric = counter(
    "musterbeat_reconcile_actions_total",
    &["action"],
    "Prebuilds that were ordered, deleted or taken back, and builds that were forgotten.",
);
pub(crate) const RECONCILE_FAILURES: Metric = counter(
    "musterbeat_reconcile_failures_total",
    &["step"],
    "Steps of supplying pools that failed, and are tried again at the next look.",
);

/// Every metric of this crate.
pub const METRICS: &[Metric] = &[
    CLAIMS,
    CLAIM_FAILURES,
    CLAIM_TIMEOUTS,
    BEATS,
    BEAT_SECONDS,
    ROLL_RUNS,
    RUNS_LOST,
    RUNS_ORPHANED,
    RUNS_INTERRUPTED,
    LEASES_LIVE,
    LEASES_MARKED,
    LEASES_LAPSED,
    RUNS_RECOVERED,
    RUNS_GIVEN_UP,
    RUNS_PENDING,
    RUNS_PENDING_OLDEST_SECONDS,
    UPKEEP_FAILURES,
    RUNS_CLAIMED,
    RUNS_ENDED,
    RUNS_OWNED,
    RUNS_WAITING,
    WAITS_BOUND_MET,
    WRITES_GIVEN_UP,
    STREAM_READERS,
    STREAM_BUFFERED_BYTES,
    STREAM_PARTS,
    STREAM_PARTS_REFUSED,
    STREAM_RESYNCS,
    COMMAND_PROGRAMS,
    COMMAND_TURNS,
    ACTIVITY_PENDING,
    ACTIVITY_WRITES,
    ACTIVITY_WRITE_FAILURES,
    ACTIVITY_WORKSPACES,
    ACTIVITY_REFUSED,
    METADATA_PENDING,
    METADATA_WRITTEN,
    METADATA_REFUSED,
    METADATA_DROPPED,
    METADATA_RETRIES,
    METADATA_FLUSH_ENTRIES,
    METADATA_AGENT_KEYS,
    METADATA_FLUSH_SECONDS,
    METADATA_WATCHED,
    METADATA_READS,
    LOOKUP_ASKED,
    LOOKUPS,
    REFRESH_ANSWERS,
    REFRESHED,
    REFRESH_SECONDS,
    REFRESH_WRITES_GIVEN_UP,
    BUILDS_ENDED,
    BUILD_SECONDS,
    BUILD_LOG_LINES_LOST,
    REPLACEMENTS,
    CLAIM_SECONDS,
    PREBUILD_REFILL_SECONDS,
    PREBUILDS_CREATED,
    PREBUILDS_FAILED,
    PREBUILDS_CLAIMED,
    PREBUILDS_DESIRED,
    PREBUILDS_RUNNING,
    PREBUILDS_ELIGIBLE,
    PREBUILDS_OLDEST_SECONDS,
    PRESETS_HARD_LIMITED,
    PRESETS_VALIDATION_FAILED,
    PREBUILDS_PAUSED,
    PREBUILDS_SNAPSHOT_SECONDS,
    RECONCILE_LEADS,
    RECONCILE_SECONDS,
    RECONCILE_ACTIONS,
    RECONCILE_FAILURES,
];
