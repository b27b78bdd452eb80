//! What a program writes to standard error: a bounded part of it goes to the log.

use musterbeat_core::id::ChatId;
use tokio::io::AsyncRead;

use super::CommandLimits;
use super::lines::{Line, LineEnd, Lines};

/// Logs the lines of one turn, and keeps the last.
#[derive(Debug)]
pub(super) struct ErrorLog<R> {
    lines: Lines<R>,
    tally: Tally,
}

impl<R: AsyncRead + Unpin> ErrorLog<R> {
    /// Logs what `stream` says of the turn of `chat`.
    pub(super) fn new(chat: ChatId, stream: R, limits: &CommandLimits) -> Self {
        let lines = Lines::new(stream, limits.stderr_line_bytes_max);
        let lines_max = limits.stderr_lines_max;
        Self { lines, tally: Tally { chat, lines_max, logged: 0, dropped: 0, last: String::new() } }
    }

    /// Logs until the stream ends. Dropping the future loses nothing, and it may be called again.
    pub(super) async fn follow(&mut self) {
        let chat = self.tally.chat;
        // What cannot be read is as good as ended.
        while let Ok(Some(Line { bytes, end, .. })) = self.lines.next().await {
            if let Some(line) = self.tally.take(bytes, end) {
                tracing::info!(chat.id = %chat, line, "a chat's program wrote to standard error");
            }
        }
    }

    /// Returns the last line that was not blank; empty when there was none.
    pub(super) fn last(&self) -> &str {
        &self.tally.last
    }
}

/// Counts lines against their bound.
#[derive(Debug)]
struct Tally {
    chat: ChatId,
    lines_max: usize,
    logged: usize,
    dropped: u64,
    last: String,
}

impl Tally {
    /// Takes a line; returns it if it is to be logged.
    fn take(&mut self, bytes: &[u8], end: LineEnd) -> Option<&str> {
        let line = shown(bytes, end);
        if line.is_empty() {
            return None;
        }
        self.last = line;
        if self.logged == self.lines_max {
            self.dropped += 1;
            return None;
        }
        self.logged += 1;
        Some(&self.last)
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        if self.dropped > 0 {
            tracing::warn!(
                chat.id = %self.chat,
                lines.logged = self.logged,
                lines.dropped = self.dropped,
                "a chat's program wrote more lines to standard error than are logged in a turn"
            );
        }
    }
}

/// Returns a line as it may be shown: no control character can forge a line of the log.
fn shown(bytes: &[u8], end: LineEnd) -> String {
    let text = String::from_utf8_lossy(bytes.trim_ascii());
    let mut shown = text.replace(char::is_control, "\u{fffd}");
    if end == LineEnd::Cut {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_beyond_the_bound_are_counted_and_the_last_is_kept() {
        let chat = ChatId::new(uuid::Uuid::nil());
        let mut tally = Tally { chat, lines_max: 2, logged: 0, dropped: 0, last: String::new() };
        assert_eq!(tally.take(b"one\r", LineEnd::Break), Some("one"));
        assert_eq!(tally.take(b" \t", LineEnd::Break), None);
        assert_eq!(tally.take(b"\x1b[31mt\xffo", LineEnd::Cut), Some("\u{fffd}[31mt\u{fffd}o…"));
        assert_eq!(tally.take(b"three", LineEnd::Break), None);
        assert_eq!(tally.take(b"four", LineEnd::Stream), None);
        assert_eq!((tally.logged, tally.dropped, tally.last.as_str()), (2, 2, "four"));
    }
}
