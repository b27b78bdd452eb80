//! Agents that report until Ctrl-C, to try an installation by hand.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use indicatif::{ProgressBar, ProgressStyle};
use musterbeat_testkit::TestDatabase;
use tokio::time::{MissedTickBehavior, interval};

use super::super::replica::{Replica, Site};
use super::super::stats::percentile;
use super::Options;
use super::fleet::{Answer, Api, Fleet, Outcome, Reports};
use crate::{interrupted, postgres};

/// Time between two looks at what was answered.
const TICK: Duration = Duration::from_secs(1);

/// Percentiles are those of the answers of so many ticks.
const TICKS: usize = 10;

/// Has agents report until Ctrl-C, and deletes those of a server that is not its own.
pub(in super::super) async fn hold(options: &Options, logs: PathBuf) -> Result<()> {
    let Some(url) = &options.url else {
        let own = tokio::select! {
            own = Own::start(logs) => own?,
            () = asked_to_end() => bail!("interrupted"),
        };
        let api = Api::new(own.replica.url(), Some(own.token.clone()))?;
        let mut fleet = Fleet::new(api, options.load());
        return until_interrupted(&mut fleet).await;
    };
    let mut fleet = Fleet::new(Api::new(url, options.token.clone())?, options.load());
    let held = until_interrupted(&mut fleet).await;
    let dismissed = tokio::select! {
        dismissed = fleet.dismiss() => dismissed,
        () = asked_to_end() => Err(anyhow::anyhow!("interrupted again")),
    };
    let left = fleet.agents.len();
    held.and(dismissed.with_context(|| format!("{left} agents called \"bench agent\" are left")))
}

async fn until_interrupted(fleet: &mut Fleet) -> Result<()> {
    let reporting = async {
        fleet.gather().await?;
        show(fleet.start()).await
    };
    tokio::select! {
        ended = reporting => ended,
        () = asked_to_end() => Ok(()),
    }
}

async fn asked_to_end() {
    // Whatever comes of listening to signals, it is time to end.
    let _ = interrupted().await;
}

/// A server of its own.
///
/// INVARIANT: the replica ends before its database, and that before its PostgreSQL.
struct Own {
    replica: Replica,
    token: String,
    _database: TestDatabase,
    _server: postgres::Durable,
}

impl Own {
    async fn start(logs: PathBuf) -> Result<Self> {
        let server = postgres::Durable::start().await?;
        let database = TestDatabase::create_on(server.url()).await?;
        let site = Site::prepare(database.url(), logs).await?;
        let (replica, token) = site.start_guarded("metadata-hold").await?;
        postgres::say(&format!("server   {}\ntoken    {token}", replica.url()));
        Ok(Self { replica, token, _database: database, _server: server })
    }
}

/// Shows what becomes of the reports, for ever.
async fn show(mut reports: Reports) -> Result<()> {
    let style = ProgressStyle::with_template("{elapsed} {msg}")
        .expect("the template is a constant that parses");
    let bar = ProgressBar::new_spinner().with_style(style);
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut tally = Tally::default();
    loop {
        tokio::select! {
            outcome = reports.next() => tally.take(outcome.context("all agents have ended")?),
            _ = ticks.tick() => {
                let line = tally.line();
                // Who keeps the output in a file sees lines, too.
                if bar.is_hidden() { postgres::say(&line) } else { bar.set_message(line) }
                tally.turn();
            }
        }
    }
}

/// What became of reports.
#[derive(Default)]
struct Tally {
    reports: u64,
    taken: Answer,
    errors: u64,
    error: Option<String>,
    /// Milliseconds of answers, a tick each, the current one last.
    millis: VecDeque<Vec<f64>>,
}

impl Tally {
    fn take(&mut self, Outcome { sent, answered, answer, .. }: Outcome) {
        self.reports += 1;
        match answer {
            Ok(Answer { accepted, changed, refused }) => {
                self.taken.accepted += accepted;
                self.taken.changed += changed;
                self.taken.refused += refused;
            }
            Err(error) => {
                self.errors += 1;
                self.error = Some(format!("{error:#}"));
            }
        }
        if self.millis.is_empty() {
            self.turn();
        }
        if let Some(current) = self.millis.back_mut() {
            current.push((answered - sent).as_secs_f64() * 1_000.0);
        }
    }

    /// Begins the next tick.
    fn turn(&mut self) {
        self.millis.push_back(Vec::new());
        if TICKS < self.millis.len() {
            self.millis.pop_front();
        }
    }

    fn line(&self) -> String {
        let Self { reports, taken: Answer { accepted, changed, refused }, errors, .. } = self;
        let lately: Vec<f64> = self.millis.iter().flatten().copied().collect();
        let times = match &*lately {
            [] => "no answers yet".to_owned(),
            some => {
                let (half, most) = (percentile(some, 50), percentile(some, 99));
                format!("answers {half:.1} ms p50, {most:.1} ms p99")
            }
        };
        let error = self.error.as_ref().map(|error| format!("; last: {error}"));
        format!(
            "{} reports/s, {reports} in all: {accepted} values accepted, {changed} changed, \
             {refused} refused; {times}; {errors} errors{}",
            self.millis.back().map_or(0, Vec::len),
            error.unwrap_or_default(),
        )
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use anyhow::anyhow;

    use super::*;

    #[test]
    fn line_tells_of_the_last_second_and_of_all() {
        let outcome = |answer| {
            let sent = Instant::now();
            Outcome { agent: 0, round: 1, sent, answered: sent + TICK, answer }
        };
        let mut tally = Tally::default();
        tally.take(outcome(Ok(Answer { accepted: 15, changed: 1, refused: 2 })));
        assert!(tally.line().starts_with("1 reports/s, 1 in all: 15 values accepted"));
        tally.turn();
        tally.take(outcome(Err(anyhow!("refused"))));
        tally.take(outcome(Ok(Answer::default())));
        let line = tally.line();
        for words in ["2 reports/s, 3 in all", "1000.0 ms p99", "1 errors; last: refused"] {
            assert!(line.contains(words), "no {words} in {line}");
        }
        for _ in 0..TICKS {
            tally.turn();
        }
        assert!(tally.line().contains("no answers yet"));
    }
}
