//! A stream against a naive model: all parts of the step, and the bound applied at each read.

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::*;

const SEEDS: u64 = 200;
const ACTS: usize = 300;
const BYTES_MAX: usize = 500;

#[test]
fn readers_get_what_a_naive_model_gives() {
    for seed in 0..SEEDS {
        let mut pair = Pair::new();
        let mut random = StdRng::seed_from_u64(seed);
        for act in 0..ACTS {
            pair.carry_out(&mut random);
            assert!(pair.kept_bytes() <= BYTES_MAX, "seed {seed}, act {act}");
            pair.compare(&mut random, &format!("seed {seed}, act {act}"));
        }
    }
}

/// The stream and the model beside it.
struct Pair {
    streams: PartStreams,
    writer: Option<PartWriter>,
    /// Name of the last step; each is new.
    step: i64,
    /// Every part of the present step.
    parts: Vec<Vec<u8>>,
    readers: Vec<(PartReader, Naive)>,
}

/// How far a reader is: in which step, and with how many of its parts.
#[derive(Clone, Copy, Default)]
struct Naive {
    step: i64,
    passed: usize,
}

impl Pair {
    fn new() -> Self {
        let streams = limited(BYTES_MAX);
        Self { streams, writer: None, step: 0, parts: Vec::new(), readers: Vec::new() }
    }

    fn carry_out(&mut self, random: &mut StdRng) {
        match random.random_range(0..100) {
            0..2 => {
                self.writer = None;
                self.parts.clear();
            }
            2..8 => self.begin(),
            8..14 => self.readers.push((self.streams.subscribe(run(1)), Naive::default())),
            14..18 if !self.readers.is_empty() => {
                let at = random.random_range(0..self.readers.len());
                self.readers.swap_remove(at);
            }
            _ => self.publish(random),
        }
    }

    fn begin(&mut self) {
        self.step += 1;
        self.parts.clear();
        let writer = self.writer.get_or_insert_with(|| self.streams.open(run(1), Fence(1)));
        writer.begin(Fence(1), Step(self.step));
    }

    fn publish(&mut self, random: &mut StdRng) {
        if let Some(writer) = &self.writer {
            // Now and then larger than the whole ring.
            let length = if random.random_ratio(1, 30) { 600 } else { random.random_range(0..90) };
            let part: Vec<u8> = (0..length).map(|_| random.random()).collect();
            writer.publish(&part);
            self.parts.push(part);
        }
    }

    /// Lets each reader read with a chance of its own, so that some are always behind.
    fn compare(&mut self, random: &mut StdRng, context: &str) {
        let oldest_kept = self.oldest_kept();
        for (at, (reader, naive)) in self.readers.iter_mut().enumerate() {
            if random.random_ratio(1, 1 + u32::try_from(at).unwrap()) {
                let expected = naive.next(self.step, &self.parts, oldest_kept);
                assert_eq!(next_now(reader), expected, "{context}, reader {at}");
            }
        }
    }

    /// Returns how many of the oldest parts do not fit.
    fn oldest_kept(&self) -> usize {
        let fits = |from: &usize| {
            let cost = |part: &Vec<u8>| part.len() + PART_OVERHEAD_BYTES;
            self.parts[*from..].iter().map(cost).sum::<usize>() <= BYTES_MAX
        };
        (0..=self.parts.len()).find(fits).expect("nothing fits always")
    }

    fn kept_bytes(&self) -> usize {
        let streams = self.streams.0.streams();
        streams.get(&run(1)).map_or(0, |seat| seat.stream.buffered_bytes())
    }
}

impl Naive {
    fn next(&mut self, step: i64, parts: &[Vec<u8>], oldest_kept: usize) -> Option<PartEvent> {
        if self.step != step {
            *self = Self { step, passed: 0 };
        }
        // The writer is gone, or has published nothing: there is nothing to pass.
        if parts.is_empty() {
            return None;
        }
        if self.passed < oldest_kept {
            let missed = (oldest_kept - self.passed) as u64;
            self.passed = oldest_kept;
            return Some(PartEvent::Resync { missed });
        }
        let bytes = parts.get(self.passed)?;
        self.passed += 1;
        Some(part(1, step, self.passed as u64, bytes))
    }
}
