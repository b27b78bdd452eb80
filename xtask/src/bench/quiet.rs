//! `quiet`: what idle replicas ask their database.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, Table, presets};
use musterbeat_testkit::TestDatabase;
use serde_json::{Value, json};
use sqlx::{PgConnection, Row};
use tokio::time::{Instant, sleep};

use super::replica::Site;
use crate::postgres;

pub(super) const QUESTION: &str = "What do three idle replicas ask their database?";

const REPLICAS: usize = 3;

/// After so long their polls have backed off: the waits double from a second to half a minute.
const BACKING_OFF: Duration = Duration::from_mins(1);

/// How long is measured.
const TIME: Duration = Duration::from_mins(1);

/// What is asked for: fewer statements a second than this, beside the beats.
const PER_SECOND_MAX: f64 = 2.0;

/// What the beats are called, which the bar leaves out.
const BEAT: &str = "beat";

/// Statements told by words that only they have; constants are numbered parameters.
const KINDS: [(&str, &str); 9] = [
    ("with beaten as", BEAT),
    ("is_suspect", "claim, when a worker polls"),
    ("min(ready_at) -", "when the next run is ready, after a claim"),
    ("select min(ready_at) from", "backlog for the metrics, each 15 s"),
    ("select distinct runs.worker_id", "runs without a lease, each minute"),
    ("select worker_id, heartbeat_at, dead", "look at late leases"),
    ("pg_notify", "heartbeat of the notices"),
    ("pg_listening_channels", "sign of life of the connection that listens"),
    ("select lease.worker_id, lease.name", "list of workers"),
];

/// How often each statement was sent, by its text.
type Calls = BTreeMap<String, i64>;

/// What was measured.
pub(super) struct Report {
    seconds: f64,
    calls: Calls,
}

/// Counts the statements of idle replicas.
pub(super) async fn run(database: &TestDatabase, logs: PathBuf) -> Result<Report> {
    let mut conn = database.connect().await?;
    sqlx::query("create extension if not exists pg_stat_statements")
        .execute(&mut conn)
        .await
        .context("the server cannot count statements: install PostgreSQL's contributed modules")?;
    let site = Site::prepare(database.url(), logs).await?;
    let mut replicas = Vec::new();
    for number in 1..=REPLICAS {
        replicas.push(site.start(&format!("quiet-{number}"), &[]).await?);
    }
    postgres::say("waiting until polls have backed off");
    sleep(BACKING_OFF).await;
    postgres::say("counting");
    let (start, before) = (Instant::now(), calls(&mut conn).await?);
    sleep(TIME).await;
    let (seconds, after) = (start.elapsed().as_secs_f64(), calls(&mut conn).await?);
    Ok(Report { seconds, calls: between(&before, after) })
}

/// Reads the counts of this database, but for this very statement.
async fn calls(conn: &mut PgConnection) -> Result<Calls> {
    let query = r"
        select query, sum(calls)::bigint
        from pg_stat_statements
        where dbid = (select oid from pg_database where datname = current_database())
          and query not like '%pg\_stat\_statements%'
        group by query";
    let failed = "failed to read the server's counts of statements";
    let rows = sqlx::query(query).fetch_all(conn).await.context(failed)?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// Returns what was sent between two readings.
fn between(before: &Calls, mut after: Calls) -> Calls {
    for (text, calls) in &mut after {
        *calls -= before.get(text).copied().unwrap_or(0);
    }
    after.retain(|_, calls| 0 < *calls);
    after
}

fn kind(text: &str) -> &'static str {
    KINDS.iter().find(|(words, _)| text.contains(words)).map_or("other", |(_, kind)| kind)
}

impl Report {
    /// Returns each statement with its count, the most frequent first.
    fn sorted(&self) -> Vec<(&str, i64)> {
        let mut all: Vec<_> = self.calls.iter().map(|(text, calls)| (&**text, *calls)).collect();
        all.sort_by_key(|(_, calls)| -calls);
        all
    }

    /// Returns how many statements a second are beats, and how many are not.
    fn rates(&self) -> (f64, f64) {
        let rate = |beats: bool| -> f64 {
            let some = self.calls.iter().filter(|(text, _)| (kind(text) == BEAT) == beats);
            some.map(|(_, calls)| self.per_second(*calls)).sum()
        };
        (rate(true), rate(false))
    }

    #[expect(clippy::cast_precision_loss, reason = "counts of a minute are far below 2^52")]
    fn per_second(&self, calls: i64) -> f64 {
        calls as f64 / self.seconds
    }

    /// Returns what is above the bar.
    pub(super) fn violations(&self) -> Vec<String> {
        let (_, others) = self.rates();
        let text = format!("{others:.2} statements a second beside the beats");
        (PER_SECOND_MAX <= others).then_some(text).into_iter().collect()
    }

    /// Returns the report for a reader.
    pub(super) fn text(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_header(["what it is", "a second", "in all", "statement"]);
        for (text, calls) in self.sorted() {
            let rate = format!("{:.3}", self.per_second(calls));
            table.add_row([kind(text).to_owned(), rate, calls.to_string(), short(text)]);
        }
        for column in table.column_iter_mut().skip(1).take(2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
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
        let statement = |(text, calls): (&str, i64)| {
            let rate = self.per_second(calls);
            json!({ "kind": kind(text), "calls": calls, "per_second": rate, "text": short(text) })
        };
        let (beats, others) = self.rates();
        json!({
            "replicas": REPLICAS,
            "seconds": self.seconds,
            "statements": self.sorted().into_iter().map(statement).collect::<Vec<_>>(),
            "beats_per_second": beats,
            "others_per_second": others,
            "violations": self.violations(),
        })
    }
}

/// Returns the beginning of a statement, on one line.
fn short(text: &str) -> String {
    const CHARACTERS: usize = 60;
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    words.chars().take(CHARACTERS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEATEN: &str = "with beaten as (update worker_leases)";
    const CLAIMED: &str = "update runs where is_suspect";

    #[test]
    fn beats_are_told_apart() {
        let report = |claims| {
            let calls = [(BEATEN, 600), (CLAIMED, claims), ("set x to\n  y", 1)];
            let calls = calls.map(|(text, calls)| (text.to_owned(), calls)).into();
            Report { seconds: 60.0, calls }
        };
        assert!(report(118).violations().is_empty());
        assert_eq!(report(119).violations(), ["2.00 statements a second beside the beats"]);
        let text = report(7).text();
        for word in ["10.000", "claim, when", "other", "set x to y", "beats: 10.00 a second"] {
            assert!(text.contains(word), "no {word} in\n{text}");
        }
    }

    #[test]
    fn what_was_sent_before_does_not_count() {
        let calls = |pairs: &[(&str, i64)]| {
            pairs.iter().map(|(text, calls)| ((*text).to_owned(), *calls)).collect::<Calls>()
        };
        let before = calls(&[("a", 2), ("b", 5)]);
        let after = calls(&[("a", 7), ("b", 5), ("c", 1)]);
        assert_eq!(between(&before, after), calls(&[("a", 5), ("c", 1)]));
    }
}
