//! Lines of a stream, each bounded.

use std::io;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

/// Splits a stream into lines, and holds one of them at a time.
#[derive(Debug)]
pub(super) struct Lines<R> {
    reader: BufReader<R>,
    bytes_max: usize,
    line: Line,
    /// Whether `line` was returned, so that the next one takes its place.
    returned: bool,
}

/// A line without its line break.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Line {
    /// INVARIANT: at most as many bytes as were allowed.
    pub(super) bytes: Vec<u8>,
    /// Whether it goes on beyond them.
    pub(super) is_cut: bool,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    /// Reads `stream`, and keeps at most `bytes_max` bytes of each line.
    pub(super) fn new(stream: R, bytes_max: usize) -> Self {
        let reader = BufReader::new(stream);
        Self { reader, bytes_max, line: Line::default(), returned: false }
    }

    /// Waits for the next line; `None` at the end of the stream.
    ///
    /// A line that the stream ends within is one too. Dropping the future loses nothing.
    pub(super) async fn next(&mut self) -> io::Result<Option<&Line>> {
        if self.returned {
            self.line.bytes.clear();
            self.line.is_cut = false;
            self.returned = false;
        }
        loop {
            let chunk = self.reader.fill_buf().await?;
            if chunk.is_empty() {
                if self.line == Line::default() {
                    return Ok(None);
                }
                break;
            }
            let line_break = chunk.iter().position(|byte| *byte == b'\n');
            let piece = &chunk[..line_break.unwrap_or(chunk.len())];
            let room = self.bytes_max - self.line.bytes.len();
            self.line.bytes.extend_from_slice(&piece[..piece.len().min(room)]);
            self.line.is_cut |= piece.len() > room;
            let taken = piece.len() + usize::from(line_break.is_some());
            self.reader.consume(taken);
            if line_break.is_some() {
                break;
            }
        }
        self.returned = true;
        Ok(Some(&self.line))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn lines_are_split_and_cut() {
        let check = async |stream: &str, expected: &[&str]| {
            let mut lines = Lines::new(stream.as_bytes(), 4);
            let mut seen = Vec::new();
            while let Some(Line { bytes, is_cut }) = lines.next().await.unwrap() {
                let end = if *is_cut { "…" } else { "" };
                seen.push(format!("{}{end}", str::from_utf8(bytes).unwrap()));
            }
            assert_eq!(seen, expected, "{stream:?}");
        };
        check("", &[]).await;
        check("a\n\nb", &["a", "", "b"]).await;
        check("four\nfive5\nsix\n", &["four", "five…", "six"]).await;
        check("far too long", &["far …"]).await;
    }

    #[tokio::test]
    async fn a_dropped_wait_keeps_what_it_had_read() {
        let (mut writer, reader) = tokio::io::duplex(64);
        let mut lines = Lines::new(reader, 64);
        writer.write_all(b"one ").await.unwrap();
        tokio::select! {
            biased;
            _ = lines.next() => panic!("the line is not complete"),
            () = std::future::ready(()) => {}
        }
        writer.write_all(b"line\n").await.unwrap();
        let whole = Line { bytes: b"one line".to_vec(), is_cut: false };
        assert_eq!(lines.next().await.unwrap(), Some(&whole));
    }
}
