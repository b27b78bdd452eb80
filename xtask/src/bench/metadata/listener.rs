//! One who watches an agent over HTTP, with next to no work of its own.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::sleep;
use uuid::Uuid;

use super::super::replica::Replica;

const BUFFER_BYTES: usize = 16 * 1024;

/// How a server answers, and how it refuses that is to be asked again.
const GOOD: &[u8] = b"HTTP/1.1 200 ";
const BUSY: &[u8] = b"HTTP/1.1 503 ";
const PAUSE: Duration = Duration::from_secs(1);

/// Returns where a replica listens.
pub(super) fn address(replica: &Replica) -> Result<SocketAddr> {
    let address = replica.url().strip_prefix("http://").context("a replica has no address")?;
    address.trim_end_matches('/').parse().context("a replica's address is none")
}

/// A stream that was asked for.
pub(super) struct Listener {
    conn: TcpStream,
    text: Text,
}

impl Listener {
    /// Asks until the first event comes, which tells what is known already.
    pub(super) async fn open(server: SocketAddr, agent: Uuid, token: Option<&str>) -> Result<Self> {
        loop {
            let mut listener = Self::ask(server, agent, token).await?;
            if listener.next().await?.is_some() {
                return Ok(listener);
            }
            ensure!(listener.text.head.starts_with(BUSY), "{}", listener.text.refusal());
            sleep(PAUSE).await;
        }
    }

    async fn ask(server: SocketAddr, agent: Uuid, token: Option<&str>) -> Result<Self> {
        let conn = TcpStream::connect(server).await;
        let mut conn = conn.context("failed to connect: `ulimit -n` must allow all streams")?;
        let bearer = token.map(|token| format!("Authorization: Bearer {token}\r\n"));
        let request = format!(
            "GET /api/v1/agents/{agent}/metadata/events HTTP/1.1\r\n\
             Host: {server}\r\n{}Connection: close\r\n\r\n",
            bearer.unwrap_or_default(),
        );
        conn.write_all(request.as_bytes()).await.context("failed to ask for a stream")?;
        Ok(Self { conn, text: Text::default() })
    }

    /// Waits for the next event, and returns what it tells; `None` at the end of the stream.
    pub(super) async fn next(&mut self) -> Result<Option<String>> {
        loop {
            if let Some(told) = self.text.event() {
                return Ok(Some(told));
            }
            if self.read().await? == 0 {
                return Ok(None);
            }
        }
    }

    /// Reads what has come; while nothing comes, it holds no buffer.
    async fn read(&mut self) -> Result<usize> {
        let failed = "a stream broke off";
        loop {
            self.conn.readable().await.context(failed)?;
            let mut buffer = [0; BUFFER_BYTES];
            match self.conn.try_read(&mut buffer) {
                Ok(read) => {
                    self.text.take(&buffer[..read]);
                    return Ok(read);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).context(failed),
            }
        }
    }
}

/// What a server sent, line by line.
#[derive(Default)]
struct Text {
    /// The first line of the answer, and all of one that refuses.
    head: Vec<u8>,
    /// What was not looked at yet.
    bytes: Vec<u8>,
    /// Whether the event that has begun tells values.
    tells: bool,
}

impl Text {
    fn take(&mut self, bytes: &[u8]) {
        if self.head.is_empty() || !self.head.starts_with(GOOD) {
            self.head.extend_from_slice(bytes);
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Returns what the next whole event tells, and forgets it.
    fn event(&mut self) -> Option<String> {
        let mut told = None;
        let mut taken = 0;
        while told.is_none()
            && let Some(length) = self.bytes[taken..].iter().position(|byte| *byte == b'\n')
        {
            let line = &self.bytes[taken..taken + length];
            taken += length + 1;
            if line.starts_with(b"event: ") {
                self.tells = line == b"event: metadata";
            } else if let Some(data) = line.strip_prefix(b"data: ")
                && self.tells
            {
                told = Some(String::from_utf8_lossy(data).into_owned());
            }
        }
        self.bytes.drain(..taken);
        if self.bytes.is_empty() {
            // Ten thousand idle streams hold nothing.
            self.bytes = Vec::new();
        }
        told
    }

    fn refusal(&self) -> String {
        format!("a stream ended before it told anything: {}", String::from_utf8_lossy(&self.head))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_wherever_they_are_cut() {
        let answer = b"HTTP/1.1 200 OK\r\n\r\n1f\r\nevent: metadata\ndata: {\"a\":1}\n\n\r\n\
                       9\r\nevent: ping\ndata: {}\n\n\r\n1f\r\nevent: metadata\ndata: {\"a\":2}\n\n";
        for cut in 0..answer.len() {
            let mut text = Text::default();
            let mut told = Vec::new();
            for piece in [&answer[..cut], &answer[cut..]] {
                text.take(piece);
                told.extend(std::iter::from_fn(|| text.event()));
            }
            assert_eq!(told, ["{\"a\":1}", "{\"a\":2}"], "{cut}");
            assert!(text.bytes.len() < 2);
        }
    }
}
