//! What idle streams cost the process of a replica.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use musterbeat_testkit::TestDatabase;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::super::idle::memory_mib;
use super::super::replica::{Replica, Site};
use super::super::report::Section;
use super::follower::Follower;
use super::site::PATIENCE;
use crate::postgres;

/// Streams that are open at once.
const STREAMS: usize = 10_000;

/// Followers that connect at once.
const CALLERS: usize = 50;

/// After so long, what a start took is given back.
const CALM: Duration = Duration::from_secs(5);

const CHATS: &str = "
    with ids as (
        select gen_random_uuid() as id from generate_series(1, $1)
    ), new as (
        insert into runs (run_id, kind, status, owner_id, version)
        select id, 'chat', 'waiting', id, 1 from ids
        returning run_id
    )
    insert into chats (id, owner_id, title) select run_id, run_id, 'idle' from new
    returning id";

/// Measures a replica without streams, with all of one chat, and with one a chat.
pub(super) async fn measure(database: &TestDatabase, logs: PathBuf) -> Result<Section> {
    let chats = chats(database).await?;
    let site = Site::prepare(database.url(), logs).await?;
    let plenty = "1000000".to_owned();
    let settings = [
        ("MUSTERBEAT_CONNECTIONS_MAX", plenty.clone()),
        ("MUSTERBEAT_CONNECTIONS_PER_ADDRESS", plenty.clone()),
        ("MUSTERBEAT_RATE_PER_SECOND", plenty.clone()),
        ("MUSTERBEAT_RATE_BURST", plenty),
    ];
    let mut found = Vec::new();
    for followed in [&[], &chats[..1], &chats[..]] {
        // Each in a process of its own: none has memory that the one before gave back.
        let replica = site.start("stream", &settings).await?;
        postgres::say(&format!("opening streams of {} chats", followed.len()));
        let streams = open(&replica, followed).await?;
        sleep(CALM).await;
        found.push((streams.len(), memory_mib(&replica)?));
    }
    let (_, without) = found[0];
    let streams = |&(count, _): &(usize, f64)| float(count);
    let each = |&(count, mib): &(usize, f64)| match count {
        0 => 0.0,
        count => (mib - without) * 1024.0 / float(count),
    };
    Ok(Section {
        title: "one replica, its process".to_owned(),
        columns: ["without streams", "all of one chat", "one a chat"].map(str::to_owned).to_vec(),
        rows: vec![
            ("idle streams", found.iter().map(streams).collect()),
            ("MiB of resident memory", found.iter().map(|(_, mib)| *mib).collect()),
            ("KiB a stream", found.iter().map(each).collect()),
        ],
    })
}

async fn chats(database: &TestDatabase) -> Result<Vec<Uuid>> {
    let mut conn = database.connect().await?;
    let chats = sqlx::query_scalar(CHATS).bind(i32::try_from(STREAMS)?).fetch_all(&mut conn).await;
    chats.context("failed to make chats")
}

/// Opens all streams, the chats in turn, and waits for their snapshots.
async fn open(replica: &Replica, chats: &[Uuid]) -> Result<Vec<Follower>> {
    let mut streams = Vec::new();
    if chats.is_empty() {
        return Ok(streams);
    }
    let url = replica.url();
    let address = url.strip_prefix("http://").context("a replica has no address")?;
    let address: SocketAddr = address.trim_end_matches('/').parse()?;
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let mut mine = Vec::new();
        mine.extend((caller..STREAMS).step_by(CALLERS).map(|number| chats[number % chats.len()]));
        callers.spawn(async move {
            let mut streams = Vec::new();
            for chat in mine {
                let greeted = timeout(PATIENCE, Follower::greeted(address, chat, "closed")).await;
                let (stream, _) = greeted.context("a snapshot does not come")??;
                streams.push(stream);
            }
            anyhow::Ok(streams)
        });
    }
    while let Some(opened) = callers.join_next().await {
        streams.extend(opened.context("a caller panicked")??);
    }
    ensure!(streams.len() == STREAMS, "{} streams are open", streams.len());
    Ok(streams)
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
fn float(count: usize) -> f64 {
    count as f64
}
