//! Parts over HTTP to many followers, on the owner and through another replica.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use musterbeat_testkit::TestDatabase;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use uuid::Uuid;

use super::super::report::Section;
use super::super::stats::percentile;
use super::super::wait::until;
use super::follower::{Follower, Heard};
use super::site::{Member, PATIENCE};
use crate::postgres;

const FOLLOWERS: usize = 1_000;

/// Followers that connect at once: a crowd at the door waits for the pool of the database, and
/// is refused when that takes too long.
const CALLERS: usize = 50;

/// Words of the answer, each a part.
const WORDS: usize = 400;

/// Pauses between parts: as a model speaks, and more than this machine can send.
const PACES: [Duration; 2] = [Duration::from_millis(50), Duration::from_millis(5)];

/// Through which server followers come.
#[derive(Clone, Copy, Debug)]
enum Through {
    Owner,
    Relay,
}

/// What all followers came to.
struct Found {
    first_part_millis: Vec<f64>,
    parts: u64,
    resyncs: u64,
    /// How often a follower was told to come again.
    refusals: u64,
    seconds: f64,
}

/// Measures each pace, through the owner and through another replica.
pub(super) async fn measure(server: &postgres::Durable) -> Result<Vec<Section>> {
    let mut sections = Vec::new();
    for pace in PACES {
        let mut found = Vec::new();
        for through in [Through::Owner, Through::Relay] {
            let database = TestDatabase::create_on(server.url()).await?;
            found.push(follow(&database, pace, through).await?);
        }
        sections.push(section(pace, &found));
    }
    Ok(sections)
}

/// Has all followers come while the answer is under way, and hear it to its end.
async fn follow(database: &TestDatabase, pace: Duration, through: Through) -> Result<Found> {
    let owner = Member::start(database, pace).await?;
    let chat = owner.asker()?.ask(&vec!["word"; WORDS].join(" ")).await?;
    begun(database, chat).await?;
    let other = match through {
        Through::Owner => None,
        Through::Relay => Some(Member::start(database, pace).await?),
    };
    let address = other.as_ref().unwrap_or(&owner).address;
    let start = Instant::now();
    let mut followers = JoinSet::new();
    let gate = Arc::new(Semaphore::new(CALLERS));
    for _ in 0..FOLLOWERS {
        let gate = Arc::clone(&gate);
        followers.spawn(async move {
            let admitted = gate.acquire().await.context("the gate is closed: this is a bug")?;
            let greeted = timeout(PATIENCE, Follower::greeted(address, chat, "rest")).await;
            let (follower, refusals) = greeted.context("a snapshot does not come")??;
            drop(admitted);
            let heard = timeout(PATIENCE, follower.rest()).await;
            anyhow::Ok((heard.context("a stream does not end")??, refusals))
        });
    }
    let (mut all, mut refusals) = (Vec::new(), 0);
    while let Some(heard) = followers.join_next().await {
        let (heard, refused) = heard.context("a follower panicked")??;
        all.push(heard);
        refusals += refused;
    }
    for member in [other, Some(owner)].into_iter().flatten() {
        member.stop().await?;
    }
    Ok(Found { refusals, ..Found::of(start, &all) })
}

async fn begun(database: &TestDatabase, chat: Uuid) -> Result<()> {
    let mut conn = database.connect().await?;
    until("a chat runs", PATIENCE, async || {
        let query = "select 1 from runs where run_id = $1 and status = 'running'";
        let run = sqlx::query(query).bind(chat).fetch_optional(&mut conn).await;
        Ok(run.context("failed to read a run")?.map(drop))
    })
    .await
}

impl Found {
    fn of(start: Instant, all: &[Heard]) -> Self {
        let last = all.iter().filter_map(|heard| heard.last_part).max().unwrap_or(start);
        let millis = |heard: &Heard| Some(heard.first_part?.as_secs_f64() * 1_000.0);
        Self {
            first_part_millis: all.iter().filter_map(millis).collect(),
            parts: all.iter().map(|heard| heard.parts).sum(),
            resyncs: all.iter().map(|heard| heard.resyncs).sum(),
            refusals: 0,
            seconds: (last - start).as_secs_f64(),
        }
    }
}

fn section(pace: Duration, found: &[Found]) -> Section {
    let row = |of: &dyn Fn(&Found) -> f64| found.iter().map(of).collect();
    let first = |percent| {
        row(&|found: &Found| match &*found.first_part_millis {
            [] => f64::NAN,
            some => percentile(some, percent),
        })
    };
    let all = float((FOLLOWERS * WORDS) as u64);
    Section {
        title: format!("{FOLLOWERS} followers, a part each {} ms", pace.as_millis()),
        columns: vec!["on the owner".to_owned(), "through another replica".to_owned()],
        rows: vec![
            ("parts heard, of all in %", row(&|found| float(found.parts) / all * 100.0)),
            ("told to come again", row(&|found| float(found.refusals))),
            ("resyncs", row(&|found| float(found.resyncs))),
            ("parts a second", row(&|found| float(found.parts) / found.seconds)),
            ("ms to the first part, p50", first(50)),
            ("ms to the first part, p99", first(99)),
        ],
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn float(count: u64) -> f64 {
    count as f64
}
