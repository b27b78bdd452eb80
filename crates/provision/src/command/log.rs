//! What a program writes: a bounded part of it goes to the build's log.

use std::sync::{Arc, Mutex, PoisonError};

use musterbeat_core::port::BuildContext;
use tokio::io::AsyncRead;

use super::CommandLimits;
use super::lines::{Line, Lines};

/// Begins a line of standard output that names a replacement.
const REPLACEMENT: &str = "::replacement ";

/// Names of replacements, at most: who has more of them learns nothing from their names.
pub const REPLACEMENTS_MAX: usize = 1_000;

/// Bytes of the name of a replacement, at most; what goes beyond is cut off.
pub const REPLACEMENT_BYTES_MAX: usize = 200;

/// Which of the two a line came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    Output,
    Error,
}

/// The log of one build, which both streams write.
pub(super) struct BuildLog {
    context: Arc<dyn BuildContext>,
    line_bytes_max: usize,
    lines_max: usize,
    heard: Mutex<Heard>,
}

/// What was heard of a program.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// INVARIANT: at most [`REPLACEMENTS_MAX`], each of [`REPLACEMENT_BYTES_MAX`] bytes at most.
    pub(super) replacements: Vec<String>,
    /// The last line of standard error that was not blank; empty when there was none.
    pub(super) last: String,
    lines: usize,
    replacements_over: bool,
}

impl BuildLog {
    pub(super) fn new(context: Arc<dyn BuildContext>, limits: &CommandLimits) -> Self {
        let (line_bytes_max, lines_max) = (limits.log_line_bytes_max, limits.log_lines_max);
        Self { context, line_bytes_max, lines_max, heard: Mutex::default() }
    }

    /// Splits `stream` into lines that are long enough for everything that is told of them.
    pub(super) fn lines<R: AsyncRead + Unpin>(&self, stream: R) -> Lines<R> {
        let replacement_bytes_max = REPLACEMENT.len() + REPLACEMENT_BYTES_MAX;
        Lines::new(stream, self.line_bytes_max.max(replacement_bytes_max))
    }

    /// Takes lines until they end. Dropping the future loses nothing, and it may be called again.
    pub(super) async fn follow<R: AsyncRead + Unpin>(&self, stream: Stream, lines: &mut Lines<R>) {
        // What cannot be read is as good as ended.
        while let Ok(Some(line)) = lines.next().await {
            self.take(stream, line);
        }
    }

