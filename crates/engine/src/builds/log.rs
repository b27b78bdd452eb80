//! What a build says, kept in batches.

use std::convert::Infallible;
use std::mem;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use musterbeat_core::id::BuildId;
use musterbeat_core::port::{BuildContext, BuildStore, RunContext, StoreError};
use musterbeat_core::run::{StopCause, Token};
use tokio::time::{Instant, sleep, timeout_at};

use crate::metrics::BUILD_LOG_LINES_LOST;

/// Lines of one carrying out of a build that are kept, at most.
pub const LINES_MAX: u32 = 10_000;

/// Bytes of a line that are kept; the rest is cut off.
pub const LINE_BYTES_MAX: usize = 4_096;

/// Bytes of all lines of one carrying out that are kept, at most.
pub const LOG_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Time between two writes of lines: who follows a build sees them so late.
const WRITE_INTERVAL: Duration = Duration::from_millis(500);

/// Lines of one write, at most.
const BATCH_LINES: usize = 1_000;

/// How long the last lines may take; a build's end does not wait longer for them.
const REST_TIME: Duration = Duration::from_secs(5);

/// What a provisioner meets the world with: it is asked to stop, and says what it does.
pub(super) struct Log {
    build: BuildId,
    token: Token,
    run: Arc<dyn RunContext>,
    lines: Mutex<Lines>,
}

#[derive(Default)]
struct Lines {
    /// Said and not written yet.
    waiting: Vec<String>,
    /// Lines that were written.
    written: u32,
    /// Lines and bytes that were taken.
    taken: u32,
    bytes: usize,
    is_full: bool,
}

impl Log {
    pub(super) fn new(build: BuildId, token: Token, run: Arc<dyn RunContext>) -> Self {
        Self { build, token, run, lines: Mutex::default() }
    }

    /// Writes what is said, for ever.
    pub(super) async fn keep(&self, builds: &dyn BuildStore) -> Infallible {
        loop {
            sleep(WRITE_INTERVAL).await;
            if let Err(error) = self.write(builds).await {
                tracing::debug!(
                    build.id = %self.build,
                    error = &error as &dyn std::error::Error,
                    "lines of a build wait for the database"
                );
            }
        }
    }

    /// Writes what is left, within a bounded time.
    pub(super) async fn keep_rest(&self, builds: &dyn BuildStore) {
        let deadline = Instant::now() + REST_TIME;
        let rest = async {
            while let Err(error) = self.write(builds).await {
                let is_over = !matches!(error, StoreError::Unavailable { .. });
                if is_over || !self.run.stop_cause().is_none_or(StopCause::allows_writes) {
                    return;
                }
                sleep(WRITE_INTERVAL).await;
            }
        };
        let _ = timeout_at(deadline, rest).await;
        let lost = self.lock(|lines| lines.waiting.len());
        if lost > 0 {
            metrics::counter!(BUILD_LOG_LINES_LOST.name).increment(lost as u64);
            tracing::warn!(build.id = %self.build, lost, "lines of a build could not be kept");
        }
    }

    /// Writes what waits; lines that could not be written wait on.
    async fn write(&self, builds: &dyn BuildStore) -> Result<(), StoreError> {
        loop {
            // Copied and not taken: the future may be dropped while it waits for an answer.
            let (first, batch) = self.lock(|lines| {
                let count = lines.waiting.len().min(BATCH_LINES);
                (lines.written, lines.waiting[..count].to_vec())
            });
            if batch.is_empty() {
                return Ok(());
            }
            builds.log(self.build, self.token, first, &batch).await?;
            self.lock(|lines| {
                lines.written += u32::try_from(batch.len()).unwrap_or(u32::MAX);
                lines.waiting.drain(..batch.len());
            });
        }
    }

    fn lock<T>(&self, work: impl FnOnce(&mut Lines) -> T) -> T {
        work(&mut self.lines.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Lines {
    fn push(&mut self, line: &str) {
        if self.is_full {
            return;
        }
        let mut line = line.replace('\0', "");
        line.truncate(line.floor_char_boundary(LINE_BYTES_MAX));
        self.taken += 1;
        self.bytes += line.len() + mem::size_of::<String>();
        if self.taken > LINES_MAX || self.bytes > LOG_BYTES_MAX {
            self.is_full = true;
            "the log is full; further lines are discarded".clone_into(&mut line);
        }
        self.waiting.push(line);
    }
}

#[async_trait]
impl BuildContext for Log {
    async fn stopped(&self) -> StopCause {
        self.run.stopped().await
    }

    fn log(&self, line: &str) {
        self.lock(|lines| lines.push(line));
    }
}
