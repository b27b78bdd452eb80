//! The Rice code: short for numbers around a power of two, and bounded for all others.

use super::DecodeError;
use super::bits::{BitReader, BitWriter};

/// Ones that say that the number follows in full.
///
/// Between two groups of ids, such as two versions of UUIDs, lies a gap that is 2^60 times as
/// wide as those within: counted in ones it would fill the world.
const ESCAPE: u32 = 40;

/// Bits of a number in full.
const FULL_BITS: u32 = 128;

/// Parameters are below this.
const PARAMETERS: u32 = 128;

/// A Rice code: the quotient by 2^parameter in ones, and the remainder in bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rice {
    /// INVARIANT: below 128.
    parameter: u32,
}

impl Rice {
    /// Takes the parameter, which is below 128.
    pub(super) const fn new(parameter: u32) -> Self {
        debug_assert!(parameter < PARAMETERS, "parameters are below 128");
        Self { parameter }
    }

    /// Chooses the code that takes the fewest bits for `values`.
    pub(super) fn best(values: &(impl Iterator<Item = u128> + Clone)) -> Self {
        let counts = counts_by_length(values.clone());
        let near = (0..PARAMETERS).min_by_key(|parameter| estimate(&counts, *parameter));
        let near = near.unwrap_or_default();
        // The estimate knows only lengths, so it may be one off.
        let around = near.saturating_sub(1)..PARAMETERS.min(near + 2);
        let exact = |code: &Self| values.clone().map(|value| code.cost(value)).sum::<usize>();
        around.map(Self::new).min_by_key(exact).unwrap_or(Self::new(near))
    }

    pub(super) const fn parameter(self) -> u32 {
        self.parameter
    }

    /// Returns the fewest bits that any number takes.
    pub(super) const fn cost_min(self) -> usize {
        self.parameter as usize + 1
    }

    /// Returns how many bits `value` takes.
    pub(super) fn cost(self, value: u128) -> usize {
        match self.quotient(value) {
            Some(quotient) => quotient as usize + self.cost_min(),
            None => (ESCAPE + FULL_BITS) as usize,
        }
    }

    pub(super) fn write(self, bits: &mut BitWriter, value: u128) {
        if let Some(quotient) = self.quotient(value) {
            bits.push(!1, quotient + 1);
            bits.push(value, self.parameter);
        } else {
            bits.push(u128::MAX, ESCAPE);
            bits.push(value, FULL_BITS);
        }
    }

    /// Reads a number.
    ///
    /// # Errors
    /// Refuses one above 128 bits, and one that is written in full without need.
    pub(super) fn read(self, bits: &mut BitReader<'_>) -> Result<u128, DecodeError> {
        let quotient = bits.take_ones(ESCAPE)?;
        if quotient == ESCAPE {
            let value = bits.take(FULL_BITS)?;
            return if self.quotient(value).is_none() {
                Ok(value)
            } else {
                Err(DecodeError::Redundant)
            };
        }
        let quotient = u128::from(quotient);
        if u128::MAX >> self.parameter < quotient {
            return Err(DecodeError::Range);
        }
        Ok(quotient << self.parameter | bits.take(self.parameter)?)
    }

    /// Returns how many ones stand for `value`; `None` if it is written in full.
    fn quotient(self, value: u128) -> Option<u32> {
        let quotient = value >> self.parameter;
        u32::try_from(quotient).ok().filter(|quotient| *quotient < ESCAPE)
    }
}

/// How many values there are of each length in bits; lengths without a value are left out.
fn counts_by_length(values: impl Iterator<Item = u128>) -> Vec<(u32, u64)> {
    let mut counts = [0; FULL_BITS as usize + 1];
    for value in values {
        counts[(FULL_BITS - value.leading_zeros()) as usize] += 1;
    }
    (0..).zip(counts).filter(|(_, count)| 0 < *count).collect()
}

/// Estimates twice the bits of so many values of each length.
fn estimate(counts: &[(u32, u64)], parameter: u32) -> u64 {
    let cost = |length: u32| match length.saturating_sub(parameter) {
        0 => 2 * u64::from(parameter + 1),
        // Quotients of 2^(above - 1) up to 2^above, half of them on each side of the middle.
        above @ 1..=5 => 2 * u64::from(parameter + 1) + (3 << (above - 1)) - 1,
        _ => 2 * u64::from(ESCAPE + FULL_BITS),
    };
    counts.iter().map(|(length, count)| count * cost(*length)).sum()
}
