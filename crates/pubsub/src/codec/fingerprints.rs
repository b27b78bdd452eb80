//! Fingerprints: about three bytes stand for an id, and seldom for another one, too.

use musterbeat_core::mix::mix;
use uuid::Uuid;

use super::bits::{self, BitReader, BitWriter};
use super::frame::{self, BITS_MAX, Draft, Kind};
use super::rice::Rice;
use super::{DecodeError, Header, PAYLOAD_BYTES_MAX, Policy, exact};

/// Bits that make sense: with fewer everything is cheaper, and 32 are nearly never wrong.
const BITS: std::ops::RangeInclusive<u8> = 8..=32;

/// Fingerprints of the ids in a payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprints {
    /// Of the payload: it seeds the hash.
    header: Header,
    bits: u8,
    /// INVARIANT: sorted, at least one, each below their number times 2^bits.
    values: Vec<u64>,
}

impl Fingerprints {
    /// Takes those of the ids with these `keys`, at least one.
    fn of(keys: &[u128], header: Header, bits: u8) -> Self {
        let hash = Hash::new(header, keys.len(), bits);
        let mut values: Vec<_> = keys.iter().map(|key| hash.of(exact::id(*key))).collect();
        values.sort_unstable();
        Self { header, bits, values }
    }

    /// Says whether `id` may have changed: surely if it has, and else with the probability 2^-bits.
    pub fn contains(&self, id: Uuid) -> bool {
        let hash = Hash::new(self.header, self.values.len(), self.bits);
        self.values.binary_search(&hash.of(id)).is_ok()
    }

    /// Returns how many ids they stand for.
    pub fn len(&self) -> usize {
        self.values.len()
    }

    /// Says whether they stand for none, which no payload does.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Packs them into the payload that they were read from.
    pub fn to_payload(&self) -> String {
        let code = code(self.bits);
        let draft = frame::begin(Kind::Fingerprints, self.header);
        let draft = draft.shape(self.values.len(), self.bits.into());
        let mut bits = BitWriter::new(draft.0);
        let mut last = 0;
        for value in &self.values {
            code.write(&mut bits, (value - last).into());
            last = *value;
        }
        Draft(bits.finish()).finish()
    }

    /// Reads the payload with this header and these characters behind it.
    pub(super) fn decode(header: Header, text: &[u8]) -> Result<Self, DecodeError> {
        let (count, parameter, text) = frame::shape(text)?;
        let bits = u8::try_from(parameter).ok().filter(|bits| BITS.contains(bits));
        let bits = bits.ok_or(DecodeError::Range)?;
        let code = code(bits);
        // Before room is made for them: a count alone must not cost memory.
        if count == 0 || bits::capacity(text.len()) / code.cost_min() < count {
            return Err(DecodeError::Count { count });
        }
        let range = range(count, bits);
        let mut stream = BitReader::new(text);
        let (mut values, mut last) = (Vec::with_capacity(count), 0_u64);
        for _ in 0..count {
            let gap = u64::try_from(code.read(&mut stream)?).map_err(|_| DecodeError::Range)?;
            let value = last.checked_add(gap).filter(|value| *value < range);
            last = value.ok_or(DecodeError::Range)?;
            values.push(last);
        }
        stream.finish()?;
        Ok(Self { header, bits, values })
    }
}

/// Packs fingerprints of the ids with these `keys`, at least one, split evenly.
///
/// `None` if that takes more payloads than `policy` allows.
pub(super) fn encode(keys: &[u128], first: Header, policy: Policy) -> Option<Vec<String>> {
    let bits = policy.fingerprint_bits.clamp(*BITS.start(), *BITS.end());
    // One takes bits + 1.54 on average, hardly ever below bits + 1.5 in a payload that is full.
    let halves = keys.len().saturating_mul(2 * usize::from(bits) + 3);
    let payloads_min = halves.div_ceil(2 * BITS_MAX);
    (payloads_min..=policy.payloads_max).find_map(|payloads| split(keys, payloads, first, bits))
}

/// Packs into so many payloads; `None` if one of them gets too long.
fn split(keys: &[u128], payloads: usize, first: Header, bits: u8) -> Option<Vec<String>> {
    let part = |index: usize| {
        let [start, end] = [index, index + 1].map(|index| index * keys.len() / payloads);
        let part = Fingerprints::of(&keys[start..end], first.later(index), bits);
        Some(part.to_payload()).filter(|payload| payload.len() <= PAYLOAD_BYTES_MAX)
    };
    (0..payloads).map(part).collect()
}

/// Returns the code of gaps, which are 2^bits on average: one bit less is best for them.
fn code(bits: u8) -> Rice {
    Rice::new(u32::from(bits) - 1)
}

/// Returns how many different fingerprints there are.
fn range(count: usize, bits: u8) -> u64 {
    (count as u64) << bits
}

/// Maps ids to the fingerprints of one payload.
#[derive(Clone, Copy, Debug)]
struct Hash {
    seed: u64,
    range: u64,
}

impl Hash {
    fn new(header: Header, count: usize, bits: u8) -> Self {
        let seed = mix(header.sequence ^ mix(header.epoch ^ 0x9e37_79b9_7f4a_7c15));
        Self { seed, range: range(count, bits) }
    }

    fn of(self, id: Uuid) -> u64 {
        let (high, low) = id.as_u64_pair();
        let hash = mix(high ^ mix(low ^ self.seed));
        let scaled = (u128::from(hash) * u128::from(self.range)) >> 64;
        u64::try_from(scaled).expect("it is below the range, which has 64 bits")
    }
}
