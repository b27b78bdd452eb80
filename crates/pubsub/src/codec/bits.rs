//! A stream of bits in printable characters: blocks of 72 bits in 11 characters.

use super::{DecodeError, digits};

/// Characters and bits of a whole block.
const BLOCK_CHARACTERS: usize = 11;
const BLOCK_BITS: u32 = 72;

/// Bits that the first so many characters of a block carry: ⌊n · log₂ 94⌋.
const CARRIED: [u32; BLOCK_CHARACTERS + 1] = [0, 6, 13, 19, 26, 32, 39, 45, 52, 58, 65, BLOCK_BITS];

/// Most bits taken from or put into a window of 128 at once: a block is there, and one more fits.
const PIECE_BITS: u32 = 128 - BLOCK_BITS;

/// Returns how many bits fit into so many characters.
pub(super) const fn capacity(characters: usize) -> usize {
    characters / BLOCK_CHARACTERS * BLOCK_BITS as usize
        + CARRIED[characters % BLOCK_CHARACTERS] as usize
}

/// Returns how many characters so many bits need.
pub(super) fn characters(bits: usize) -> usize {
    let (blocks, rest) = (bits / BLOCK_BITS as usize, bits % BLOCK_BITS as usize);
    let needed = CARRIED.iter().position(|carried| rest <= *carried as usize);
    blocks * BLOCK_CHARACTERS + needed.unwrap_or(BLOCK_CHARACTERS)
}

/// Appends bits to a text.
#[derive(Debug)]
pub(super) struct BitWriter {
    text: Vec<u8>,
    /// Bits that are not written, the last one counting least.
    window: u128,
    /// INVARIANT: less than a block between two calls.
    length: u32,
}

impl BitWriter {
    pub(super) const fn new(text: Vec<u8>) -> Self {
        Self { text, window: 0, length: 0 }
    }

    /// Appends the low `count` bits of `value`.
    pub(super) fn push(&mut self, value: u128, count: u32) {
        let mut missing = count;
        while 0 < missing {
            let piece = missing.min(PIECE_BITS);
            missing -= piece;
            let bits = (value >> missing) & ((1 << piece) - 1);
            self.window = self.window << piece | bits;
            self.length += piece;
            if BLOCK_BITS <= self.length {
                self.length -= BLOCK_BITS;
                digits::push_wide(&mut self.text, self.window >> self.length, BLOCK_CHARACTERS);
                self.window &= (1 << self.length) - 1;
            }
        }
    }

    /// Returns the text with all bits.
    pub(super) fn finish(mut self) -> Vec<u8> {
        let width = characters(self.length as usize);
        let unused = CARRIED[width] - self.length;
        digits::push_wide(&mut self.text, self.window << unused, width);
        self.text
    }
}

/// Takes bits from a text that consists of digits.
#[derive(Debug)]
pub(super) struct BitReader<'a> {
    text: &'a [u8],
    /// INVARIANT: bits that were read and not taken, the first one highest, and zeros below.
    window: u128,
    length: u32,
    /// Characters of the block that was read last.
    last_block: usize,
}

impl<'a> BitReader<'a> {
    pub(super) const fn new(text: &'a [u8]) -> Self {
        Self { text, window: 0, length: 0, last_block: 0 }
    }

    /// Takes `count` bits, at most 128, as a number.
    pub(super) fn take(&mut self, count: u32) -> Result<u128, DecodeError> {
        let (mut value, mut missing) = (0, count);
        while 0 < missing {
            self.fill()?;
            let piece = missing.min(self.length).min(PIECE_BITS);
            if piece == 0 {
                return Err(DecodeError::Short);
            }
            value = value << piece | self.window >> (128 - piece);
            self.skip(piece);
            missing -= piece;
        }
        Ok(value)
    }

    /// Takes ones up to the next zero and that zero, or `ones_max` ones; returns how many ones.
    ///
    /// `ones_max` is at most 56.
    pub(super) fn take_ones(&mut self, ones_max: u32) -> Result<u32, DecodeError> {
        debug_assert!(ones_max <= PIECE_BITS, "a window surely holds that many");
        self.fill()?;
        let ones = self.window.leading_ones().min(ones_max);
        let taken = if ones < ones_max { ones + 1 } else { ones };
        if self.length < taken {
            return Err(DecodeError::Short);
        }
        self.skip(taken);
        Ok(ones)
    }

