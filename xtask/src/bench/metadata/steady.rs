//! What agents that report in their rhythm ask of the database, and what becomes of it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use musterbeat_testkit::TestDatabase;
use serde_json::json;
use sqlx::{PgConnection, Row};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::super::calls::{self, Calls};
use super::super::replica::Site;
use super::super::report::Section;
use super::super::stats::percentile;
use super::super::{Output, quiet};
use super::fleet::{Api, Fleet, Load, Outcome, Reports, progress};
use super::{float, key, value};
use crate::postgres;
use audience::{Audience, lateness};

mod audience;

/// What is asked for: no more of these a second.
const WRITES_MAX: f64 = 0.25;
const NOTIFIES_MAX: f64 = 0.25;
/// Of all statements but the beats.
const STATEMENTS_MAX: f64 = 1.0;

/// A watcher knows of a report so long after its answer, at most: a flush, and a second.
const LATE_MAX: Duration = Duration::from_secs(6);

/// Nothing here takes longer on a machine that can be measured on.
const PATIENCE: Duration = Duration::from_mins(2);

/// After the last answer everything is stored within so long: three flushes.
const STORED_WITHIN: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(250);

const WRITE: &str = "write of agents' values";
const NOTIFY: &str = "NOTIFY";

/// Statements that idle replicas do not send, or for another reason.
const KINDS: [(&str, &str); 5] = [
    ("insert into agent_metadata ", WRITE),
    ("update agent_metadata ", WRITE),
    ("pg_notify", NOTIFY),
    ("left join agent_metadata ", "read for all who watch what changed"),
    ("definitions_version,", "what is to be known of agents"),
];

fn kind(text: &str) -> &'static str {
    let own = KINDS.iter().find(|(words, _)| text.contains(words));
    own.map_or_else(|| quiet::kind(text), |(_, kind)| kind)
}

/// What was measured.
struct Found {
    load: Load,
    seconds: f64,
    calls: Calls,
    answers: usize,
    accepted: u64,
    /// Reports that were not taken whole, at any time.
    failures: Vec<String>,
    /// Milliseconds from an answer until a watcher knew.
    late_millis: Vec<f64>,
    /// Reports of which a watcher was never told.
    untold: usize,
    /// Values that are not stored as they were last reported.
    lost: usize,
}

/// Counts for `time` what a replica asks while agents report.
pub(super) async fn run(
    database: &TestDatabase,
    load: Load,
    time: Duration,
    logs: PathBuf,
) -> Result<Output> {
    let mut conn = database.connect().await?;
    calls::count(&mut conn).await?;
    let site = Site::prepare(database.url(), logs).await?;
    let (replica, token) = site.start_guarded("steady").await?;
    let started = Instant::now();
    let mut fleet = Fleet::new(Api::new(replica.url(), Some(token.clone()))?, load);
    fleet.gather().await?;
    let audience = Audience::gather(&replica, &fleet, &token).await?;

    let mut reports = fleet.start();
    postgres::say("waiting until each agent has reported once, and polls have backed off");
    let mut outcomes = warm_up(&mut reports, &fleet).await?;
    sleep(quiet::BACKING_OFF.saturating_sub(started.elapsed())).await;
    let (start, before) = (Instant::now(), Calls::read(&mut conn).await?);
    pass(time).await;
    let (end, after) = (Instant::now(), Calls::read(&mut conn).await?);
    outcomes.extend(reports.end().await?);

    let last = last_rounds(&outcomes);
    let lost = lost(&mut conn, &fleet, &last).await?;
    let told = audience.end().await?;
    let (late_millis, untold) = lateness(&outcomes, &told);
    let within: Vec<_> =
        outcomes.iter().filter(|it| start <= it.answered && it.answered < end).collect();
    let taken = within.iter().filter_map(|outcome| outcome.answer.as_ref().ok());
    let found = Found {
        load,
        seconds: (end - start).as_secs_f64(),
        calls: after.since(&before),
        answers: taken.clone().count(),
        accepted: taken.map(|answer| answer.accepted).sum(),
        failures: outcomes.iter().filter_map(|outcome| failure(outcome, load)).collect(),
        late_millis,
        untold,
        lost,
    };
    Ok(found.output())
}

