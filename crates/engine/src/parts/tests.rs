//! Streams as their writers and readers see them. What a ring keeps is checked against a model.

mod encoding;
mod mirror;
mod model;
mod tally;

use std::pin::pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::task::{JoinSet, yield_now};
use tokio::time::timeout;
use uuid::Uuid;

use self::tally::Tally;
use super::*;

/// Far above what a loaded machine needs, so that only a lost wake reaches it.
const DEADLINE: Duration = Duration::from_secs(30);
/// Room for two parts of `PART` bytes.
const LIMITS: PartLimits = PartLimits { ring_bytes_max: 2 * (PART + PART_OVERHEAD_BYTES) };
const PART: usize = 10;

#[tokio::test]
async fn reader_before_the_writer_waits_and_a_late_one_gets_the_parts_so_far() {
    let streams = PartStreams::default();
    let mut early = streams.subscribe(run(1));
    assert_eq!(next_now(&mut early), None);

    let writer = streams.open(run(1), Fence(1));
    writer.begin(Fence(1), Step(3));
    assert_eq!(next_now(&mut early), None);
    writer.publish(b"a");
    writer.publish(b"b");

    let mut late = streams.subscribe(run(1));
    for reader in [&mut early, &mut late] {
        assert_eq!(next(reader).await, part(1, 3, 1, b"a"));
        assert_eq!(next(reader).await, part(1, 3, 2, b"b"));
        assert_eq!(next_now(reader), None);
    }
}

#[tokio::test]
async fn one_part_wakes_every_reader_that_waits() {
    let streams = PartStreams::default();
    let writer = begun(&streams);
    let (mut one, mut other) = (streams.subscribe(run(1)), streams.subscribe(run(1)));
    // In this order: both wait when the part comes.
    let publish = async { writer.publish(b"a") };
    let (one, other, ()) = tokio::join!(biased; next(&mut one), next(&mut other), publish);
    assert_eq!((one, other), (part(1, 0, 1, b"a"), part(1, 0, 1, b"a")));
}

#[test]
fn runs_are_apart() {
    let streams = PartStreams::default();
    let writer = streams.open(run(1), Fence(1));
    writer.begin(Fence(1), Step(0));
    writer.publish(b"a");
    assert_eq!(next_now(&mut streams.subscribe(run(2))), None);
}

#[test]
fn slow_reader_is_told_how_many_it_missed_and_holds_up_nobody() {
    let streams = limited(LIMITS.ring_bytes_max);
    let writer = begun(&streams);
    let (mut slow, mut quick) = (streams.subscribe(run(1)), streams.subscribe(run(1)));
    for seq in 1..=7 {
        writer.publish(&[0; PART]);
        assert_eq!(next_now(&mut quick), Some(part(1, 0, seq, &[0; PART])));
    }
    // A late joiner misses the same parts as one who was there and did not read.
    for reader in [&mut slow, &mut streams.subscribe(run(1))] {
        assert_eq!(next_now(reader), Some(PartEvent::Resync { missed: 5 }));
        assert_eq!(next_now(reader), Some(part(1, 0, 6, &[0; PART])));
        assert_eq!(next_now(reader), Some(part(1, 0, 7, &[0; PART])));
        assert_eq!(next_now(reader), None);
    }
}

#[test]
fn part_larger_than_the_ring_is_missed_by_all() {
    let streams = limited(LIMITS.ring_bytes_max);
    let writer = begun(&streams);
    let mut reader = streams.subscribe(run(1));
    writer.publish(&[0; PART]);
    assert!(next_now(&mut reader).is_some());
    writer.publish(&[0; PART]);
    writer.publish(&[0; LIMITS.ring_bytes_max]);
    assert_eq!(next_now(&mut reader), Some(PartEvent::Resync { missed: 2 }));
    writer.publish(b"a");
    assert_eq!(next_now(&mut reader), Some(part(1, 0, 4, b"a")));
}

#[test]
fn step_supersedes_the_former_one_without_a_resync() {
    let streams = limited(LIMITS.ring_bytes_max);
    let writer = begun(&streams);
    let mut reader = streams.subscribe(run(1));
    (0..9).for_each(|_| writer.publish(&[0; PART]));

    writer.begin(Fence(1), Step(1));
    assert_eq!(next_now(&mut reader), None);
    writer.publish(b"a");
    // The present step, once more.
    writer.begin(Fence(1), Step(1));
    writer.publish(b"b");
    assert_eq!(next_now(&mut reader), Some(part(1, 1, 1, b"a")));
    assert_eq!(next_now(&mut reader), Some(part(1, 1, 2, b"b")));
}