    /// Takes out what was heard so far.
    pub(super) fn take_heard(&self) -> Heard {
        std::mem::take(&mut *self.heard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn take(&self, stream: Stream, line: &Line) {
        let text = self.shown(line);
        let mut heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        if stream == Stream::Output
            && let Some(name) = replacement(line)
        {
            if heard.replacements.len() < REPLACEMENTS_MAX {
                heard.replacements.push(name);
            } else if !std::mem::replace(&mut heard.replacements_over, true) {
                self.context.log(&format!(
                    "further replacements are discarded: a build names {REPLACEMENTS_MAX} at most"
                ));
            }
            return;
        }
        heard.lines = heard.lines.saturating_add(1);
        if heard.lines <= self.lines_max {
            self.context.log(&text);
        } else if heard.lines == self.lines_max.saturating_add(1) {
            let lines_max = self.lines_max;
            self.context.log(&format!(
                "further lines are discarded: a build's program logs {lines_max} at most"
            ));
        }
        if stream == Stream::Error && !text.trim().is_empty() {
            heard.last = text;
        }
    }

    /// Returns a line as the log keeps it: text without NUL, cut between two characters.
    fn shown(&self, Line { bytes, is_cut }: &Line) -> String {
        let line = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        let mut text = String::from_utf8_lossy(line).replace('\0', "");
        // A replacement character takes three bytes where one was.
        let bytes_max = text.floor_char_boundary(self.line_bytes_max);
        if *is_cut || bytes_max < text.len() {
            text.truncate(bytes_max);
            text.push('…');
        }
        text
    }
}

/// Returns the name of the replacement that a line tells of.
fn replacement(line: &Line) -> Option<String> {
    let name = line.bytes.strip_prefix(REPLACEMENT.as_bytes())?.trim_ascii();
    let mut name = String::from_utf8_lossy(name).replace(char::is_control, "");
    name.truncate(name.floor_char_boundary(REPLACEMENT_BYTES_MAX));
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use async_trait::async_trait;
    use musterbeat_core::run::StopCause;

    use super::*;

    #[test]
    fn lines_beyond_the_bound_are_discarded_and_one_says_so() {
        let (log, kept) = log(10, 2);
        for line in ["one\r", "grüße\0", "three", "four"] {
            log.take(Stream::Error, &line_of(line.as_bytes()));
        }
        let says = "further lines are discarded: a build's program logs 2 at most";
        assert_eq!(kept.lines(), ["one", "grüße", says]);
        assert_eq!(log.take_heard().last, "four");
    }

    #[test]
    fn a_long_line_is_cut_between_two_characters() {
        let (log, kept) = log(4, 10);
        for line in ["four", "€€", "\r"] {
            log.take(Stream::Output, &line_of(line.as_bytes()));
        }
        log.take(Stream::Error, &Line { bytes: b"abcde".to_vec(), is_cut: true });
        log.take(Stream::Error, &line_of(b"a\xff\xff"));
        assert_eq!(kept.lines(), ["four", "€…", "", "abcd…", "a\u{fffd}…"]);
    }

    #[test]
    fn the_last_line_of_standard_error_is_not_blank() {
        let (log, _) = log(10, 10);
        log.take(Stream::Error, &line_of(b"no"));
        log.take(Stream::Error, &line_of(b" \t"));
        log.take(Stream::Output, &line_of(b"yes"));
        assert_eq!(log.take_heard().last, "no");
    }

    #[test]
    fn replacements_are_bounded_and_come_by_standard_output_alone() {
        let (log, kept) = log(4, 10);
        log.take(Stream::Output, &line_of(b"::replacement  vm.main \r"));
        log.take(Stream::Output, &line_of(b"::replacement"));
        log.take(Stream::Output, &line_of(b"::replacement  "));
        log.take(Stream::Error, &line_of(b"::replacement a"));
        let long = format!("{REPLACEMENT}{}", "€".repeat(100));
        for _ in 0..=REPLACEMENTS_MAX {
            log.take(Stream::Output, &line_of(long.as_bytes()));
        }
        let heard = log.take_heard();
        assert_eq!(heard.replacements.len(), REPLACEMENTS_MAX);
        assert_eq!(heard.replacements[..2], ["vm.main".to_owned(), "€".repeat(66)]);
        let says = "further replacements are discarded: a build names 1000 at most";
        assert_eq!(kept.lines(), ["::re…", "::re…", "::re…", says]);
    }

    fn line_of(bytes: &[u8]) -> Line {
        Line { bytes: bytes.to_vec(), is_cut: false }
    }

    fn log(line_bytes_max: usize, lines_max: usize) -> (BuildLog, Arc<Kept>) {
        let kept = Arc::new(Kept::default());
        let limits = CommandLimits {
            log_line_bytes_max: line_bytes_max,
            log_lines_max: lines_max,
            ..CommandLimits::default()
        };
        (BuildLog::new(kept.clone(), &limits), kept)
    }

    #[derive(Default)]
    struct Kept(Mutex<Vec<String>>);

    impl Kept {
        fn lines(&self) -> Vec<String> {
            self.0.lock().unwrap().clone()
        }
    }

    #[async_trait]
    impl BuildContext for Kept {
        async fn stopped(&self) -> StopCause {
            std::future::pending().await
        }

        fn log(&self, line: &str) {
            self.0.lock().unwrap().push(line.to_owned());
        }
    }
}