/// Waits until every agent has had an answer.
async fn warm_up(reports: &mut Reports, fleet: &Fleet) -> Result<Vec<Outcome>> {
    let mut outcomes = Vec::new();
    let mut missing: Vec<_> = vec![true; fleet.agents.len()];
    let answered = async {
        while missing.contains(&true) {
            let outcome = reports.next().await.context("all agents have ended")?;
            missing[outcome.agent] &= outcome.answer.is_err();
            outcomes.push(outcome);
        }
        anyhow::Ok(())
    };
    timeout(PATIENCE, answered).await.context("some agents have no answer")??;
    Ok(outcomes)
}

/// Shows how time passes.
async fn pass(time: Duration) {
    let bar = progress(time.as_secs(), "counting, by the second");
    for _ in 0..time.as_secs() {
        sleep(Duration::from_secs(1)).await;
        bar.inc(1);
    }
    bar.finish_and_clear();
}

/// Returns the last report of each agent that was answered well.
fn last_rounds(outcomes: &[Outcome]) -> BTreeMap<usize, u64> {
    let mut last = BTreeMap::new();
    for outcome in outcomes.iter().filter(|outcome| outcome.answer.is_ok()) {
        let round = last.entry(outcome.agent).or_default();
        *round = outcome.round.max(*round);
    }
    last
}

/// Says why a report was not taken whole.
fn failure(outcome: &Outcome, load: Load) -> Option<String> {
    match &outcome.answer {
        Ok(answer) if answer.accepted == u64::from(load.keys) && answer.changed == 0 => None,
        Ok(answer) => Some(format!("of a report became {answer:?}")),
        Err(error) => Some(format!("{error:#}")),
    }
}

/// Returns how many values are not stored as they were last answered for, once all had time.
async fn lost(
    conn: &mut PgConnection,
    fleet: &Fleet,
    last: &BTreeMap<usize, u64>,
) -> Result<usize> {
    let deadline = Instant::now() + STORED_WITHIN;
    loop {
        let lost = differing(conn, fleet, last).await?;
        if lost == 0 || deadline < Instant::now() {
            return Ok(lost);
        }
        sleep(PAUSE).await;
    }
}

async fn differing(
    conn: &mut PgConnection,
    fleet: &Fleet,
    last: &BTreeMap<usize, u64>,
) -> Result<usize> {
    let failed = "failed to read what is stored";
    let query = "select agent_id, key, value from agent_metadata";
    let rows = sqlx::query(query).fetch_all(conn).await.context(failed)?;
    let mut stored: BTreeMap<(Uuid, String), String> = BTreeMap::new();
    for row in rows {
        let of = (row.try_get(0).context(failed)?, row.try_get(1).context(failed)?);
        stored.insert(of, row.try_get(2).context(failed)?);
    }
    let keys = 0..fleet.load.keys as usize;
    let expected = last.iter().flat_map(|(agent, round)| {
        keys.clone().map(|number| (*agent, number, value(*agent, number, *round)))
    });
    let differs = |(agent, number, value): &(usize, usize, String)| {
        stored.get(&(fleet.agents[*agent].id, key(*number))) != Some(value)
    };
    Ok(expected.filter(differs).count())
}

impl Found {
    /// Returns how many statements of a kind came a second.
    fn rate(&self, is_meant: impl Fn(&str) -> bool) -> f64 {
        calls::per_second(self.calls.sum(|text| is_meant(kind(text))), self.seconds)
    }

    /// Returns writes, notifications, and all statements but the beats, a second.
    fn rates(&self) -> [f64; 3] {
        let beside_beats = |kind: &str| kind != quiet::BEAT;
        [self.rate(|kind| kind == WRITE), self.rate(|kind| kind == NOTIFY), self.rate(beside_beats)]
    }

    fn late(&self, percent: usize) -> f64 {
        if self.late_millis.is_empty() { f64::NAN } else { percentile(&self.late_millis, percent) }
    }