#[test]
fn parts_end_with_their_writer_and_a_step_may_come_again() {
    let streams = PartStreams::default();
    let mut reader = streams.subscribe(run(1));
    for _ in 0..2 {
        let writer = begun(&streams);
        writer.publish(b"a");
        writer.publish(b"b");
        assert_eq!(next_now(&mut reader), Some(part(1, 0, 1, b"a")));
        drop(writer);
        assert_eq!(next_now(&mut reader), None);
    }
}

#[test]
fn replaced_writer_has_no_effect() {
    let streams = PartStreams::default();
    let mut reader = streams.subscribe(run(1));
    let former = begun(&streams);
    former.publish(b"old");
    let writer = streams.open(run(1), Fence(2));
    assert_eq!(next_now(&mut reader), None);

    writer.begin(Fence(2), Step(0));
    writer.publish(b"a");
    former.publish(b"old");
    former.begin(Fence(1), Step(1));
    drop(former);
    writer.publish(b"b");
    assert_eq!(next_now(&mut reader), Some(part(2, 0, 1, b"a")));
    assert_eq!(next_now(&mut reader), Some(part(2, 0, 2, b"b")));
}

#[test]
fn writer_of_a_lower_fence_does_not_replace_one_of_a_higher() {
    let streams = PartStreams::default();
    let mut reader = streams.subscribe(run(1));
    let writer = streams.open(run(1), Fence(3));
    writer.begin(Fence(3), Step(0));
    writer.publish(b"a");

    let late = streams.open(run(1), Fence(2));
    late.begin(Fence(2), Step(0));
    late.publish(b"old");
    drop(late);
    writer.publish(b"b");
    assert_eq!(next_now(&mut reader), Some(part(3, 0, 1, b"a")));
    assert_eq!(next_now(&mut reader), Some(part(3, 0, 2, b"b")));
    assert_eq!(next_now(&mut reader), None);
}

#[test]
fn part_before_the_first_step_is_dropped() {
    let streams = PartStreams::default();
    let mut reader = streams.subscribe(run(1));
    let writer = streams.open(run(1), Fence(1));
    writer.publish(b"a");
    writer.begin(Fence(1), Step(0));
    writer.publish(b"b");
    assert_eq!(next_now(&mut reader), Some(part(1, 0, 1, b"b")));
}

#[test]
fn nothing_is_left_of_runs_without_writer_and_readers() {
    let streams = PartStreams::default();
    for number in 0..1_000 {
        // The last to go is the writer, a reader, or the only one there was.
        let writer = (number % 3 != 1).then(|| begun_run(&streams, run(number)));
        let readers = [streams.subscribe(run(number)), streams.subscribe(run(number))];
        assert_eq!(streams.0.streams().len(), 1);
        if number % 3 == 0 {
            drop(readers);
            assert_eq!(streams.0.streams().len(), 1);
            drop(writer);
        } else {
            drop((writer, readers));
        }
        assert_eq!(streams.0.streams().len(), 0);
    }
}

#[test]
fn spare_room_of_a_part_is_not_kept() {
    let streams = PartStreams::new(PartLimits::default(), |_, part| {
        let mut encoded = Vec::with_capacity(RING_BYTES_MAX);
        encoded.extend_from_slice(part);
        Some(encoded)
    });
    let writer = begun(&streams);
    writer.publish(b"a");
    let Some(PartEvent::Part { bytes, .. }) = next_now(&mut streams.subscribe(run(1))) else {
        panic!("the part is missing");
    };
    drop(writer);
    // The ring is gone, so the memory belongs to this handle alone and shows its size.
    assert_eq!(bytes.try_into_mut().unwrap().capacity(), 1);
}

