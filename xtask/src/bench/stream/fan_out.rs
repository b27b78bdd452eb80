//! Parts told within a process: locks and encodings.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use musterbeat_testkit::TestDatabase;
use tokio::task::{JoinSet, yield_now};

use super::super::Name;
use super::super::arm::{Record, Subject};
use super::super::machine::{self, Machine};
use super::super::meter::{Counts, Meter};
use super::super::report::{Report, compare};
use super::room::{OURS, Room, Told, Way};

/// Chats, and subscribers of each.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    chats: usize,
    subscribers: usize,
}

pub(super) const LOADS: [Load; 2] =
    [Load { chats: 1, subscribers: 1_000 }, Load { chats: 1_000, subscribers: 1 }];

/// Parts of each chat.
const PARTS: usize = 300;

/// Tasks that write, where there are as many chats.
const WRITERS: usize = 8;

/// A few tokens.
const TEXT: &[u8] = b" and so it goes";

/// The arms, the baseline first.
const WAYS: [(&str, Way); 4] = [
    ("one lock, encoded for each subscriber", Way { one_lock: true, encodes_each: true }),
    ("one lock, encoded once", Way { one_lock: true, encodes_each: false }),
    ("a lock a chat, encoded for each", Way { one_lock: false, encodes_each: true }),
    ("ours: a lock a chat, encoded once", OURS),
];

/// Runs the arms alternately.
pub(super) async fn run(
    database: &TestDatabase,
    load: Load,
    rounds: NonZeroUsize,
) -> Result<Report> {
    let mut records = WAYS.map(|(name, _)| Record { name, times: vec![], counts: vec![] });
    let mut agreed = None;
    for round in 0..=rounds.get() {
        for ((name, way), record) in WAYS.iter().zip(&mut records) {
            let (time, bytes) = tell(*way, load).await?;
            let bytes_agreed = *agreed.get_or_insert(bytes);
            ensure!(bytes == bytes_agreed, "\"{name}\" told {bytes} bytes, not {bytes_agreed}");
            if 0 < round {
                record.times.push(time);
                record.counts.push(Counts(vec![
                    ("encodings", encodings(*way, load)),
                    ("bytes told", bytes as u64),
                ]));
            }
        }
    }
    let server = Meter::connect(database).await?.server().await?;
    let Load { chats, subscribers } = load;
    let size = Some((chats as u64, if chats == 1 { "chat" } else { "chats" }));
    Ok(Report {
        name: Name::Stream.text(),
        question: Name::Stream.question(),
        subject: Subject { unit: "part", count: (chats * subscribers * PARTS) as u64, size },
        rounds,
        arms: compare(records.into()),
        sections: Vec::new(),
        commit: machine::commit(),
        machine: Machine::read(server),
    })
}

fn encodings(way: Way, Load { chats, subscribers }: Load) -> u64 {
    (chats * PARTS * if way.encodes_each { subscribers } else { 1 }) as u64
}

/// Publishes all parts, a task pausing after each turn, until all subscribers have them.
async fn tell(way: Way, load: Load) -> Result<(Duration, usize)> {
    let room = Arc::new(Room::open(way, load.chats));
    let mut readers = JoinSet::new();
    for number in 0..load.chats * load.subscribers {
        let mut reader = room.subscribe(number % load.chats, way);
        readers.spawn(async move {
            let mut bytes = 0;
            for _ in 0..PARTS {
                match reader.next().await {
                    Told::Part(part) => bytes += part,
                    Told::Missed(missed) => anyhow::bail!("a subscriber missed {missed} parts"),
                }
            }
            Ok(bytes)
        });
    }
    // All wait for the first part.
    yield_now().await;
    let start = Instant::now();
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS.min(load.chats) {
        let (room, chats) = (Arc::clone(&room), load.chats);
        writers.spawn(async move {
            for _ in 0..PARTS {
                (writer..chats).step_by(WRITERS).for_each(|chat| room.publish(chat, TEXT));
                yield_now().await;
            }
        });
    }
    let mut bytes = 0;
    while let Some(read) = readers.join_next().await {
        bytes += read.context("a subscriber panicked")??;
    }
    let time = start.elapsed();
    while let Some(written) = writers.join_next().await {
        written.context("a writer panicked")?;
    }
    Ok((time, bytes))
}
