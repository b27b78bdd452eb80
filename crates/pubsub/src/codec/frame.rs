//! What is common to all payloads: version, kind and header in front.

use super::{DecodeError, Header, PAYLOAD_BYTES_MAX, digits};

/// The version of the format.
const VERSION: u8 = b'1';

/// Characters of version, kind and header.
const HEAD_CHARACTERS: usize = 2 + 2 * digits::U64_CHARACTERS;

/// Characters of a count with its parameter.
const SHAPE_CHARACTERS: usize = 4;

/// Values of a parameter.
const PARAMETERS: u64 = 128;

/// Most characters behind the header.
pub(super) const REST_CHARACTERS_MAX: usize = PAYLOAD_BYTES_MAX - HEAD_CHARACTERS;

/// Most bits behind header, count and parameter: 52,186.
pub(super) const BITS_MAX: usize = super::bits::capacity(REST_CHARACTERS_MAX - SHAPE_CHARACTERS);

/// What sort of message a payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Ids,
    Fingerprints,
    Everything,
    Heartbeat,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Ids, Self::Fingerprints, Self::Everything, Self::Heartbeat];

    const fn character(self) -> u8 {
        match self {
            Self::Ids => b'i',
            Self::Fingerprints => b'f',
            Self::Everything => b'e',
            Self::Heartbeat => b'h',
        }
    }
}

/// A payload without what its kind decides.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame<'a> {
    pub(super) kind: Kind,
    pub(super) header: Header,
    /// Digits.
    pub(super) rest: &'a [u8],
}

/// A payload that is being written.
#[derive(Debug)]
pub(super) struct Draft(pub(super) Vec<u8>);

impl Draft {
    /// Appends a count and the parameter, below 128, with which its things are written.
    pub(super) fn shape(mut self, count: usize, parameter: u32) -> Self {
        let shape = count as u64 * PARAMETERS + u64::from(parameter);
        digits::push(&mut self.0, shape, SHAPE_CHARACTERS);
        self
    }

    pub(super) fn finish(self) -> String {
        String::from_utf8(self.0).expect("digits are ASCII")
    }
}

/// Writes version, kind and header.
pub(super) fn begin(kind: Kind, header: Header) -> Draft {
    let mut text = vec![VERSION, kind.character()];
    digits::push(&mut text, header.epoch, digits::U64_CHARACTERS);
    digits::push(&mut text, header.sequence, digits::U64_CHARACTERS);
    Draft(text)
}

/// Reads version, kind and header.
pub(super) fn open(payload: &str) -> Result<Frame<'_>, DecodeError> {
    let text = payload.as_bytes();
    if PAYLOAD_BYTES_MAX < text.len() {
        return Err(DecodeError::TooLong { bytes: text.len() });
    }
    digits::check(text)?;
    let (version, text) = text.split_first().ok_or(DecodeError::Short)?;
    if *version != VERSION {
        return Err(DecodeError::Version);
    }
    let (kind, text) = text.split_first().ok_or(DecodeError::Short)?;
    let kind = Kind::ALL.into_iter().find(|known| known.character() == *kind);
    let kind = kind.ok_or(DecodeError::Kind)?;
    let (epoch, text) = split(text, digits::U64_CHARACTERS)?;
    let (sequence, rest) = split(text, digits::U64_CHARACTERS)?;
    let header = Header { epoch: digits::read(epoch)?, sequence: digits::read(sequence)? };
    Ok(Frame { kind, header, rest })
}

/// Reads a count and its parameter; returns the rest, too.
pub(super) fn shape(text: &[u8]) -> Result<(usize, u32, &[u8]), DecodeError> {
    let (shape, rest) = split(text, SHAPE_CHARACTERS)?;
    let shape = digits::read(shape)?;
    let parameter = u32::try_from(shape % PARAMETERS).expect("a parameter is below 128");
    let count = usize::try_from(shape / PARAMETERS).map_err(|_| DecodeError::Range)?;
    Ok((count, parameter, rest))
}

fn split(text: &[u8], at: usize) -> Result<(&[u8], &[u8]), DecodeError> {
    text.split_at_checked(at).ok_or(DecodeError::Short)
}
