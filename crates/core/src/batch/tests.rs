use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

const LIMITS: Limits =
    Limits { flush_at: 3, interval: Duration::from_secs(5), entries_max: 5, bytes_max: 100 };

/// As agents' metadata: the one collected last wins, of equal ones the one that came last.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sample {
    collected_at: u32,
    text: String,
}

impl Entry for Sample {
    fn merge(&mut self, other: Self) {
        if self.collected_at <= other.collected_at {
            *self = other;
        }
    }

    fn bytes(&self) -> usize {
        self.text.len()
    }
}

fn at(seconds: u32) -> Moment {
    Moment::new(SECOND * seconds)
}

fn sample(collected_at: u32, text: &str) -> Sample {
    Sample { collected_at, text: text.to_owned() }
}

fn marks(keys: impl IntoIterator<Item = u8>) -> Batch<u8, ()> {
    let mut batch = Batch::new(LIMITS, at(0));
    for key in keys {
        batch.add(key, ());
    }
    batch
}

#[test]
fn enough_entries_are_due_at_once_and_fewer_after_the_interval() {
    let mut batch = marks([]);
    assert_eq!((batch.deadline(), batch.due(at(9))), (None, None));
    batch.add(1, ());
    batch.add(1, ());
    batch.add(2, ());
    assert_eq!((batch.deadline(), batch.due(at(4))), (Some(at(5)), None));
    assert_eq!(batch.due(at(5)), Some(FlushReason::Scheduled));
    batch.add(3, ());
    assert_eq!((batch.deadline(), batch.due(at(0))), (Some(at(0)), Some(FlushReason::Capacity)));
}

#[test]
fn interval_begins_with_the_last_flush_of_either_kind() {
    let mut batch = marks([1, 2, 3]);
    batch.take(at(4));
    batch.add(4, ());
    assert_eq!((batch.deadline(), batch.due(at(8))), (Some(at(9)), None));
    batch.take(at(9));
    batch.add(5, ());
    assert_eq!(batch.deadline(), Some(at(14)));
}

#[test]
fn everything_is_due_at_once_without_an_interval() {
    let limits = Limits { interval: Duration::ZERO, ..LIMITS };
    let mut batch = Batch::new(limits, at(7));
    batch.add(1, ());
    assert_eq!((batch.deadline(), batch.due(at(7))), (Some(at(7)), Some(FlushReason::Scheduled)));
}

#[test]
fn only_new_keys_are_refused_when_there_is_no_room() {
    let mut batch = marks([1, 2, 3, 4]);
    batch.take(at(0));
    assert_eq!(batch.add(5, ()), Added::New);
    assert_eq!(batch.add(6, ()), Added::Refused, "four are in flight and may come back");
    assert_eq!(batch.add(1, ()), Added::New, "it comes back under this one");
    assert_eq!(batch.add(5, ()), Added::Merged);
    assert_eq!(batch.len(), 2);
    batch.written();
    assert_eq!(batch.add(6, ()), Added::New);
}

#[test]
fn bytes_in_flight_take_room() {
    let mut batch = Batch::new(Limits { bytes_max: 4, ..LIMITS }, at(0));
    assert_eq!(batch.add(1, sample(1, "abc")), Added::New);
    let taken = batch.take(at(0));
    assert_eq!(batch.add(2, sample(1, "de")), Added::Refused);
    assert_eq!(batch.add(2, sample(1, "d")), Added::New);
    batch.put_back(taken);
    assert_eq!(batch.bytes(), 4);
    assert_eq!(batch.add(2, sample(1, "longer")), Added::Merged);
    assert_eq!(batch.bytes(), 9, "what replaces another is not refused");
}

#[test]
fn failed_write_goes_back_under_what_came_meanwhile() {
    let mut batch = Batch::new(LIMITS, at(0));
    for key in [1, 2, 3] {
        batch.add(key, sample(5, "taken"));
    }
    let taken = batch.take(at(0));
    batch.add(1, sample(5, "equal"));
    batch.add(2, sample(4, "older"));
    batch.put_back(taken);
    let texts: Vec<_> = batch.take(at(0)).into_values().map(|sample| sample.text).collect();
    assert_eq!(texts, ["equal", "taken", "taken"]);
}

#[test]
fn closed_batch_gives_out_what_was_accepted_and_takes_no_further_keys() {
    let mut batch = marks([1]);
    batch.close();
    assert_eq!((batch.add(1, ()), batch.add(2, ())), (Added::Merged, Added::Refused));
    assert_eq!((batch.deadline(), batch.due(at(0))), (Some(at(0)), Some(FlushReason::Shutdown)));
    let taken = batch.take(at(0));
    assert_eq!((batch.deadline(), batch.due(at(9))), (None, None));
    batch.put_back(taken);
    assert_eq!(batch.due(at(0)), Some(FlushReason::Shutdown));
}

#[derive(Clone, Debug)]
enum Step {
    Add(u8, Sample),
    Pass(u32),
    Take,
    Written,
    /// Puts those back whose key is at least this.
    PutBack(u8),
    Close,
}

fn step() -> impl Strategy<Value = Step> {
    let sample = (0..4_u32, "[a-c]{0,9}").prop_map(|(at, text)| sample(at, &text));
    prop_oneof![
        12 => (0..8_u8, sample).prop_map(|(key, sample)| Step::Add(key, sample)),
        2 => (0..4_u32).prop_map(Step::Pass),
        2 => Just(Step::Take),
        1 => Just(Step::Written),
        1 => (0..8_u8).prop_map(Step::PutBack),
        1 => prop::bool::weighted(0.1).prop_map(|close| if close { Step::Close } else { Step::Take }),
    ]
}