    /// Checks that nothing is left but zeros that fill the last character.
    pub(super) fn finish(mut self) -> Result<(), DecodeError> {
        self.fill()?;
        let characters = self.last_block;
        let last_character = CARRIED[characters] - CARRIED[characters.saturating_sub(1)];
        let fills = self.length == 0 || self.length < last_character;
        if self.text.is_empty() && fills && self.window == 0 {
            Ok(())
        } else {
            Err(DecodeError::Surplus)
        }
    }

    /// Reads blocks while there is room for one.
    fn fill(&mut self) -> Result<(), DecodeError> {
        while self.length <= PIECE_BITS && !self.text.is_empty() {
            let (block, rest) = self.text.split_at(self.text.len().min(BLOCK_CHARACTERS));
            let (value, bits) = (digits::read_wide(block), CARRIED[block.len()]);
            if value >> bits != 0 {
                return Err(DecodeError::Range);
            }
            self.window |= value << (128 - self.length - bits);
            self.length += bits;
            (self.text, self.last_block) = (rest, block.len());
        }
        Ok(())
    }

    /// Drops `count` bits of the window.
    fn skip(&mut self, count: u32) {
        self.window <<= count;
        self.length -= count;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn characters_carry_as_many_whole_bits_as_they_have_values() {
        for (characters, bits) in CARRIED.into_iter().enumerate() {
            let values = 94_u128.pow(u32::try_from(characters).unwrap());
            assert_eq!(bits, values.ilog2(), "{characters}");
        }
    }

    #[test]
    fn bits_take_the_fewest_characters() {
        for bits in 1..1_000 {
            assert!(bits <= capacity(characters(bits)), "{bits}");
            assert!(capacity(characters(bits) - 1) < bits, "{bits}");
        }
        assert_eq!(characters(0), 0);
    }

    #[test]
    fn what_is_longer_or_shorter_than_needed_is_refused() {
        let read = |text: &[u8]| {
            let mut bits = BitReader::new(text);
            bits.take(19)?;
            bits.finish()
        };
        let mut writer = BitWriter::new(Vec::new());
        writer.push(0x5_5555, 19);
        let text = writer.finish();
        assert_eq!((text.len(), read(&text)), (3, Ok(())));
        assert_eq!(read(&text[..2]), Err(DecodeError::Short));
        assert_eq!(read(&[&text[..], b"!"].concat()), Err(DecodeError::Surplus));
        assert_eq!(read(b"~~~"), Err(DecodeError::Range), "more than 19 bits");
    }

    #[test]
    fn bits_that_fill_the_last_character_are_zero() {
        let mut writer = BitWriter::new(Vec::new());
        writer.push(0b10, 20);
        let text = writer.finish();
        for (taken, expected) in
            [(20, Ok(())), (19, Err(DecodeError::Surplus)), (18, Err(DecodeError::Surplus))]
        {
            let mut bits = BitReader::new(&text);
            bits.take(taken).unwrap();
            assert_eq!(bits.finish(), expected, "{taken}");
        }
    }

    proptest! {
        /// The model is a list of single bits.
        #[test]
        fn bits_come_back_in_order(
            words in prop::collection::vec((any::<u128>(), 0..=128_u32), 0..60),
            ones_max in 1..=PIECE_BITS,
        ) {
            let mut writer = BitWriter::new(Vec::new());
            let mut model = Vec::new();
            for (value, count) in &words {
                writer.push(*value, *count);
                model.extend((0..*count).rev().map(|place| value >> place & 1 == 1));
            }
            let text = writer.finish();
            prop_assert_eq!(text.len(), characters(model.len()));

            let mut bits = BitReader::new(&text);
            for (value, count) in &words {
                let mask = 1_u128.checked_shl(*count).map_or(u128::MAX, |above| above - 1);
                prop_assert_eq!(bits.take(*count), Ok(value & mask));
            }
            prop_assert_eq!(bits.finish(), Ok(()));

            let mut bits = BitReader::new(&text);
            let mut rest = &model[..];
            while rest.contains(&false) {
                let ones = rest.iter().take_while(|bit| **bit).count().min(ones_max as usize);
                prop_assert_eq!(bits.take_ones(ones_max), Ok(u32::try_from(ones).unwrap()));
                rest = &rest[(ones + 1).min(ones_max as usize)..];
            }
        }
    }
}
