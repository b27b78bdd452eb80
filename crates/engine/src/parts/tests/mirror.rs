//! An owner's parts in another process: what a tap tells, and what readers of the mirror see.

use super::*;

#[test]
fn tap_is_for_the_owner_of_its_fence_only() {
    let streams = PartStreams::default();
    assert!(streams.tap(run(1), Fence(2)).is_none(), "nobody writes");
    assert_eq!(streams.0.streams().len(), 0, "and nothing is left of the question");
    let writer = streams.open(run(1), Fence(2));
    assert!(streams.tap(run(1), Fence(1)).is_none(), "replaced before");
    assert!(streams.tap(run(1), Fence(3)).is_none(), "still to come");
    assert!(streams.tap(run(1), Fence(2)).is_some());
    drop(writer);
    assert!(streams.tap(run(1), Fence(2)).is_none(), "it has ended");
    let _mirror = streams.mirror(run(1), Fence(2)).unwrap();
    assert!(streams.tap(run(1), Fence(2)).is_none(), "a relay of a relay");
}

#[test]
fn tap_tells_the_parts_so_far_then_live_ones_then_the_next_step_then_the_end() {
    let streams = PartStreams::default();
    let writer = begun(&streams);
    writer.publish(b"a");
    let mut tap = streams.tap(run(1), Fence(1)).unwrap();
    let begin = |step| TapEvent::Begin { fence: Fence(1), step: Step(step) };
    assert_eq!(tap_now(&mut tap), Some(begin(0)));
    assert_eq!(tap_now(&mut tap), Some(tapped(0, 1, b"a")));
    assert_eq!(tap_now(&mut tap), None);
    writer.publish(b"b");
    assert_eq!(tap_now(&mut tap), Some(tapped(0, 2, b"b")));
    writer.begin(Fence(1), Step(1));
    assert_eq!(tap_now(&mut tap), Some(begin(1)));
    drop(writer);
    assert_eq!(tap_now(&mut tap), Some(TapEvent::End));
    assert_eq!(tap_now(&mut tap), Some(TapEvent::End));
}

#[test]
fn tap_ends_when_another_owner_comes() {
    let streams = PartStreams::default();
    let _former = begun(&streams);
    let mut tap = streams.tap(run(1), Fence(1)).unwrap();
    let _writer = streams.open(run(1), Fence(2));
    assert_eq!(tap_now(&mut tap), Some(TapEvent::End));
}

#[tokio::test]
async fn tap_that_waits_is_woken_by_the_end() {
    let streams = PartStreams::default();
    let writer = streams.open(run(1), Fence(1));
    let mut tap = streams.tap(run(1), Fence(1)).unwrap();
    let end = async { drop(writer) };
    let (event, ()) = tokio::join!(biased; timeout(DEADLINE, tap.next()), end);
    assert_eq!(event.unwrap(), TapEvent::End);
}

#[test]
fn mirror_repeats_what_its_owner_writes() {
    let (near, far) = (PartStreams::default(), PartStreams::default());
    let writer = begun(&near);
    writer.publish(b"a");
    let mut relay = Relay::begin(&near, &far);
    let mut early = far.subscribe(run(1));
    relay.run();
    writer.publish(b"b");
    relay.run();
    for reader in [&mut early, &mut far.subscribe(run(1))] {
        assert_eq!(next_now(reader), Some(part(1, 0, 1, b"a")));
        assert_eq!(next_now(reader), Some(part(1, 0, 2, b"b")));
        assert_eq!(next_now(reader), None);
    }
    writer.begin(Fence(1), Step(1));
    relay.run();
    assert_eq!(next_now(&mut far.subscribe(run(1))), None, "parts end with their step");
}

#[test]
fn mirror_that_begins_in_mid_step_tells_how_much_is_missing() {
    let (near, far) = (limited(LIMITS.ring_bytes_max), PartStreams::default());
    let writer = begun(&near);
    (0..7).for_each(|_| writer.publish(&[0; PART]));
    let mut reader = far.subscribe(run(1));
    Relay::begin(&near, &far).run_and_keep(|| {
        assert_eq!(next_now(&mut reader), Some(PartEvent::Resync { missed: 5 }));
        assert_eq!(next_now(&mut reader), Some(part(1, 0, 6, &[0; PART])));
        assert_eq!(next_now(&mut reader), Some(part(1, 0, 7, &[0; PART])));
    });
}

/// Nothing follows by which the gap could be seen.
#[test]
fn resync_without_a_part_after_it_is_handed_on() {
    let (near, far) = (limited(LIMITS.ring_bytes_max), PartStreams::default());
    let writer = begun(&near);
    let mut reader = far.subscribe(run(1));
    let mut relay = Relay::begin(&near, &far);
    writer.publish(b"a");
    relay.run();
    assert_eq!(next_now(&mut reader), Some(part(1, 0, 1, b"a")));
    writer.publish(&[0; LIMITS.ring_bytes_max]);
    relay.run();
    assert_eq!(next_now(&mut reader), Some(PartEvent::Resync { missed: 1 }));
}

