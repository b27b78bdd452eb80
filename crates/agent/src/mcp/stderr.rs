//! What the program of an MCP server writes to standard error: a bounded part of it is logged.

use std::convert::Infallible;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::time::Instant;

/// Bytes of a line that are logged and quoted, at most; its rest is cut off.
const LINE_BYTES_MAX: usize = 1024;

/// Lines that are logged in [`WINDOW`], at most; further ones are counted.
const LINES_MAX: u64 = 60;

/// Time after which as many lines are logged again.
const WINDOW: Duration = Duration::from_mins(1);

/// Logs what a program says, and keeps the last line.
pub(super) struct ErrorLog<R> {
    reader: BufReader<R>,
    lines: Lines,
}

impl<R: AsyncRead + Unpin> ErrorLog<R> {
    /// Logs what `stream` says of the MCP server `server`.
    pub(super) fn new(server: String, stream: R) -> Self {
        let tally = Tally { server, since: Instant::now(), logged: 0, dropped: 0 };
        let lines = Lines { partial: Vec::new(), last: String::new(), tally };
        Self { reader: BufReader::new(stream), lines }
    }

    /// Logs while `work` goes on, and returns its output.
    pub(super) async fn beside<F: Future>(&mut self, work: F) -> F::Output {
        tokio::select! {
            // Endless output is always ready, so it comes after what ends it.
            biased;
            output = work => output,
            never = self.follow_on() => match never {},
        }
    }

    /// Logs until the stream ends. Dropping the future loses nothing, and it may be called again.
    pub(super) async fn follow(&mut self) {
        // What cannot be read is as good as ended.
        while let Ok(chunk) = self.reader.fill_buf().await
            && !chunk.is_empty()
        {
            self.lines.take(chunk);
            let bytes = chunk.len();
            self.reader.consume(bytes);
        }
        self.lines.end();
    }

    /// Returns the last line that was not blank; empty when there was none.
    pub(super) fn last(&self) -> &str {
        &self.lines.last
    }

    async fn follow_on(&mut self) -> Infallible {
        self.follow().await;
        std::future::pending().await
    }
}

/// Splits pieces into lines.
struct Lines {
    /// The beginning of a line whose end is still to come.
    partial: Vec<u8>,
    last: String,
    tally: Tally,
}

impl Lines {
    fn take(&mut self, chunk: &[u8]) {
        for piece in chunk.split_inclusive(|byte| *byte == b'\n') {
            let room = LINE_BYTES_MAX.saturating_sub(self.partial.len());
            self.partial.extend_from_slice(&piece[..piece.len().min(room)]);
            if piece.ends_with(b"\n") {
                self.end();
            }
        }
    }

    fn end(&mut self) {
        let text = String::from_utf8_lossy(self.partial.trim_ascii());
        // No control character can forge a line of the log.
        let line = text.replace(char::is_control, "\u{fffd}");
        self.partial.clear();
        if line.is_empty() {
            return;
        }
        if self.tally.counts(Instant::now()) {
            tracing::debug!(
                mcp.server = self.tally.server,
                line,
                "an MCP server wrote to standard error"
            );
        }
        self.last = line;
    }
}

/// Counts lines against their bound.
struct Tally {
    server: String,
    since: Instant,
    logged: u64,
    dropped: u64,
}

impl Tally {
    /// Counts a line; says whether it is to be logged.
    fn counts(&mut self, now: Instant) -> bool {
        if WINDOW <= now.duration_since(self.since) {
            self.tell_dropped();
            (self.since, self.logged, self.dropped) = (now, 0, 0);
        }
        if self.logged == LINES_MAX {
            self.dropped += 1;
            return false;
        }
        self.logged += 1;
        true
    }

    fn tell_dropped(&self) {
        if self.dropped > 0 {
            tracing::debug!(
                mcp.server = self.server,
                lines.logged = self.logged,
                lines.dropped = self.dropped,
                "an MCP server wrote more lines to standard error than are logged in a minute"
            );
        }
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        self.tell_dropped();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn lines_are_cut_and_counted_and_the_last_is_kept() {
        let long = "x".repeat(LINE_BYTES_MAX + 9);
        let text = format!("one\r\n \n\x1b[31mt\n{long}\nlast");
        let mut log = ErrorLog::new("files".into(), text.as_bytes());
        log.follow().await;
        assert_eq!((log.last(), log.lines.tally.logged), ("last", 4));

        let mut log = ErrorLog::new("files".into(), &[] as &[u8]);
        log.lines.take(format!("{long}\n").as_bytes());
        assert_eq!(log.last().len(), LINE_BYTES_MAX);
    }

    #[test]
    fn lines_beyond_the_bound_are_dropped_until_the_window_ends() {
        let since = Instant::now();
        let mut tally = Tally { server: "files".into(), since, logged: 0, dropped: 0 };
        assert_eq!((0..70).filter(|_| tally.counts(since)).count(), 60);
        assert_eq!(tally.dropped, 10);
        assert!(tally.counts(since + WINDOW));
        assert_eq!((tally.logged, tally.dropped), (1, 0));
    }
}