#[test]
fn gauges_return_to_zero() {
    let tally = Tally::default();
    metrics::with_local_recorder(&tally, || {
        let streams = limited(LIMITS.ring_bytes_max);
        let mut reader = streams.subscribe(run(1));
        let writer = begun(&streams);
        (0..5).for_each(|_| writer.publish(&[0; PART]));
        next_now(&mut reader);
        assert_eq!(
            tally.text(),
            "stream_buffered_bytes 148, stream_parts_refused_total 0, stream_parts_total 5, stream_readers 1, stream_resyncs_total 1"
        );
        writer.begin(Fence(1), Step(1));
        writer.publish(&[0; PART]);
        drop((writer, reader));
        assert_eq!(
            tally.text(),
            "stream_buffered_bytes 0, stream_parts_refused_total 0, stream_parts_total 6, stream_readers 0, stream_resyncs_total 1"
        );
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn dropped_next_loses_nothing() {
    const PARTS: u64 = 2_000;
    let streams = PartStreams::default();
    let mut reader = streams.subscribe(run(1));
    let writer = begun(&streams);
    let writing = tokio::spawn(async move {
        for _ in 0..PARTS {
            writer.publish(&[0; PART]);
            yield_now().await;
        }
        writer
    });
    let race = async {
        let mut read = 0;
        while read < PARTS {
            tokio::select! {
                event = reader.next() => {
                    read += 1;
                    assert_eq!(event, part(1, 0, read, &[0; PART]));
                }
                // Drops the future, sometimes just as it is woken.
                () = yield_now() => {}
            }
        }
    };
    timeout(DEADLINE, race).await.expect("a part is missing");
    writing.await.unwrap();
}

/// Publishes each part just as the reader looks in vain and goes to wait.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn part_between_look_and_wait_wakes() {
    const PARTS: u64 = 50_000;
    let streams = PartStreams::default();
    let mut reader = streams.subscribe(run(1));
    let writer = begun(&streams);
    let read = Arc::new(AtomicU64::new(0));
    let seen = Arc::clone(&read);
    let writing = tokio::spawn(async move {
        for part in 0..PARTS {
            while seen.load(Ordering::SeqCst) < part {
                yield_now().await;
            }
            // Sweeps over the moments that the reader takes from its answer to its wait.
            (0..part % 64).for_each(|_| std::hint::spin_loop());
            writer.publish(&[]);
        }
        writer
    });
    for _ in 0..PARTS {
        next(&mut reader).await;
        read.fetch_add(1, Ordering::SeqCst);
    }
    writing.await.unwrap();
}

/// Each reader accounts for every part of the last step: read, or missed and told so.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_beside_a_writer_have_no_silent_gap() {
    const READERS: usize = 16;
    const STEPS: i64 = 20;
    const PARTS: u64 = 500;
    let streams = limited(LIMITS.ring_bytes_max);
    let writer = streams.open(run(1), Fence(1));
    let mut reading = JoinSet::new();
    for pace in 0..READERS {
        reading.spawn(account(streams.subscribe(run(1)), pace, Step(STEPS - 1), PARTS));
    }
    for step in 0..STEPS {
        writer.begin(Fence(1), Step(step));
        for part in 0..PARTS {
            writer.publish(&[0; PART]);
            if part % 8 == 0 {
                yield_now().await;
            }
        }
    }
    let missed = timeout(DEADLINE, reading.join_all()).await.expect("a wake is missing");
    // The test means something only if some readers were too slow.
    assert!(missed.iter().any(|missed| *missed > 0), "{missed:?}");
    drop(writer);
    assert_eq!(streams.0.streams().len(), 0);
}

/// Reads until `last` is whole, resting `pace` times after each event, and returns what it missed.
async fn account(mut reader: PartReader, pace: usize, last: Step, parts: u64) -> u64 {
    let (mut step, mut seq, mut missed_since, mut missed_total) = (Step(-1), 0, 0, 0);
    while step != last || seq < parts {
        match reader.next().await {
            PartEvent::Resync { missed } => {
                missed_since += missed;
                missed_total += missed;
            }
            PartEvent::Part { id, .. } if id.step == step => {
                assert_eq!(id.seq, seq + missed_since + 1, "a gap is told, and its size");
                (seq, missed_since) = (id.seq, 0);
            }
            PartEvent::Part { id, .. } => {
                assert!(step < id.step, "steps ascend");
                // Some of what was missed may belong to steps that were superseded since.
                assert!(id.seq <= missed_since + 1, "a gap at the beginning is told, too");
                (step, seq, missed_since) = (id.step, id.seq, 0);
            }
        }
        for _ in 0..pace {
            yield_now().await;
        }
    }
    missed_total
}

pub(super) fn limited(ring_bytes_max: usize) -> PartStreams {
    PartStreams::new(PartLimits { ring_bytes_max }, |_, part| Some(part.to_vec()))
}

pub(super) fn run(number: u128) -> RunId {
    RunId::new(Uuid::from_u128(number))
}

pub(super) fn part(fence: i64, step: i64, seq: u64, bytes: &[u8]) -> PartEvent {
    let id = PartId { fence: Fence(fence), step: Step(step), seq };
    PartEvent::Part { id, bytes: Bytes::copy_from_slice(bytes) }
}

/// Polls once, then drops the future.
pub(super) fn next_now(reader: &mut PartReader) -> Option<PartEvent> {
    match pin!(reader.next()).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(event) => Some(event),
        Poll::Pending => None,
    }
}

pub(super) async fn next(reader: &mut PartReader) -> PartEvent {
    timeout(DEADLINE, reader.next()).await.expect("a part is missing")
}

fn begun(streams: &PartStreams) -> PartWriter {
    begun_run(streams, run(1))
}

fn begun_run(streams: &PartStreams, run: RunId) -> PartWriter {
    let writer = streams.open(run, Fence(1));
    writer.begin(Fence(1), Step(0));
    writer
}