#[test]
fn relay_that_begins_again_repeats_nothing_and_hides_nothing() {
    let (near, far) = (limited(LIMITS.ring_bytes_max), PartStreams::default());
    let writer = begun(&near);
    let mut reader = far.subscribe(run(1));
    let mut relay = Relay::begin(&near, &far);
    writer.publish(b"a");
    relay.run();
    assert_eq!(next_now(&mut reader), Some(part(1, 0, 1, b"a")));
    relay.tap = near.tap(run(1), Fence(1)).unwrap();
    relay.run();
    assert_eq!(next_now(&mut reader), None, "known");
    // More than the owner keeps, while the relay is broken.
    (0..5).for_each(|_| writer.publish(&[0; PART]));
    relay.tap = near.tap(run(1), Fence(1)).unwrap();
    relay.run();
    assert_eq!(next_now(&mut reader), Some(PartEvent::Resync { missed: 3 }));
    assert_eq!(next_now(&mut reader), Some(part(1, 0, 5, &[0; PART])));
    assert_eq!(next_now(&mut reader), Some(part(1, 0, 6, &[0; PART])));
}

#[test]
fn late_mirror_does_not_throw_out_an_owner_here() {
    let streams = PartStreams::default();
    let mut reader = streams.subscribe(run(1));
    let mirror = streams.mirror(run(1), Fence(1)).unwrap();
    let writer = streams.open(run(1), Fence(2));
    assert!(streams.mirror(run(1), Fence(1)).is_none());
    assert!(streams.mirror(run(1), Fence(2)).is_none(), "the owner itself is here");
    writer.begin(Fence(2), Step(0));
    put(&mirror, 1, 0, 1, b"old");
    writer.publish(b"a");
    assert_eq!(next_now(&mut reader), Some(part(2, 0, 1, b"a")));
    drop(writer);
    assert!(streams.mirror(run(1), Fence(1)).is_none(), "late, even after its end");
    assert!(streams.mirror(run(1), Fence(3)).is_some());
}

#[test]
fn mirror_of_a_higher_fence_replaces_an_owner_who_lost_the_run() {
    let streams = PartStreams::default();
    let mut reader = streams.subscribe(run(1));
    let former = begun(&streams);
    former.publish(b"old");
    let mirror = streams.mirror(run(1), Fence(2)).unwrap();
    put(&mirror, 2, 0, 1, b"a");
    former.publish(b"old");
    assert_eq!(next_now(&mut reader), Some(part(2, 0, 1, b"a")));
    assert_eq!(next_now(&mut reader), None);
}

#[test]
fn parts_of_an_earlier_step_are_ignored() {
    let streams = PartStreams::default();
    let mut reader = streams.subscribe(run(1));
    let mirror = streams.mirror(run(1), Fence(1)).unwrap();
    put(&mirror, 1, 1, 1, b"a");
    put(&mirror, 1, 0, 9, b"old");
    put(&mirror, 1, 1, 2, b"b");
    assert_eq!(next_now(&mut reader), Some(part(1, 1, 1, b"a")));
    assert_eq!(next_now(&mut reader), Some(part(1, 1, 2, b"b")));
}

/// Brings what an owner writes in one process to a mirror in another.
struct Relay {
    tap: PartTap,
    mirror: PartMirror,
}

impl Relay {
    fn begin(near: &PartStreams, far: &PartStreams) -> Self {
        let tap = near.tap(run(1), Fence(1)).unwrap();
        Self { tap, mirror: far.mirror(run(1), Fence(1)).unwrap() }
    }

    fn run(&mut self) {
        while let Some(event) = tap_now(&mut self.tap) {
            match event {
                TapEvent::Begin { fence, step } => self.mirror.begin(fence, step),
                TapEvent::Part { id, bytes } => self.mirror.put(id, bytes),
                TapEvent::Resync { next } => self.mirror.skip_to(next),
                TapEvent::End => break,
            }
        }
    }

    fn run_and_keep(mut self, check: impl FnOnce()) {
        self.run();
        check();
    }
}

fn put(mirror: &PartMirror, fence: i64, step: i64, seq: u64, bytes: &'static [u8]) {
    let id = PartId { fence: Fence(fence), step: Step(step), seq };
    mirror.put(id, Bytes::from_static(bytes));
}

fn tapped(step: i64, seq: u64, bytes: &'static [u8]) -> TapEvent {
    let id = PartId { fence: Fence(1), step: Step(step), seq };
    TapEvent::Part { id, bytes: Bytes::from_static(bytes) }
}

fn tap_now(tap: &mut PartTap) -> Option<TapEvent> {
    match pin!(tap.next()).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(event) => Some(event),
        Poll::Pending => None,
    }
}
