//! Heartbeats: the last sequence of each publisher on each channel.

use super::frame::{self, Kind, REST_CHARACTERS_MAX};
use super::{DecodeError, Header, Known, digits};

/// Characters of a channel's number.
const CHANNEL_CHARACTERS: usize = 2;

/// Characters of a publisher on a channel.
const KNOWN_CHARACTERS: usize = 2 * digits::U64_CHARACTERS + CHANNEL_CHARACTERS;

/// Most publishers and channels in a payload.
const KNOWN_MAX: usize = REST_CHARACTERS_MAX / KNOWN_CHARACTERS;

pub(super) fn encode(header: Header, known: &[Known]) -> String {
    let mut draft = frame::begin(Kind::Heartbeat, header);
    for known in known.iter().take(KNOWN_MAX) {
        digits::push(&mut draft.0, known.epoch, digits::U64_CHARACTERS);
        digits::push(&mut draft.0, known.channel.into(), CHANNEL_CHARACTERS);
        digits::push(&mut draft.0, known.sequence, digits::U64_CHARACTERS);
    }
    draft.finish()
}

pub(super) fn decode(text: &[u8]) -> Result<Vec<Known>, DecodeError> {
    let entries = text.chunks_exact(KNOWN_CHARACTERS);
    if !entries.remainder().is_empty() {
        return Err(DecodeError::Short);
    }
    entries.map(read).collect()
}

fn read(text: &[u8]) -> Result<Known, DecodeError> {
    let (epoch, text) = text.split_at(digits::U64_CHARACTERS);
    let (channel, sequence) = text.split_at(CHANNEL_CHARACTERS);
    let channel = u8::try_from(digits::read(channel)?).map_err(|_| DecodeError::Range)?;
    Ok(Known { epoch: digits::read(epoch)?, channel, sequence: digits::read(sequence)? })
}
