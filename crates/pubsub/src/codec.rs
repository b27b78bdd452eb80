//! Packs changed ids into the payloads of `NOTIFY`, and reads them again; no I/O.
//!
//! PostgreSQL takes payloads of up to 7,999 bytes. One that names ids exactly holds about 454
//! random ones; one that holds fingerprints of ids stands for about 2,420, and wakes a watcher of
//! another id once in a million. What needs more payloads than a [`Policy`] allows becomes
//! [`Body::Everything`]: coarser, never lossy.
//!
//! # Format
//!
//! Payloads consist of the 94 printable characters of ASCII without the space, `!` to `~`, so they
//! are harmless in logs and valid in every encoding of a server. Characters are digits to the base
//! of 94, `!` is zero, and the first one counts most. A payload is
//!
//! | characters | |
//! |---|---|
//! | 1 | version of the format: `1` |
//! | 1 | kind: `i` ids, `f` fingerprints, `e` everything, `h` heartbeat |
//! | 10 | epoch of the publisher |
//! | 10 | sequence |
//! | 4 | ids and fingerprints: count × 128 + parameter |
//! | rest | ids and fingerprints: a stream of bits; heartbeat: 22 characters a publisher and channel |
//!
//! **Bits** travel in blocks: 72 bits, the first one counting most, are a number of 11 characters.
//! The last block may be shorter: its n characters carry ⌊n · log₂ 94⌋ bits, of which those that
//! are not needed are zero.
//!
//! **Ids** are permuted to keys: the version of the UUID (4 bits), its variant (2 bits), and the
//! other 122 bits in their order, so ids of one version lie close. Keys are sorted. The first is
//! written in full, in 128 bits; each other one as the difference to the one before, less one, in
//! a Rice code whose parameter k is that of the payload: ⌊difference / 2^k⌋ ones, a zero,
//! and the low k bits. From 40 ones on there are 40 ones and the number in 128 bits instead.
//!
//! **Fingerprints** of n ids with the parameter b are numbers below n · 2^b, sorted, each written
//! as the difference to the one before (the first one to zero) in a Rice code with k = b − 1.
//! A fingerprint is ⌊hash · n · 2^b / 2^64⌋, and, all in 64 bits,
//!
//! ```text
//! hash(id) = mix(high 64 bits of id ^ mix(low 64 bits of id ^ seed))
//! seed     = mix(sequence ^ mix(epoch ^ 0x9e3779b97f4a7c15))
//! mix(x)   = the finaliser of SplitMix64: x ^= x >> 30; x *= 0xbf58476d1ce4e5b9;
//!            x ^= x >> 27; x *= 0x94d049bb133111eb; x ^ x >> 31
//! ```
//!
//! The seed differs from payload to payload, so two ids that collide once do not collide again.
//!
//! **Heartbeats** list, for each publisher and channel, the epoch (10 characters), the
//! channel (2) and the sequence (10).
//!
//! There is one way to write a message, given the parameter, and the decoder refuses any other.

mod bits;
mod digits;
mod error;
mod exact;
mod fingerprints;
mod frame;
mod heartbeat;
mod rice;

pub mod original;

use uuid::Uuid;

pub use error::DecodeError;
pub use fingerprints::Fingerprints;
use frame::Kind;

/// Longest payload that PostgreSQL takes, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = 7_999;

/// Who sent a payload, and its place among the payloads of that sender on one channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Distinguishes publishers, and the starts of one; zero for a payload without a place, sent
    /// inside somebody's transaction.
    pub epoch: u64,
    /// One more than that of the payload before; without a place only salt for fingerprints.
    pub sequence: u64,
}

impl Header {
    /// Returns the header of the payload that comes `count` later.
    const fn later(self, count: usize) -> Self {
        let sequence = match self.epoch {
            0 => self.sequence,
            _ => self.sequence.wrapping_add(count as u64),
        };
        Self { sequence, ..self }
    }
}

/// How finely ids are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Payloads up to which ids are named exactly, whatever the other fields say.
    pub exact_payloads_max: usize,
    /// Payloads up to which fingerprints stand for ids; above, everything is said to have changed.
    pub payloads_max: usize,
    /// A false wake has the probability 2^-bits; taken as 8 if below, and as 32 if above.
    pub fingerprint_bits: u8,
}

impl Policy {
    /// One exact payload, else up to 64 payloads with a false wake in a million: 155,000 ids.
    pub const DEFAULT: Self =
        Self { exact_payloads_max: 1, payloads_max: 64, fingerprint_bits: 20 };

    /// Names ids exactly, whatever number of payloads that takes.
    pub const EXACT: Self = Self { exact_payloads_max: usize::MAX, ..Self::DEFAULT };
}

impl Default for Policy {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// What a payload says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who sent it, and its place.
    pub header: Header,
    /// What changed.
    pub body: Body,
}

/// What changed, or what the sender knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// These ids: at least one, sorted and distinct.
    Ids(Vec<Uuid>),
    /// Ids that these fingerprints stand for, and by mistake a few others.
    Fingerprints(Fingerprints),
    /// Any id of the channel.
    Everything,
    /// Nothing; the last sequences of publishers that the sender knows.
    Heartbeat(Vec<Known>),
}

/// The last payload of a publisher on a channel, as far as somebody knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// The publisher.
    pub epoch: u64,
    /// The channel's number.
    pub channel: u8,
    /// The sequence of its last payload.
    pub sequence: u64,
}

/// Packs `ids`, in any order, into the fewest payloads that `policy` allows.
///
/// The first payload has the header `first`, each next one a sequence one higher.
/// Duplicates count once; no ids need no payload.
pub fn encode(ids: &[Uuid], first: Header, policy: Policy) -> Vec<String> {
    let keys = exact::sorted_keys(ids);
    exact::encode(&keys, first, policy.exact_payloads_max)
        .or_else(|| fingerprints::encode(&keys, first, policy))
        .unwrap_or_else(|| vec![everything(first)])
}

/// Packs as many of `known` as a payload holds, the first 362.
pub fn encode_heartbeat(header: Header, known: &[Known]) -> String {
    heartbeat::encode(header, known)
}

/// Says that everything has changed.
pub fn everything(header: Header) -> String {
    frame::begin(Kind::Everything, header).finish()
}

/// Reads a payload.
///
/// # Errors
/// Refuses what no encoder of this version writes; allocates no more than such a payload holds.
pub fn decode(payload: &str) -> Result<Message, DecodeError> {
    let frame = frame::open(payload)?;
    let body = match frame.kind {
        Kind::Ids => Body::Ids(exact::decode(frame.rest)?),
        Kind::Fingerprints => Body::Fingerprints(Fingerprints::decode(frame.header, frame.rest)?),
        Kind::Everything if frame.rest.is_empty() => Body::Everything,
        Kind::Everything => return Err(DecodeError::Surplus),
        Kind::Heartbeat => Body::Heartbeat(heartbeat::decode(frame.rest)?),
    };
    Ok(Message { header: frame.header, body })
}

#[cfg(test)]
mod tests;
