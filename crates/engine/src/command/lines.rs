//! Lines of a stream, each bounded.

use std::io;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

/// Splits a stream into lines, and holds one of them at a time.
#[derive(Debug)]
pub(super) struct Lines<R> {
    reader: BufReader<R>,
    bytes_max: usize,
    line: Vec<u8>,
    /// What was read since the last line was returned.
    bytes_read: usize,
    /// Whether `line` was returned, so that the next one takes its place.
    returned: bool,
    /// Whether the rest of a line that was cut is still to come.
    skips: bool,
}

/// A line without its line break.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// What it says, or how that begins.
    pub(super) bytes: &'a [u8],
    /// Where it ends.
    pub(super) end: LineEnd,
    /// What it took of the stream, line break and skipped bytes before it included.
    pub(super) bytes_read: usize,
}

/// Where a line ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LineEnd {
    /// At a line break.
    Break,
    /// At the bound; its rest is skipped.
    Cut,
    /// At the end of the stream.
    Stream,
}

impl<R: AsyncRead + Unpin> Lines<R> {
    /// Reads `stream`, with at most `bytes_max` bytes of each line.
    pub(super) fn new(stream: R, bytes_max: usize) -> Self {
        Self {
            reader: BufReader::new(stream),
            bytes_max,
            line: Vec::new(),
            bytes_read: 0,
            returned: false,
            skips: false,
        }
    }

    /// Waits for the next line; `None` at the end of the stream.
    ///
    /// A line over the bound is returned as soon as it is known to be. Dropping the future loses
    /// nothing.
    pub(super) async fn next(&mut self) -> io::Result<Option<Line<'_>>> {
        if self.returned {
            self.line.clear();
            self.bytes_read = 0;
            self.returned = false;
        }
        let end = loop {
            let chunk = self.reader.fill_buf().await?;
            if chunk.is_empty() {
                if self.line.is_empty() {
                    return Ok(None);
                }
                break LineEnd::Stream;
            }
            let line_break = chunk.iter().position(|byte| *byte == b'\n');
            let piece = &chunk[..line_break.unwrap_or(chunk.len())];
            let room = self.bytes_max - self.line.len();
            let (taken, end) = if self.skips {
                self.skips = line_break.is_none();
                (piece.len() + usize::from(line_break.is_some()), None)
            } else if piece.len() > room {
                self.line.extend_from_slice(&piece[..room]);
                self.skips = true;
                (room, Some(LineEnd::Cut))
            } else {
                self.line.extend_from_slice(piece);
                match line_break {
                    Some(_) => (piece.len() + 1, Some(LineEnd::Break)),
                    None => (piece.len(), None),
                }
            };
            self.reader.consume(taken);
            self.bytes_read += taken;
            if let Some(end) = end {
                break end;
            }
        };
        self.returned = true;
        Ok(Some(Line { bytes: &self.line, end, bytes_read: self.bytes_read }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn lines_are_split_cut_and_counted() {
        let check = async |stream: &str, expected: &str| {
            let mut lines = Lines::new(stream.as_bytes(), 4);
            let mut seen = Vec::new();
            while let Some(Line { bytes, end, bytes_read }) = lines.next().await.unwrap() {
                seen.push(format!("{}:{end:?}:{bytes_read}", str::from_utf8(bytes).unwrap()));
            }
            assert_eq!(seen.join(" "), expected, "{stream:?}");
        };
        check("", "").await;
        check("a\n\nb", "a:Break:2 :Break:1 b:Stream:1").await;
        check("four\nfive5\nsix\n", "four:Break:5 five:Cut:4 six:Break:6").await;
        check("far too long", "far :Cut:4").await;
    }

    #[tokio::test]
    async fn dropped_wait_keeps_what_it_had_read() {
        let (mut writer, reader) = tokio::io::duplex(64);
        let mut lines = Lines::new(reader, 64);
        for half in ["one ", "line\n"] {
            tokio::io::AsyncWriteExt::write_all(&mut writer, half.as_bytes()).await.unwrap();
            let next = futures_util::FutureExt::now_or_never(lines.next());
            assert_eq!(next.is_some(), half.ends_with('\n'));
        }
        assert_eq!(lines.line, b"one line");
    }
}
