//! `wake`: a chat is posted on a replica that is full, and starts on another that is idle.
//!
//! With each sample, what it is made of is measured by itself: a raw notification from one
//! connection to another, and the product's claim of one pending run.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use comfy_table::{CellAlignment, Table, presets};
use musterbeat_core::id::{OwnerId, RunId, WorkerId};
use musterbeat_core::port::{Room, RunQueue as _, RunStore as _};
use musterbeat_core::run::{NewRun, RunKind};
use musterbeat_db::{PgStore, PoolLimits};
use musterbeat_testkit::TestDatabase;
use serde_json::{Value, json};
use sqlx::PgConnection;
use sqlx::postgres::PgListener;
use tokio::time::timeout;
use uuid::Uuid;

use super::stats::percentile;
use stage::Stage;

mod stage;

/// The median of a start is at most so many times those of its two parts together.
const FACTOR_MAX: f64 = 3.0;

/// Samples that are thrown away: connections, statements and caches warm up.
const WARM_UP: usize = 10;

/// Nothing here takes longer on a machine that can be measured on.
const PATIENCE: Duration = Duration::from_secs(30);

const CHANNEL: &str = "bench_wake";

/// A kind that no worker of the benchmark serves.
const KIND: &str = "bench";

/// What was measured, in milliseconds.
#[derive(Default)]
pub(super) struct Report {
    /// From the call that publishes, just after the commit, until the runner of the other begins.
    starts: Vec<f64>,
    /// The same until the chat's runner is given the prompt.
    prompts: Vec<f64>,
    /// From the sending of a notification until another connection has it.
    notifications: Vec<f64>,
    claims: Vec<f64>,
}

/// Takes so many samples of everything, alternately.
pub(super) async fn run(database: &TestDatabase, samples: NonZeroUsize) -> Result<Report> {
    let mut stage = Stage::set(database).await?;
    let mut parts = Parts::prepare(database, stage.full_worker()).await?;
    let mut report = Report::default();
    for sample in 0..WARM_UP + samples.get() {
        let (started, prompted) = stage.sample().await?;
        let notification = parts.notification().await?;
        let claim = parts.claim().await?;
        if WARM_UP <= sample {
            report.starts.push(millis(started));
            report.prompts.push(millis(prompted));
            report.notifications.push(millis(notification));
            report.claims.push(millis(claim));
        }
    }
    stage.end().await?;
    Ok(report)
}

/// What a start is made of, each by itself.
struct Parts {
    sender: PgConnection,
    listener: PgListener,
    store: PgStore,
    /// Claims in the name of a worker that is there: one more would change who looks when.
    worker: WorkerId,
    kind: RunKind,
}

impl Parts {
    async fn prepare(database: &TestDatabase, worker: WorkerId) -> Result<Self> {
        let mut listener = PgListener::connect(database.url()).await?;
        listener.eager_reconnect(false);
        listener.listen(CHANNEL).await?;
        let pool = musterbeat_db::connect(database.url(), &PoolLimits::default()).await?;
        let store = PgStore::new(pool);
        let (sender, kind) = (database.connect().await?, RunKind::new(KIND)?);
        Ok(Self { sender, listener, store, worker, kind })
    }

    async fn notification(&mut self) -> Result<Duration> {
        let notify = sqlx::query("select pg_notify($1, 'now')").bind(CHANNEL);
        let start = Instant::now();
        let received = async {
            let received = timeout(PATIENCE, self.listener.try_recv()).await;
            received.context("a notification does not arrive")?.context("the listener failed")?;
            anyhow::Ok(start.elapsed())
        };
        let (sent, received) = tokio::join!(notify.execute(&mut self.sender), received);
        sent.context("failed to notify")?;
        received
    }

    async fn claim(&mut self) -> Result<Duration> {
        let id = RunId::new(Uuid::now_v7());
        let owner = OwnerId::new(Uuid::from_u128(1));
        self.store.submit(&NewRun { id, kind: self.kind.clone(), owner }).await?;
        let start = Instant::now();
        let claimed = self.store.claim(self.worker, &self.kind, Room::of(1)).await?;
        let elapsed = start.elapsed();
        anyhow::ensure!(claimed.len() == 1, "a run that is pending was not claimed");
        let delete = sqlx::query("delete from runs where run_id = $1").bind(id.uuid());
        delete.execute(&mut self.sender).await.context("failed to remove a run")?;
        Ok(elapsed)
    }
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}

impl Report {
    fn rows(&self) -> [(&'static str, &[f64]); 4] {
        [
            ("posted on A until B's runner begins", &self.starts),
            ("posted on A until B's chat runner has the prompt", &self.prompts),
            ("one notification, raw", &self.notifications),
            ("one claim, alone", &self.claims),
        ]
    }

    /// Says how many times as long as both of its parts together a start takes, by medians.
    fn factor(&self) -> f64 {
        let [start, notification, claim] =
            [&self.starts, &self.notifications, &self.claims].map(|times| percentile(times, 50));
        start / (notification + claim)
    }

    /// Returns what is above its bar.
    pub(super) fn violations(&self) -> Vec<String> {
        let factor = self.factor();
        let text = format!("a start takes {factor:.2} times both parts, over {FACTOR_MAX}");
        (FACTOR_MAX < factor).then_some(text).into_iter().collect()
    }

    /// Returns the report for a reader.
    pub(super) fn text(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_FULL_CONDENSED);
        table.set_header(["ms", "p50", "p90", "p99", "highest"]);
        for (name, times) in self.rows() {
            let cells =
                [50, 90, 99, 100].map(|percent| format!("{:.2}", percentile(times, percent)));
            table.add_row([name.to_owned()].into_iter().chain(cells));
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        format!(
            "{} samples of each, alternately; polls each hour\n{table}\n\
             the median start takes {:.2} times both parts; at most {FACTOR_MAX} is asked for",
            self.starts.len(),
            self.factor(),
        )
    }

    /// Returns what the line of JSON has beside the commit and the machine.
    pub(super) fn json(&self) -> Value {
        let row = |(name, times): (&str, &[f64])| {
            let [p50, p90, p99, highest] = [50, 90, 99, 100].map(|it| percentile(times, it));
            json!({ "name": name, "p50": p50, "p90": p90, "p99": p99, "highest": highest })
        };
        json!({
            "samples": self.starts.len(),
            "milliseconds": self.rows().map(row),
            "factor": self.factor(),
            "violations": self.violations(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_is_compared_with_both_of_its_parts() {
        let report = |start: f64| Report {
            starts: vec![start, 1.0, 100.0],
            prompts: vec![start],
            notifications: vec![0.5],
            claims: vec![1.5],
        };
        assert!(report(6.0).violations().is_empty());
        assert_eq!(report(7.0).violations(), ["a start takes 3.50 times both parts, over 3"]);
    }
}
