//! Ids, the same ones in every run.

use uuid::{Builder, Uuid};

/// Milliseconds of a year, in which the ids of version 7 were made.
const YEAR_MILLIS: u64 = 365 * 24 * 60 * 60 * 1_000;

/// The start of that year: 2026.
const YEAR_START_MILLIS: u64 = 1_767_225_600_000;

/// Returns so many ids of version 4: 122 random bits each.
pub(super) fn v4(count: usize) -> Vec<Uuid> {
    let mut random = Random(4);
    let mut bits = || u128::from(random.next()) << 64 | u128::from(random.next());
    (0..count).map(|_| Builder::from_random_bytes(bits().to_be_bytes()).into_uuid()).collect()
}

/// Returns so many ids of version 7, made within a year: 74 random bits each, and a time.
pub(super) fn v7(count: usize) -> Vec<Uuid> {
    let mut random = Random(7);
    let id = |_| {
        let millis = YEAR_START_MILLIS + random.next() % YEAR_MILLIS;
        let (high, low) = (random.next().to_be_bytes(), random.next().to_be_bytes());
        let mut bytes = [0; 10];
        bytes[..8].copy_from_slice(&high);
        bytes[8..].copy_from_slice(&low[..2]);
        Builder::from_unix_timestamp_millis(millis, &bytes).into_uuid()
    };
    (0..count).map(id).collect()
}

/// `SplitMix64`.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ids_are_different_and_the_same_in_each_run() {
        for (ids, again, version) in [(v4(1_000), v4(10), 4), (v7(1_000), v7(10), 7)] {
            assert_eq!(ids[..10], again);
            assert_eq!(BTreeSet::from_iter(&ids).len(), 1_000);
            assert!(ids.iter().all(|id| id.get_version_num() == version));
        }
    }
}
