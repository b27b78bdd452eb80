//! A subscriber who never reads, beside others who do.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use tokio::task::{JoinSet, yield_now};

use super::super::report::Section;
use super::super::stats::Summary;
use super::room::{OURS, Reader, Room, Told};

const PAIRS: usize = 10;

/// Subscribers who read.
const READERS: usize = 100;

/// Parts, which together take three times the room that a run has for them.
const PARTS: u64 = 3_000;
const PART_BYTES: usize = 1_000;

/// Compares pairs of runs: one with a stuck subscriber, and one without; or both without.
pub(super) async fn measure() -> Result<(Section, Vec<String>)> {
    run(false).await?;
    let (mut unlike, mut equal) = (Vec::new(), Vec::new());
    for pair in 0..PAIRS {
        // Whoever comes second has no advantage.
        let swapped = pair % 2 == 1;
        unlike.push(ratio(true, swapped).await?);
        equal.push(ratio(false, swapped).await?);
    }
    let (unlike, equal) = (Summary::of(&unlike), Summary::of(&equal));
    let inside = (equal.low..=equal.high).contains(&unlike.median);
    let row = |Summary { median, low, high }: Summary| vec![median, low, high];
    let section = Section {
        title: format!("time of a run to that of another, {PAIRS} pairs"),
        columns: ["median", "lowest", "highest"].map(str::to_owned).to_vec(),
        rows: vec![
            ("one subscriber never reads / all read", row(unlike)),
            ("all read / all read", row(equal)),
        ],
    };
    let text = format!(
        "a stuck subscriber makes a run {:.3} times as long; equal runs differ {:.3} to {:.3}",
        unlike.median, equal.low, equal.high
    );
    Ok((section, (!inside).then_some(text).into_iter().collect()))
}

async fn ratio(stuck: bool, swapped: bool) -> Result<f64> {
    if swapped {
        let without = run(false).await?;
        return Ok(run(stuck).await? / without);
    }
    let with = run(stuck).await?;
    Ok(with / run(false).await?)
}

/// Publishes all parts; returns the seconds until all who read have them.
async fn run(stuck: bool) -> Result<f64> {
    let room = Arc::new(Room::open(OURS, 1));
    let mut idle = room.subscribe(0, OURS);
    let mut readers = JoinSet::new();
    for _ in 0..READERS {
        readers.spawn(read_all(room.subscribe(0, OURS)));
    }
    if !stuck {
        readers.spawn(read_all(idle));
        return finish(&room, readers).await;
    }
    let seconds = finish(&room, readers).await?;
    // It was there all the time, and learns what it missed.
    let missed = matches!(idle.next().await, Told::Missed(missed) if 0 < missed);
    ensure!(missed, "the stuck subscriber missed nothing: mend the benchmark");
    Ok(seconds)
}

async fn read_all(mut reader: Reader) {
    let mut known = 0;
    while known < PARTS {
        known += match reader.next().await {
            Told::Part(_) => 1,
            Told::Missed(missed) => missed,
        };
    }
}

async fn finish(room: &Arc<Room>, mut readers: JoinSet<()>) -> Result<f64> {
    let part = vec![b'x'; PART_BYTES];
    yield_now().await;
    let start = Instant::now();
    let room = Arc::clone(room);
    let writer = tokio::spawn(async move {
        for _ in 0..PARTS {
            room.publish(0, &part);
            yield_now().await;
        }
    });
    while let Some(read) = readers.join_next().await {
        read.context("a subscriber panicked")?;
    }
    writer.await.context("the writer panicked")?;
    Ok(start.elapsed().as_secs_f64())
}