/// Every accepted change in the order of its coming, nothing merged and nothing summed up.
#[derive(Debug, Default)]
struct Model {
    waiting: Vec<(u8, Sample)>,
    in_flight: Vec<(u8, Sample)>,
    flushed: u32,
    closed: bool,
}

impl Model {
    fn add(&mut self, limits: &Limits, key: u8, sample: &Sample) -> Added {
        let waits = self.waiting.iter().any(|(other, _)| *other == key);
        let flies = self.in_flight.iter().any(|(other, _)| *other == key);
        let both = [&self.waiting[..], &self.in_flight[..]].concat();
        let keys: BTreeSet<_> = both.iter().map(|(key, _)| *key).collect();
        let bytes = bytes(&self.waiting) + bytes(&self.in_flight) + sample.text.len();
        let fits = keys.len() < limits.entries_max && bytes <= limits.bytes_max;
        let added = match (waits, flies || fits) {
            (true, _) => Added::Merged,
            (false, true) if !self.closed => Added::New,
            (false, _) => return Added::Refused,
        };
        self.waiting.push((key, sample.clone()));
        added
    }

    fn due(&self, limits: &Limits, now: u32) -> Option<FlushReason> {
        let keys = merged(&self.waiting).len();
        if keys == 0 {
            None
        } else if self.closed {
            Some(FlushReason::Shutdown)
        } else if limits.flush_at <= keys {
            Some(FlushReason::Capacity)
        } else {
            let passed = SECOND * (now - self.flushed);
            (limits.interval <= passed).then_some(FlushReason::Scheduled)
        }
    }

    fn put_back(&mut self, least: u8) {
        let back = self.in_flight.drain(..).filter(|(key, _)| least <= *key);
        self.waiting.splice(0..0, back.collect::<Vec<_>>());
    }
}

/// The last one of the highest `collected_at` of each key.
fn merged(changes: &[(u8, Sample)]) -> BTreeMap<u8, Sample> {
    let keys: BTreeSet<_> = changes.iter().map(|(key, _)| *key).collect();
    let best = |key: u8| {
        let of_key = changes.iter().filter(|(other, _)| *other == key).map(|(_, sample)| sample);
        of_key.max_by_key(|sample| sample.collected_at).unwrap().clone()
    };
    keys.into_iter().map(|key| (key, best(key))).collect()
}

fn bytes(changes: &[(u8, Sample)]) -> usize {
    merged(changes).values().map(|sample| sample.text.len()).sum()
}

proptest! {
    #[test]
    fn batch_agrees_with_a_list_of_all_changes(
        steps in prop::collection::vec(step(), 1..80),
        flush_at in 1..6_usize,
        interval in 0..6_u32,
        entries_max in 0..7_usize,
        bytes_max in 0..40_usize,
    ) {
        let limits = Limits { flush_at, interval: SECOND * interval, entries_max, bytes_max };
        let (mut batch, mut model) = (Batch::new(limits, at(0)), Model::default());
        let (mut taken, mut now) = (BTreeMap::new(), 0);
        for step in steps {
            match step {
                Step::Add(key, sample) => {
                    let expected = model.add(&limits, key, &sample);
                    prop_assert_eq!(batch.add(key, sample), expected);
                }
                Step::Pass(seconds) => now += seconds,
                Step::Take => {
                    taken = batch.take(at(now));
                    prop_assert_eq!(&taken, &merged(&model.waiting));
                    model.in_flight = std::mem::take(&mut model.waiting);
                    model.flushed = now;
                }
                Step::Written => {
                    batch.written();
                    model.in_flight.clear();
                    taken.clear();
                }
                Step::PutBack(least) => {
                    batch.put_back(taken.split_off(&least));
                    model.put_back(least);
                    taken.clear();
                }
                Step::Close => {
                    batch.close();
                    model.closed = true;
                }
            }
            let due = model.due(&limits, now);
            prop_assert_eq!(batch.due(at(now)), due);
            prop_assert_eq!(batch.deadline().is_some_and(|deadline| deadline <= at(now)), due.is_some());
            prop_assert_eq!(batch.len(), merged(&model.waiting).len());
            prop_assert_eq!(batch.is_empty(), model.waiting.is_empty());
            prop_assert_eq!(batch.bytes(), bytes(&model.waiting));
        }
    }
}

#[test]
fn portions_leave_out_what_is_refused_and_nothing_else() {
    for (rows, bad) in [(1, vec![0]), (100, vec![]), (100, vec![99]), (999, vec![0, 7, 8, 500])] {
        let mut left: Vec<usize> = (0..rows).collect();
        let (mut written, mut refused, mut attempts) = (vec![], vec![], 0);
        let mut portion = Portion::new(400);
        while !left.is_empty() {
            let part = portion.next(left.len());
            assert!((1..=400).contains(&part));
            attempts += 1;
            if !left[..part].iter().any(|row| bad.contains(row)) {
                written.extend(left.drain(..part));
                portion.written();
            } else if portion.refused(part) {
                refused.push(left.remove(0));
            }
        }
        assert_eq!(refused, bad);
        assert_eq!(written.len() + refused.len(), rows);
        assert!(attempts <= 3 + bad.len() * 20, "{attempts} for {}", bad.len());
    }
}
