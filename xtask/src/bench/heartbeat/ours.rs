//! Ours: one statement marks the lease and reads the roll, which is compared with the roster.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use musterbeat_core::port::BeatStore as _;
use musterbeat_core::roster::{Muster, Roster};
use musterbeat_db::PgBeats;
use musterbeat_testkit::TestDatabase;
use sqlx::PgConnection;

use super::super::arm::Arm;
use super::super::meter::Counts;
use super::super::usage::{self, Sessions};
use super::stamps::cpu;
use super::{WORKER, found};

/// The default of the product, which bounds how long a beat may take.
const BEAT_INTERVAL: Duration = Duration::from_secs(3);

/// What the product's connection for beats calls itself.
const APPLICATION: &str = "musterbeat beat";

/// What goes on elsewhere during a beat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    None,
    /// A transaction is left open that sees the past: nothing it might read can be cleared away.
    Snapshot,
    /// Another transaction has locked one of the worker's runs.
    Lock,
}

impl Trouble {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::None => "ours: lease and roll",
            Self::Snapshot => "ours, held snapshot",
            Self::Lock => "ours, a run locked",
        }
    }

    /// Begins on `conn` what goes on until [`Trouble::end`].
    pub(super) async fn begin(self, conn: &mut PgConnection) -> Result<()> {
        let (begin, hold) = match self {
            Self::None => return Ok(()),
            Self::Snapshot => (
                "begin isolation level repeatable read",
                "select run_id from runs where worker_id = $1 and status = 'running' limit 1",
            ),
            Self::Lock => (
                "begin",
                "select run_id from runs where worker_id = $1 and status = 'running' limit 1
                 for update",
            ),
        };
        let failed = || format!("failed to begin: {self:?}");
        sqlx::raw_sql(begin).execute(&mut *conn).await.with_context(failed)?;
        let hold = sqlx::query(hold).bind(WORKER.uuid()).fetch_all(conn).await;
        ensure!(hold.with_context(failed)?.len() == 1, "the worker owns nothing");
        Ok(())
    }

    pub(super) async fn end(self, conn: &mut PgConnection) -> Result<()> {
        if self != Self::None {
            sqlx::raw_sql("rollback").execute(conn).await.context("failed to end a hold-up")?;
        }
        Ok(())
    }
}

/// A worker's beats, with what it believes to own.
pub(super) struct Worker {
    beats: PgBeats,
    pub(super) roster: Roster,
}

impl Worker {
    pub(super) fn new(database: &TestDatabase, roster: Roster) -> Result<Self> {
        Ok(Self { beats: PgBeats::new(database.url(), BEAT_INTERVAL)?, roster })
    }

    /// Beats, and calls the roll; tells how long the roll call took.
    pub(super) async fn beat(&mut self) -> Result<(Muster, Duration)> {
        let beat = self.roster.beat_sent();
        let answer = self.beats.beat(WORKER).await.context("a beat failed")?;
        ensure!(answer.alive, "the lease is dead");
        let start = Instant::now();
        let muster = self.roster.muster(beat, answer.roll);
        Ok((muster, start.elapsed()))
    }

    /// Returns the session that beats, which opens with the first beat.
    pub(super) async fn sessions(&self, observer: &mut PgConnection) -> Result<Sessions> {
        Sessions::named(observer, APPLICATION).await
    }
}

/// Says what a roll call found.
pub(super) fn told(muster: &Muster) -> String {
    found(muster.held.len(), muster.lost.iter().map(|(run, _)| run.uuid()))
}

pub(super) struct Ours {
    worker: Worker,
    trouble: Trouble,
    elsewhere: PgConnection,
    sessions: Sessions,
    found: String,
    time: Duration,
}

impl Ours {
    pub(super) async fn new(
        database: &TestDatabase,
        roster: Roster,
        trouble: Trouble,
    ) -> Result<Self> {
        let mut worker = Worker::new(database, roster)?;
        let mut elsewhere = database.connect().await?;
        worker.beat().await?;
        let sessions = worker.sessions(&mut elsewhere).await?;
        let (found, time) = (String::new(), Duration::ZERO);
        Ok(Self { worker, trouble, elsewhere, sessions, found, time })
    }
}

#[async_trait]
impl Arm for Ours {
    fn name(&self) -> &'static str {
        self.trouble.name()
    }

    async fn prepare(&mut self) -> Result<()> {
        self.trouble.begin(&mut self.elsewhere).await?;
        // Commits are counted from the last that ended, which must not lie before the trouble.
        self.worker.beat().await?;
        Ok(())
    }

    async fn run(&mut self) -> Result<Counts> {
        let (server, client) = (self.sessions.used(), usage::own()?);
        let start = Instant::now();
        let (muster, _) = self.worker.beat().await?;
        self.time = start.elapsed();
        let counts =
            cpu(self.sessions.used().saturating_sub(server), usage::own()?.saturating_sub(client));
        self.found = told(&muster);
        Ok(counts)
    }

    fn time(&self) -> Option<Duration> {
        Some(self.time)
    }

    async fn digest(&mut self) -> Result<String> {
        self.trouble.end(&mut self.elsewhere).await?;
        Ok(self.found.clone())
    }
}
