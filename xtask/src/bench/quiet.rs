//! `quiet`: what idle replicas ask their database.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use musterbeat_testkit::TestDatabase;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::calls::{self, Calls};
use super::replica::Site;
use crate::postgres;

pub(super) const QUESTION: &str = "What do three idle replicas ask their database?";

const REPLICAS: usize = 3;

/// After so long their polls have backed off: the waits double from a second to half a minute.
pub(super) const BACKING_OFF: Duration = Duration::from_mins(1);

/// How long is measured.
const TIME: Duration = Duration::from_mins(1);

/// What is asked for: fewer statements a second than this, beside the beats.
const PER_SECOND_MAX: f64 = 2.0;

/// What the beats are called, which the bar leaves out.
pub(super) const BEAT: &str = "beat";

/// Statements told by words that only they have; constants are numbered parameters.
const KINDS: [(&str, &str); 10] = [
    ("with beaten as", BEAT),
    ("is_suspect", "claim, when a worker polls"),
    ("min(ready_at) -", "when the next run is ready, after a claim"),
    ("select min(ready_at) from", "backlog for the metrics, each 15 s"),
    ("select distinct runs.worker_id", "runs without a lease, each minute"),
    ("select worker_id, heartbeat_at, dead", "look at late leases"),
    ("pg_notify", "heartbeat of the notices"),
    ("pg_listening_channels", "sign of life of the connection that listens"),
    ("select lease.worker_id, lease.name", "list of workers"),
    ("d.stale_at <=", "look for branches to ask about"),
];

/// What was measured.
pub(super) struct Report {
    seconds: f64,
    calls: Calls,
}

/// Counts the statements of idle replicas.
pub(super) async fn run(database: &TestDatabase, logs: PathBuf) -> Result<Report> {
    let mut conn = database.connect().await?;
    calls::count(&mut conn).await?;
    let site = Site::prepare(database.url(), logs).await?;
    let mut replicas = Vec::new();
    for number in 1..=REPLICAS {
        replicas.push(site.start(&format!("quiet-{number}"), &[]).await?);
    }
    postgres::say("waiting until polls have backed off");
    sleep(BACKING_OFF).await;
    postgres::say("counting");
    let (start, before) = (Instant::now(), Calls::read(&mut conn).await?);
    sleep(TIME).await;
    let (seconds, after) = (start.elapsed().as_secs_f64(), Calls::read(&mut conn).await?);
    Ok(Report { seconds, calls: after.since(&before) })
}

/// Says what a statement is for.
pub(super) fn kind(text: &str) -> &'static str {
    KINDS.iter().find(|(words, _)| text.contains(words)).map_or("other", |(_, kind)| kind)
}

impl Report {
    /// Returns how many statements a second are beats, and how many are not.
    fn rates(&self) -> (f64, f64) {
        let rate = |beats: bool| {
            let calls = self.calls.sum(|text| (kind(text) == BEAT) == beats);
            calls::per_second(calls, self.seconds)
        };
        (rate(true), rate(false))
    }

    /// Returns what is above the bar.
    pub(super) fn violations(&self) -> Vec<String> {
        let (_, others) = self.rates();
        let text = format!("{others:.2} statements a second beside the beats");
        (PER_SECOND_MAX <= others).then_some(text).into_iter().collect()
    }

    /// Returns the report for a reader.
    pub(super) fn text(&self) -> String {
        let table = self.calls.table(self.seconds, kind);
        let (beats, others) = self.rates();
        format!(
            "{REPLICAS} replicas for {:.0} s, {:.0} s after their start\n{table}\n\
             beats: {beats:.2} a second; all others: {others:.2}, and under {PER_SECOND_MAX} are \
             asked for",
            self.seconds,
            BACKING_OFF.as_secs_f64(),
        )
    }

    /// Returns what the line of JSON has beside the commit and the machine.
    pub(super) fn json(&self) -> Value {
        let (beats, others) = self.rates();
        json!({
            "replicas": REPLICAS,
            "seconds": self.seconds,
            "statements": self.calls.json(self.seconds, kind),
            "beats_per_second": beats,
            "others_per_second": others,
            "violations": self.violations(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEATEN: &str = "with beaten as (update worker_leases)";
    const CLAIMED: &str = "update runs where is_suspect";

    #[test]
    fn beats_are_told_apart() {
        let report = |claims| {
            let calls = Calls::from([(BEATEN, 600), (CLAIMED, claims), ("set x to\n  y", 1)]);
            Report { seconds: 60.0, calls }
        };
        assert!(report(118).violations().is_empty());
        assert_eq!(report(119).violations(), ["2.00 statements a second beside the beats"]);
        let text = report(7).text();
        for word in ["10.000", "claim, when", "other", "set x to y", "beats: 10.00 a second"] {
            assert!(text.contains(word), "no {word} in\n{text}");
        }
    }
}
