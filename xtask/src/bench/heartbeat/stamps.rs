//! A time stamp a run, in the original's table of chats.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use async_trait::async_trait;
use musterbeat_testkit::TestDatabase;
use sqlx::PgConnection;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::super::arm::Arm;
use super::super::meter::{self, Counts};
use super::super::original;
use super::super::usage::{self, Sessions, micros};
use super::{CONNECTIONS, WORKER, found};

/// The original's first form: an update and a commit for each chat.
const ONE: &str = "
    update bench_chats set heartbeat_at = now()
    where id = $1 and worker_id = $2 and status = 'running'
";

/// The original's batch: one update of all chats, which returns those that were stamped.
const MANY: &str = "
    update bench_chats set heartbeat_at = now()
    where id = any($1::uuid[]) and worker_id = $2 and status = 'running'
    returning id
";

/// An update and a commit for each run, on some connections at once.
pub(super) struct Each {
    conns: Vec<PgConnection>,
    sessions: Sessions,
    believed: Vec<Uuid>,
    found: String,
    time: Duration,
}

impl Each {
    pub(super) async fn new(database: &TestDatabase, believed: Vec<Uuid>) -> Result<Self> {
        let (mut conns, mut sessions) = (Vec::new(), Sessions::default());
        for _ in 0..CONNECTIONS {
            let mut conn = database.connect().await?;
            sessions.extend(Sessions::of(&mut conn).await?);
            conns.push(conn);
        }
        Ok(Self { conns, sessions, believed, found: String::new(), time: Duration::ZERO })
    }
}

#[async_trait]
impl Arm for Each {
    fn name(&self) -> &'static str {
        "a commit a run, 10 connections"
    }

    async fn prepare(&mut self) -> Result<()> {
        original::vacuum(self.conns.first_mut().context("there is no connection")?).await
    }

    async fn run(&mut self) -> Result<Counts> {
        let (server, client) = (self.sessions.used(), usage::own()?);
        let start = Instant::now();
        let share = self.believed.len().div_ceil(CONNECTIONS);
        let mut tasks = JoinSet::new();
        for (conn, runs) in self.conns.drain(..).zip(self.believed.chunks(share)) {
            tasks.spawn(stamp_each(conn, runs.to_vec()));
        }
        let (mut held, mut lost) = (0, Vec::new());
        while let Some(done) = tasks.join_next().await {
            let (conn, stamped, missed) = done.context("a connection's task broke off")??;
            self.conns.push(conn);
            held += stamped;
            lost.extend(missed);
        }
        self.found = found(held, lost.into_iter());
        self.time = start.elapsed();
        Ok(cpu(self.sessions.used().saturating_sub(server), usage::own()?.saturating_sub(client)))
    }

    fn time(&self) -> Option<Duration> {
        Some(self.time)
    }

    async fn settle(&mut self) -> Result<()> {
        for conn in &mut self.conns {
            meter::settle(conn).await?;
        }
        Ok(())
    }

    async fn digest(&mut self) -> Result<String> {
        Ok(self.found.clone())
    }
}

/// Stamps one run after the other; returns how many were stamped, and those that were not.
async fn stamp_each(
    mut conn: PgConnection,
    runs: Vec<Uuid>,
) -> Result<(PgConnection, usize, Vec<Uuid>)> {
    let (mut held, mut lost) = (0, Vec::new());
    for run in runs {
        let one = sqlx::query(ONE).bind(run).bind(WORKER.uuid());
        let done = one.execute(&mut conn).await.context("failed to stamp a chat")?;
        if done.rows_affected() == 1 {
            held += 1;
        } else {
            lost.push(run);
        }
    }
    Ok((conn, held, lost))
}

/// One update of all runs, and the set difference with those it returned.
pub(super) struct AtOnce {
    conn: PgConnection,
    sessions: Sessions,
    believed: Vec<Uuid>,
    found: String,
    time: Duration,
}

impl AtOnce {
    pub(super) async fn new(database: &TestDatabase, believed: Vec<Uuid>) -> Result<Self> {
        let mut conn = database.connect().await?;
        let sessions = Sessions::of(&mut conn).await?;
        Ok(Self { conn, sessions, believed, found: String::new(), time: Duration::ZERO })
    }
}

#[async_trait]
impl Arm for AtOnce {
    fn name(&self) -> &'static str {
        "the original: one update of wide rows"
    }

    async fn prepare(&mut self) -> Result<()> {
        original::vacuum(&mut self.conn).await
    }

    async fn run(&mut self) -> Result<Counts> {
        let (server, client) = (self.sessions.used(), usage::own()?);
        let start = Instant::now();
        let stamped: Vec<Uuid> = sqlx::query_scalar(MANY)
            .bind(&self.believed)
            .bind(WORKER.uuid())
            .fetch_all(&mut self.conn)
            .await
            .context("failed to stamp the chats")?;
        let stamped: HashSet<_> = stamped.into_iter().collect();
        let lost = self.believed.iter().filter(|run| !stamped.contains(run));
        self.found = found(stamped.len(), lost.copied());
        self.time = start.elapsed();
        Ok(cpu(self.sessions.used().saturating_sub(server), usage::own()?.saturating_sub(client)))
    }

    fn time(&self) -> Option<Duration> {
        Some(self.time)
    }

    async fn settle(&mut self) -> Result<()> {
        meter::settle(&mut self.conn).await
    }

    async fn digest(&mut self) -> Result<String> {
        Ok(self.found.clone())
    }
}

/// Counts processor time.
pub(super) fn cpu(server: Duration, client: Duration) -> Counts {
    Counts(vec![("server CPU us", micros(server)), ("client CPU us", micros(client))])
}
