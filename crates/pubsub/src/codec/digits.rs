//! Numbers in printable characters: digits to the base of 94, the first counting most.

use super::DecodeError;

/// How many digits there are.
const BASE: u64 = 94;

/// The character of the digit zero.
const ZERO: u8 = b'!';

/// The character of the largest digit.
const LAST: u8 = b'~';

/// Characters of any number of 64 bits.
pub(super) const U64_CHARACTERS: usize = 10;

/// Digits that a number of 64 bits surely holds, with room to spare: 94^6 is about 2^39.
const LOW_CHARACTERS: usize = 6;
const LOW_BASE: u64 = BASE.pow(6);

/// Checks that `text` consists of digits; the other functions rely on it.
pub(super) fn check(text: &[u8]) -> Result<(), DecodeError> {
    let is_digit = |byte: &u8| (ZERO..=LAST).contains(byte);
    match text.iter().position(|byte| !is_digit(byte)) {
        None => Ok(()),
        Some(at) => Err(DecodeError::Character { at }),
    }
}

/// Appends `value`, which is below 94^`width`.
pub(super) fn push(text: &mut Vec<u8>, mut value: u64, width: usize) {
    let start = text.len();
    text.resize(start + width, ZERO);
    for character in text[start..].iter_mut().rev() {
        let digit = (value % BASE) as u8;
        *character += digit;
        value /= BASE;
    }
    debug_assert_eq!(value, 0, "the value is wider than its place");
}

/// Appends `value`, which is below 94^`width`; `width` is at most 11.
pub(super) fn push_wide(text: &mut Vec<u8>, value: u128, width: usize) {
    // One division of 128 bits: what is left on both sides has 64.
    let high = value / u128::from(LOW_BASE);
    let low = value - high * u128::from(LOW_BASE);
    #[expect(clippy::cast_possible_truncation, reason = "94^6 and 94^5 are below 2^64")]
    let (high, low) = (high as u64, low as u64);
    push(text, high, width.saturating_sub(LOW_CHARACTERS));
    push(text, low, width.min(LOW_CHARACTERS));
}

/// Reads the number that `text` is.
///
/// # Errors
/// Refuses one that needs more than 64 bits.
pub(super) fn read(text: &[u8]) -> Result<u64, DecodeError> {
    u64::try_from(read_wide(text)).map_err(|_| DecodeError::Range)
}

/// Reads the number of at most 11 digits that `text` is.
pub(super) fn read_wide(text: &[u8]) -> u128 {
    debug_assert!(text.len() <= 11, "a block has 11 characters");
    let (high, low) = text.split_at(text.len().saturating_sub(LOW_CHARACTERS));
    u128::from(narrow(high)) * u128::from(LOW_BASE) + u128::from(narrow(low))
}

/// Reads a number of at most 6 digits.
fn narrow(text: &[u8]) -> u64 {
    text.iter().fold(0, |value, byte| value * BASE + u64::from(byte.wrapping_sub(ZERO)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_64_bits_come_back_and_larger_ones_are_refused() {
        for value in [0, 1, 93, 94, LOW_BASE - 1, LOW_BASE, u64::MAX - 1, u64::MAX] {
            let mut text = Vec::new();
            push(&mut text, value, U64_CHARACTERS);
            assert_eq!(text.len(), U64_CHARACTERS);
            assert_eq!(read(&text), Ok(value), "{value}");
        }
        let mut above = Vec::new();
        push_wide(&mut above, u128::from(u64::MAX) + 1, U64_CHARACTERS);
        assert_eq!(read(&above), Err(DecodeError::Range));
        assert_eq!(read(&[LAST; U64_CHARACTERS]), Err(DecodeError::Range));
    }

    #[test]
    fn characters_outside_of_the_alphabet_are_found() {
        assert_eq!(check(b"!AZaz09~"), Ok(()));
        for (at, text) in [(0, " !"), (1, "!\x7f"), (2, "!!\n"), (1, "~é")] {
            assert_eq!(check(text.as_bytes()), Err(DecodeError::Character { at }), "{text:?}");
        }
    }
}
