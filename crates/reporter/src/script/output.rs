//! What a script writes, bounded while it is read.

use musterbeat_core::metadata::VALUE_BYTES_MAX;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes that are read at once.
const PIECE_BYTES: usize = 8 * 1024;

/// The beginning of a stream, of which the rest is read and dropped.
#[derive(Debug, Default)]
pub(super) struct Output {
    /// INVARIANT: at most [`VALUE_BYTES_MAX`] bytes, the first of which is no blank.
    kept: Vec<u8>,
    /// Bytes of the whole text, without the blanks around it; those within it count.
    bytes: u64,
    /// Blanks that belong to the text if more of it comes.
    blanks: u64,
}

/// The beginning of a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Shown {
    pub(super) text: String,
    /// What is wrong with it; empty when it is the whole text.
    pub(super) note: String,
}

impl Output {
    /// Reads until the stream ends. Dropping the future loses nothing, and it may be called again.
    pub(super) async fn read(&mut self, stream: &mut (impl AsyncRead + Unpin)) {
        let mut piece = vec![0; PIECE_BYTES];
        // What cannot be read is as good as ended.
        while let Ok(1..) = stream.read(&mut piece).await.map(|bytes| self.add(&piece[..bytes])) {}
    }

    /// Adds a piece, and returns how many bytes it has.
    fn add(&mut self, piece: &[u8]) -> usize {
        let text = if self.kept.is_empty() { piece.trim_ascii_start() } else { piece };
        let room = VALUE_BYTES_MAX - self.kept.len();
        self.kept.extend_from_slice(&text[..text.len().min(room)]);
        let count = |bytes: &[u8]| u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        let trimmed = text.trim_ascii_end();
        if trimmed.is_empty() {
            self.blanks += count(text);
        } else {
            self.bytes += self.blanks + count(trimmed);
            self.blanks = count(text) - count(trimmed);
        }
        piece.len()
    }

    /// Returns what was kept as text, cut between two characters, and what is wrong with it.
    pub(super) fn shown(&self) -> Shown {
        let kept = self.kept.trim_ascii_end();
        let is_cut = self.bytes > u64::try_from(kept.len()).unwrap_or(u64::MAX);
        let whole = if is_cut { without_broken_end(kept) } else { kept };
        let lossy = String::from_utf8_lossy(whole);
        let mut notes = Vec::new();
        if is_cut {
            notes.push(format!("{} bytes were cut to {VALUE_BYTES_MAX}", self.bytes));
        }
        if matches!(lossy, std::borrow::Cow::Owned(_)) {
            notes.push("what is not UTF-8 was replaced".to_owned());
        }
        let mut text = lossy.into_owned();
        // A replacement takes up to three bytes where one was.
        crate::explain::cut(&mut text, VALUE_BYTES_MAX);
        Shown { text, note: notes.join("; ") }
    }
}

/// Drops the beginning of a character whose rest is missing.
fn without_broken_end(bytes: &[u8]) -> &[u8] {
    match bytes.utf8_chunks().last() {
        Some(chunk) if is_beginning(chunk.invalid()) => {
            &bytes[..bytes.len() - chunk.invalid().len()]
        }
        _ => bytes,
    }
}

/// Says whether more bytes could make a character of these.
fn is_beginning(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_text_is_shown_as_it_is() {
        check(&[b"\n  one\n\ntwo \r", b"\n "], "one\n\ntwo", "");
        check(&[b"", b" ", b"\n"], "", "");
        check(&["grüße".as_bytes()], "grüße", "");
    }

    #[test]
    fn blanks_after_the_bound_are_not_missed() {
        let text = "x".repeat(VALUE_BYTES_MAX);
        check(&[text.as_bytes(), b"\n", b"  "], &text, "");
        let blanks = [b' '; 5_000];
        check(&[b"a", &blanks, b"b"], "a", "5002 bytes were cut to 2048");
    }

    #[test]
    fn a_long_text_is_cut_between_two_characters() {
        // Characters of three bytes, of which 682 and two thirds would fit.
        let text = "€".repeat(1_000);
        let bytes: Vec<&[u8]> = text.as_bytes().chunks(7).collect();
        check(&bytes, &"€".repeat(682), "3000 bytes were cut to 2048");
    }

    #[test]
    fn what_is_no_utf8_is_replaced() {
        check(&[b"a\xffb"], "a\u{fffd}b", "what is not UTF-8 was replaced");
        check(&[b"cut\xe2\x82"], "cut\u{fffd}", "what is not UTF-8 was replaced");
        let note = "3000 bytes were cut to 2048; what is not UTF-8 was replaced";
        check(&[&[0xff; 3_000]], &"\u{fffd}".repeat(682), note);
    }

    #[test]
    fn no_more_is_kept_than_may_be_shown() {
        let mut output = Output::default();
        for _ in 0..1_000 {
            output.add(&[b'x'; PIECE_BYTES]);
        }
        assert_eq!(output.kept.len(), VALUE_BYTES_MAX);
        assert!(output.kept.capacity() <= 2 * PIECE_BYTES, "{}", output.kept.capacity());
        assert_eq!(output.shown().note, "8192000 bytes were cut to 2048");
    }

    fn check(pieces: &[&[u8]], text: &str, note: &str) {
        let mut output = Output::default();
        for piece in pieces {
            output.add(piece);
        }
        let expected = Shown { text: text.to_owned(), note: note.to_owned() };
        assert_eq!(output.shown(), expected, "{pieces:?}");
    }
}
