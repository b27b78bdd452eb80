//! Bytes on their way through a slow network.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::tcp::WriteHalf;
use tokio::time::{Instant, sleep_until};

/// Bytes that one direction holds at most; then it stops reading, and the sender feels it.
const QUEUED_BYTES_MAX: usize = 1 << 20;

/// Pieces in the order they came; an empty one is the end of the stream.
#[derive(Default)]
pub(super) struct Queue {
    pieces: VecDeque<Piece>,
    bytes: usize,
    ended: bool,
}

struct Piece {
    arrived: Instant,
    bytes: Vec<u8>,
    written: usize,
}

/// What a write brought forward.
pub(super) enum Progress {
    Bytes(usize),
    End,
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Whether more may be read: there is room, and the stream has not ended.
    pub(super) fn wants_more(&self) -> bool {
        !self.ended && self.bytes < QUEUED_BYTES_MAX
    }

    /// Adds what was read; nothing means the end.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.ended = bytes.is_empty();
        self.bytes += bytes.len();
        self.pieces.push_back(Piece { arrived: Instant::now(), bytes: bytes.to_vec(), written: 0 });
    }

    /// Writes some of the first piece once it has travelled for `delay`.
    ///
    /// Cancelling it loses nothing: what was written is known only by its answer.
    pub(super) async fn write_first(
        &self,
        to: &mut WriteHalf<'_>,
        delay: Duration,
    ) -> io::Result<Progress> {
        let Some(piece) = self.pieces.front() else {
            return std::future::pending().await;
        };
        sleep_until(piece.arrived + delay).await;
        if piece.bytes.is_empty() {
            return Ok(Progress::End);
        }
        match to.write(&piece.bytes[piece.written..]).await? {
            0 => Err(io::ErrorKind::WriteZero.into()),
            written => Ok(Progress::Bytes(written)),
        }
    }

    /// Forgets the next `written` bytes.
    pub(super) fn advance(&mut self, written: usize) {
        let Some(piece) = self.pieces.front_mut() else { return };
        piece.written += written;
        self.bytes -= written;
        if piece.written == piece.bytes.len() {
            self.pieces.pop_front();
        }
    }
}
