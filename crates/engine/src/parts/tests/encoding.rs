//! A part is encoded once, however many read it.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicUsize;

use super::*;

#[test]
fn part_is_encoded_once_for_a_hundred_readers_who_share_its_bytes() {
    static ENCODED: AtomicUsize = AtomicUsize::new(0);
    let streams = PartStreams::new(PartLimits::default(), |id, part| {
        ENCODED.fetch_add(1, Ordering::Relaxed);
        Some([id.seq.to_string().as_bytes(), b":", part].concat())
    });
    let mut readers: Vec<_> = (0..100).map(|_| streams.subscribe(run(1))).collect();
    let writer = begun(&streams);
    for letter in [b"a", b"b", b"c"] {
        writer.publish(letter);
    }
    let mut places = BTreeSet::new();
    for reader in &mut readers {
        for expected in [b"1:a", b"2:b", b"3:c"] {
            let Some(PartEvent::Part { bytes, .. }) = next_now(reader) else {
                panic!("a part is missing");
            };
            assert_eq!(bytes, expected.as_slice());
            places.insert(bytes.as_ptr() as usize);
        }
    }
    assert_eq!(ENCODED.load(Ordering::Relaxed), 3);
    assert_eq!(places.len(), 3, "each part is in memory once");
}

#[test]
fn part_that_cannot_be_encoded_is_counted_and_takes_no_number() {
    let tally = Tally::default();
    metrics::with_local_recorder(&tally, || {
        let streams = PartStreams::new(PartLimits::default(), |_, part| {
            part.starts_with(b"{").then(|| part.to_vec())
        });
        let mut reader = streams.subscribe(run(1));
        let writer = begun(&streams);
        writer.publish(b"{1");
        writer.publish(b"no");
        writer.publish(b"{2");
        assert_eq!(next_now(&mut reader), Some(part(1, 0, 1, b"{1")));
        assert_eq!(next_now(&mut reader), Some(part(1, 0, 2, b"{2")));
        let text = tally.text();
        assert!(text.contains("stream_parts_refused_total 1, stream_parts_total 2"), "{text}");
    });
}
