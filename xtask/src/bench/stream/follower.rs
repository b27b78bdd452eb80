//! One who follows a chat over HTTP, with next to no work of its own.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::sleep;
use uuid::Uuid;

const BUFFER_BYTES: usize = 16 * 1024;

/// How a server refuses that is to be asked again, and when.
const BUSY: &[u8] = b"HTTP/1.1 503 ";
const PAUSE: Duration = Duration::from_secs(1);

/// What is kept of an answer's beginning: enough for the whole of a refusal.
const HEAD_BYTES: usize = 1024;

/// A stream that was asked for: it ends when its chat has nothing to do, or never.
pub(super) struct Follower {
    conn: TcpStream,
    asked: Instant,
    events: Events,
    first_part: Option<Duration>,
    last_part: Option<Instant>,
}

/// What a follower heard until the end.
pub(super) struct Heard {
    /// From before it connected; `None` without any part.
    pub(super) first_part: Option<Duration>,
    pub(super) last_part: Option<Instant>,
    pub(super) parts: u64,
    pub(super) resyncs: u64,
}

impl Follower {
    async fn ask(server: SocketAddr, chat: Uuid, until: &str) -> Result<Self> {
        let asked = Instant::now();
        let mut conn = TcpStream::connect(server).await.context("failed to connect a follower")?;
        let request = format!(
            "GET /api/v1/chats/{chat}/events?until={until} HTTP/1.1\r\n\
             Host: {server}\r\nConnection: close\r\n\r\n"
        );
        conn.write_all(request.as_bytes()).await.context("failed to ask for a stream")?;
        Ok(Self { conn, asked, events: Events::default(), first_part: None, last_part: None })
    }

    /// Asks until the snapshot comes: a server that is busy says when to come again.
    ///
    /// Returns how often it was told to.
    pub(super) async fn greeted(
        server: SocketAddr,
        chat: Uuid,
        until: &str,
    ) -> Result<(Self, u64)> {
        let mut follower = Self::ask(server, chat, until).await?;
        let mut refusals = 0;
        while follower.events.snapshots == 0 {
            if 0 < follower.read().await? {
                continue;
            }
            ensure!(follower.events.head.starts_with(BUSY), "{}", follower.events.refusal());
            refusals += 1;
            sleep(PAUSE).await;
            let asked = follower.asked;
            follower = Self { asked, ..Self::ask(server, chat, until).await? };
        }
        Ok((follower, refusals))
    }

    /// Reads until the end of the stream.
    pub(super) async fn rest(mut self) -> Result<Heard> {
        while 0 < self.read().await? {}
        ensure!(0 < self.events.snapshots, "{}", self.events.refusal());
        let Self { events: Events { parts, resyncs, .. }, first_part, last_part, .. } = self;
        Ok(Heard { first_part, last_part, parts, resyncs })
    }

    async fn read(&mut self) -> Result<usize> {
        let (before, mut buffer) = (self.events.parts, Vec::with_capacity(BUFFER_BYTES));
        let read = self.conn.read_buf(&mut buffer).await.context("a stream broke off")?;
        self.events.take(&buffer);
        if before < self.events.parts {
            self.first_part.get_or_insert_with(|| self.asked.elapsed());
            self.last_part = Some(Instant::now());
        }
        Ok(read)
    }
}

/// Counts events by the lines that name them.
#[derive(Default)]
struct Events {
    /// The beginning of the answer, for when it is none that was asked for.
    head: Vec<u8>,
    /// The beginning of a line whose end has not come.
    line: Vec<u8>,
    parts: u64,
    resyncs: u64,
    snapshots: u64,
}

impl Events {
    fn refusal(&self) -> String {
        let head = String::from_utf8_lossy(&self.head);
        format!("a stream ended before its snapshot: {head}")
    }

    fn take(&mut self, bytes: &[u8]) {
        let room = HEAD_BYTES.saturating_sub(self.head.len()).min(bytes.len());
        self.head.extend_from_slice(&bytes[..room]);
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(piece);
            if !piece.ends_with(b"\n") {
                return;
            }
            match &*self.line {
                b"event: part\n" => self.parts += 1,
                b"event: resync\n" => self.resyncs += 1,
                b"event: snapshot\n" => self.snapshots += 1,
                _ => {}
            }
            self.line.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_counted_wherever_they_are_cut() {
        let text = b"HTTP/1.1 200 OK\r\n\r\n1f\r\nevent: snapshot\ndata: {}\n\n\r\n\
                     event: part\ndata: {\"part\":\"event: part\"}\n\nevent: part\ndata: {}\n\n\
                     event: resync\ndata: {}\n\n";
        for cut in 0..text.len() {
            let mut events = Events::default();
            events.take(&text[..cut]);
            events.take(&text[cut..]);
            assert_eq!((events.snapshots, events.parts, events.resyncs), (1, 2, 1), "{cut}");
        }
    }
}
