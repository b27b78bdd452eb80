//! Ids, exactly: sorted keys with coded gaps.

use uuid::Uuid;

use super::bits::{self, BitReader, BitWriter};
use super::frame::{self, BITS_MAX, Draft, Kind};
use super::rice::Rice;
use super::{DecodeError, Header};

/// Bits of the first key.
const KEY_BITS: u32 = 128;

/// The bits of a UUID below its variant.
const LOW: u128 = (1 << 62) - 1;

/// Returns the keys of `ids`, sorted and distinct.
pub(super) fn sorted_keys(ids: &[Uuid]) -> Vec<u128> {
    let mut keys: Vec<_> = ids.iter().map(|id| key(*id)).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

/// Moves version and variant to the top: ids of one version differ in the other 122 bits only.
///
/// From the top, an id has 48 bits, 4 of version, 12 bits, 2 of variant and 62 bits.
pub(super) const fn key(id: Uuid) -> u128 {
    let id = id.as_u128();
    let (version, variant) = (id >> 76 & 0xf, id >> 62 & 0x3);
    let (high, middle, low) = (id >> 80, id >> 64 & 0xfff, id & LOW);
    version << 124 | variant << 122 | high << 74 | middle << 62 | low
}

/// Returns the id whose key this is.
pub(super) const fn id(key: u128) -> Uuid {
    let (version, variant) = (key >> 124, key >> 122 & 0x3);
    let (high, middle, low) = (key >> 74 & 0xffff_ffff_ffff, key >> 62 & 0xfff, key & LOW);
    Uuid::from_u128(high << 80 | version << 76 | middle << 64 | variant << 62 | low)
}

/// Packs `keys`, sorted and distinct; `None` if that takes more than `payloads_max`.
pub(super) fn encode(keys: &[u128], first: Header, payloads_max: usize) -> Option<Vec<String>> {
    let code = Rice::best(&gaps(keys));
    let mut payloads = Vec::new();
    let mut rest = keys;
    while !rest.is_empty() {
        if payloads.len() == payloads_max {
            return None;
        }
        let (part, later) = rest.split_at(fitting(rest, code));
        payloads.push(write(part, code, first.later(payloads.len())));
        rest = later;
    }
    Some(payloads)
}

/// Returns how many of `keys` fit into one payload.
fn fitting(keys: &[u128], code: Rice) -> usize {
    let mut bits = KEY_BITS as usize;
    let fits = |gap: &u128| {
        bits += code.cost(*gap);
        bits <= BITS_MAX
    };
    1 + gaps(keys).take_while(fits).count()
}

pub(super) fn write(keys: &[u128], code: Rice, header: Header) -> String {
    let draft = frame::begin(Kind::Ids, header).shape(keys.len(), code.parameter());
    let mut bits = BitWriter::new(draft.0);
    bits.push(keys[0], KEY_BITS);
    for gap in gaps(keys) {
        code.write(&mut bits, gap);
    }
    Draft(bits.finish()).finish()
}

/// Returns the differences of neighbours, less one, as they are distinct.
fn gaps(keys: &[u128]) -> impl Iterator<Item = u128> + Clone {
    keys.windows(2).map(|pair| pair[1] - pair[0] - 1)
}

/// Reads ids, and returns them sorted.
pub(super) fn decode(text: &[u8]) -> Result<Vec<Uuid>, DecodeError> {
    let (count, parameter, text) = frame::shape(text)?;
    let code = Rice::new(parameter);
    // Before room is made for them: a count alone must not cost memory.
    let holds = 1 + bits::capacity(text.len()).saturating_sub(KEY_BITS as usize) / code.cost_min();
    if count == 0 || holds < count {
        return Err(DecodeError::Count { count });
    }
    let mut bits = BitReader::new(text);
    let mut key = bits.take(KEY_BITS)?;
    let mut ids = Vec::with_capacity(count);
    ids.push(id(key));
    for _ in 1..count {
        let gap = code.read(&mut bits)?;
        key = key.checked_add(gap).and_then(|key| key.checked_add(1)).ok_or(DecodeError::Range)?;
        ids.push(id(key));
    }
    bits.finish()?;
    // Keys are sorted by version first, and ids are not.
    ids.sort_unstable();
    Ok(ids)
}