    /// Returns what is not as it must be.
    fn violations(&self) -> Vec<String> {
        let names = ["writes", "notifications", "statements beside the beats"];
        let bars = [WRITES_MAX, NOTIFIES_MAX, STATEMENTS_MAX];
        let rates = names.iter().zip(self.rates()).zip(bars);
        let mut all: Vec<_> = rates
            .filter(|((_, rate), bar)| bar < rate)
            .map(|((name, rate), bar)| format!("{rate:.2} {name} a second, over {bar}"))
            .collect();
        let late_max = LATE_MAX.as_secs_f64() * 1_000.0;
        if late_max < self.late(100) {
            all.push(format!("a watcher knew after {:.0} ms, over {late_max:.0}", self.late(100)));
        }
        if self.untold > 0 {
            all.push(format!("watchers were never told of {} reports", self.untold));
        }
        if self.lost > 0 {
            all.push(format!("{} values are not stored as they were last taken", self.lost));
        }
        if let [first, ..] = &*self.failures {
            all.push(format!("{} reports failed; the first: {first}", self.failures.len()));
        }
        all
    }

    fn section(&self) -> Section {
        let [writes, notifies, statements] = self.rates();
        let nothing = f64::NAN;
        let answers = float(self.answers) / self.seconds;
        let accepted = float(usize::try_from(self.accepted).unwrap_or(usize::MAX)) / self.seconds;
        let late_max = LATE_MAX.as_secs_f64() * 1_000.0;
        let rows = vec![
            ("reports answered 202 a second", vec![answers, nothing]),
            ("values accepted a second", vec![accepted, nothing]),
            ("writes of values a second", vec![writes, WRITES_MAX]),
            ("NOTIFY a second", vec![notifies, NOTIFIES_MAX]),
            ("statements a second, but for the beats", vec![statements, STATEMENTS_MAX]),
            ("beats a second", vec![self.rate(|kind| kind == quiet::BEAT), nothing]),
            ("reports of watched agents", vec![float(self.late_millis.len()), nothing]),
            ("ms from 202 until the watcher knows, p50", vec![self.late(50), nothing]),
            ("ms from 202 until the watcher knows, worst", vec![self.late(100), late_max]),
            ("watched reports never told", vec![float(self.untold), 0.0]),
            ("reports not taken whole", vec![float(self.failures.len()), 0.0]),
            ("values not stored as last taken", vec![float(self.lost), 0.0]),
        ];
        let Load { agents, keys, interval } = self.load;
        Section {
            title: format!("{agents} agents, {keys} keys each {interval:?}, {:.0} s", self.seconds),
            columns: ["measured", "at most"].map(str::to_owned).to_vec(),
            rows,
        }
    }

    fn output(&self) -> Output {
        let section = self.section();
        let statements = self.calls.table(self.seconds, kind);
        let text = format!("{}\n\nall statements\n{statements}", section.text());
        let violations = self.violations();
        let json = json!({
            "part": "steady",
            "sections": [section.json()],
            "statements": self.calls.json(self.seconds, kind),
            "violations": violations,
        });
        Output { text, json, svg: None, violations }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fleet::Answer;
    use super::*;

    #[test]
    fn what_is_above_its_bar_is_told() {
        let found = |writes, lost| Found {
            load: Load { agents: 600, keys: 15, interval: Duration::from_secs(10) },
            seconds: 60.0,
            calls: Calls::from([
                ("insert into agent_metadata as x", writes),
                ("with beaten as", 9),
            ]),
            answers: 3_600,
            accepted: 54_000,
            failures: Vec::new(),
            late_millis: vec![100.0, 5_000.0],
            untold: 0,
            lost,
        };
        assert!(found(15, 0).violations().is_empty());
        assert_eq!(
            found(18, 2).violations(),
            ["0.30 writes a second, over 0.25", "2 values are not stored as they were last taken"]
        );
    }

    #[test]
    fn last_report_counts_that_was_taken() {
        let outcome = |round, answer| {
            let sent = Instant::now();
            Outcome { agent: 0, round, sent, answered: sent, answer }
        };
        let taken = || Ok(Answer::default());
        let outcomes =
            [outcome(2, taken()), outcome(1, taken()), outcome(3, Err(anyhow::anyhow!("away")))];
        assert_eq!(last_rounds(&outcomes), BTreeMap::from([(0, 2)]));
    }
}
