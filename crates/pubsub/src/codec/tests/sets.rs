//! Sets of ids as they come in practice, and as they come never.

use proptest::prelude::*;
use uuid::Uuid;

/// Numbers that look random and are the same in each run.
#[derive(Debug)]
pub(super) struct Random(u64);

/// A year, and the start of one, in milliseconds.
const YEAR: u64 = 365 * 24 * 3_600 * 1_000;
const START: u64 = 1_780_000_000_000;

impl Random {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn number(&mut self) -> u64 {
        // A generator of Marsaglia's, which never returns to zero unless it starts there.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn wide(&mut self) -> u128 {
        u128::from(self.number()) << 64 | u128::from(self.number())
    }

    pub(super) fn ids_of_version_4(&mut self, count: usize) -> Vec<Uuid> {
        (0..count).map(|_| of_version(4, self.wide())).collect()
    }

    pub(super) fn id_of_version_7(&mut self) -> Uuid {
        let time = START + self.number() % YEAR;
        self.id_made_at(time)
    }

    pub(super) fn ids_of_version_7(&mut self, count: usize) -> Vec<Uuid> {
        (0..count).map(|_| self.id_of_version_7()).collect()
    }

    /// Makes ids in some milliseconds of a year, so many in each.
    pub(super) fn bursts_of_version_7(&mut self, bursts: usize, ids: usize) -> Vec<Uuid> {
        let times: Vec<_> = (0..bursts).map(|_| START + self.number() % YEAR).collect();
        let ids = times.into_iter().flat_map(|time| std::iter::repeat_n(time, ids));
        ids.map(|time| self.id_made_at(time)).collect()
    }

    fn id_made_at(&mut self, time: u64) -> Uuid {
        of_version(7, u128::from(time) << 80 | self.wide() >> 48)
    }
}

/// Sets of up to 1,200 ids with all that makes gaps narrow, wide or zero.
pub(super) fn ids() -> impl Strategy<Value = Vec<Uuid>> {
    let seeded = (1..u64::MAX, 0..4_u8, 0..1_200_usize).prop_map(|(seed, sort, count)| {
        let mut random = Random::new(seed | 1);
        match sort {
            0 => random.ids_of_version_4(count),
            1 => random.ids_of_version_7(count),
            2 => random.bursts_of_version_7(1 + count / 50, 40),
            _ => [random.ids_of_version_4(count / 2), random.ids_of_version_7(count / 3)].concat(),
        }
    });
    let few = prop::collection::vec(small_or_large().prop_map(Uuid::from_u128), 0..9);
    let numbers = (small_or_large(), 0..700_u128)
        .prop_map(|(start, count)| (0..count).map(|n| Uuid::from_u128(start ^ n)).collect());
    let parts = prop_oneof![3 => seeded, 2 => few, 1 => numbers];
    prop::collection::vec(parts, 0..3).prop_map(|parts| parts.concat())
}

/// Numbers of all lengths, and the extremes.
pub(super) fn small_or_large() -> impl Strategy<Value = u128> {
    let of_length = (any::<u128>(), 0..128_u32).prop_map(|(number, shift)| number >> shift);
    prop_oneof![4 => of_length, 1 => Just(0), 1 => Just(u128::MAX)]
}

fn of_version(version: u128, bits: u128) -> Uuid {
    let bits = bits & !(0xf << 76 | 0x3 << 62);
    Uuid::from_u128(bits | version << 76 | 0x2 << 62)
}
