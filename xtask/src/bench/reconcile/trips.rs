//! Round trips, counted on the wire.

use std::io;
use std::net::Ipv4Addr;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result};
use sqlx::ConnectOptions as _;
use sqlx::postgres::PgConnectOptions;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufReader, copy};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What the server says when it waits for the next word of a client: once a round trip.
const READY: u8 = b'Z';

/// Stands between clients and the server, and counts; ends when it is dropped.
pub(super) struct Trips {
    url: String,
    count: Arc<AtomicU64>,
    accepting: JoinHandle<()>,
}

impl Trips {
    /// Begins to listen in front of the server of `database_url`.
    pub(super) async fn start(database_url: &str) -> Result<Self> {
        let options = PgConnectOptions::from_str(database_url).context("the URL is none")?;
        let server = (options.get_host().to_owned(), options.get_port());
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.context("there is no free port: close some sockets")?;
        let port = listener.local_addr().context("the listener has no address")?.port();
        let through =
            options.host("127.0.0.1").port(port).ssl_mode(sqlx::postgres::PgSslMode::Disable);
        let count = Arc::new(AtomicU64::new(0));
        let accepting = tokio::spawn(accept(listener, server, Arc::clone(&count)));
        Ok(Self { url: through.to_url_lossy().to_string(), count, accepting })
    }

    /// Returns the URL of the database for those whose trips count.
    pub(super) fn url(&self) -> &str {
        &self.url
    }

    /// Returns how many there were.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }
}

impl Drop for Trips {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, server: (String, u16), count: Arc<AtomicU64>) {
    while let Ok((client, _)) = listener.accept().await {
        let Ok(server) = TcpStream::connect((server.0.as_str(), server.1)).await else { continue };
        // Each packet waits for an answer.
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let (mut from_client, to_client) = client.into_split();
        let (from_server, mut to_server) = server.into_split();
        let count = Arc::clone(&count);
        // Either ends with its connection.
        tokio::spawn(async move { copy(&mut from_client, &mut to_server).await });
        tokio::spawn(async move { answer(from_server, to_client, &count).await });
    }
}

/// Passes on what the server says, message by message: a letter, and a length with its own bytes.
async fn answer(from: OwnedReadHalf, mut to: OwnedWriteHalf, count: &AtomicU64) -> io::Result<()> {
    let mut from = BufReader::new(from);
    let mut message = Vec::new();
    loop {
        let mut length = [0; 4];
        let letter = from.read_u8().await?;
        from.read_exact(&mut length).await?;
        message.clear();
        message.push(letter);
        message.extend(length);
        message.resize(1 + u32::from_be_bytes(length) as usize, 0);
        from.read_exact(&mut message[1 + length.len()..]).await?;
        if letter == READY {
            count.fetch_add(1, Ordering::Relaxed);
        }
        to.write_all(&message).await?;
    }
}
