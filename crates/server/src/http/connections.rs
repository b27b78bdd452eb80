//! Connections: a bounded number, of one address too, each with bounded time for what it owes.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::metrics::{HTTP_CONNECTIONS, HTTP_CONNECTIONS_REFUSED};

/// Pause after a failed accept: with all file descriptors in use, the next fails as well.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// File descriptors left for everything but connections: the pool, logs, files of a start.
const FILES_RESERVED: u64 = 128;

/// Bounds of connections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectionLimits {
    /// Connections at once; more wait in the kernel's backlog.
    pub(crate) connections: usize,
    /// Connections of one address at once; more are closed.
    pub(crate) per_address: usize,
    /// Time that a client has to send a request's head, also between two requests.
    pub(crate) head_time: Duration,
    /// Time in which a client takes some of what it is sent.
    pub(crate) write_time: Duration,
}

impl ConnectionLimits {
    /// Asks the system for as many files as it allows, and keeps the connections within them.
    pub(crate) fn within_files(self) -> Self {
        let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return self };
        // Some systems name a hard limit that they do not grant: then the soft one stays.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
        let Ok((soft, _)) = getrlimit(Resource::RLIMIT_NOFILE) else { return self };
        let room = usize::try_from(soft.saturating_sub(FILES_RESERVED)).unwrap_or(usize::MAX);
        if room < self.connections {
            tracing::warn!(
                connections_max = room,
                "the limit of open files bounds connections; raise it with `ulimit -n`"
            );
        }
        Self { connections: self.connections.min(room.max(1)), ..self }
    }
}

/// Serves until the end is asked for and every request that had begun is answered.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    limits: ConnectionLimits,
    end: CancellationToken,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.head_time);
    let connections = GracefulShutdown::new();
    let places = Places::new(limits);
    loop {
        let (stream, address, place) = tokio::select! {
            () = end.cancelled() => break,
            accepted = accept(&listener, &places) => accepted,
        };
        let router = router.clone();
        let service = service_fn(move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(ConnectInfo(address));
            router.clone().oneshot(request.map(Body::new))
        });
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(limits.write_time));
        let io = TokioIo::new(Box::pin(stream));
        let connection = connections.watch(http.serve_connection(io, service));
        tokio::spawn(async move {
            metrics::gauge!(HTTP_CONNECTIONS.name).increment(1);
            // A client that goes away in the middle is no fault of ours.
            let _ = connection.await;
            metrics::gauge!(HTTP_CONNECTIONS.name).decrement(1);
            drop(place);
        });
    }
    drop(listener);
    connections.shutdown().await;
}

/// Waits for a place, then for a client that may take it.
async fn accept(listener: &TcpListener, places: &Places) -> (TcpStream, SocketAddr, Place) {
    let free = places.free().await;
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                let Some(share) = places.share_of(address.ip()) else {
                    metrics::counter!(HTTP_CONNECTIONS_REFUSED.name).increment(1);
                    continue;
                };
                // Events are small and should leave at once.
                let _ = stream.set_nodelay(true);
                return (stream, address, Place { _free: free, _share: share });
            }
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "a connection could not be accepted"
                );
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Room for connections, in all and of each address.
struct Places {
    free: Arc<Semaphore>,
    /// INVARIANT: holds the addresses with at least one connection.
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
    per_address: usize,
}

/// What one connection takes; given back when it is dropped.
struct Place {
    _free: OwnedSemaphorePermit,
    _share: Share,
}

struct Share {
    address: IpAddr,
    taken: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

impl Places {
    fn new(limits: ConnectionLimits) -> Self {
        Self {
            free: Arc::new(Semaphore::new(limits.connections)),
            taken: Arc::default(),
            per_address: limits.per_address,
        }
    }

    async fn free(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.free).acquire_owned().await.expect("the semaphore is never closed")
    }

    /// Counts a connection of an address; `None` when it has enough.
    fn share_of(&self, address: IpAddr) -> Option<Share> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let count = taken.get(&address).copied().unwrap_or(0);
        if count >= self.per_address {
            return None;
        }
        taken.insert(address, count + 1);
        Some(Share { address, taken: Arc::clone(&self.taken) })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        match taken.get_mut(&self.address) {
            Some(count) if *count > 1 => *count -= 1,
            _ => {
                taken.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    async fn start(change: impl FnOnce(&mut ConnectionLimits)) -> (SocketAddr, CancellationToken) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new()
            .route("/", get(async || "hi"))
            .route("/large", get(async || "x".repeat(64 * 1024 * 1024)));
        let mut limits = ConnectionLimits {
            connections: 2,
            per_address: 2,
            head_time: Duration::from_millis(100),
            write_time: Duration::from_millis(100),
        };
        change(&mut limits);
        let end = CancellationToken::new();
        tokio::spawn(serve(listener, router, limits, end.clone()));
        (address, end)
    }

    /// Sends `text`, and returns what comes until the server closes the connection.
    async fn talk(address: SocketAddr, text: &str) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        let read = stream.read_to_string(&mut answer);
        tokio::time::timeout(PATIENCE, read).await.expect("the server closes").unwrap();
        answer
    }

    #[tokio::test]
    async fn client_that_never_ends_its_request_is_let_go() {
        let (address, _end) = start(|_| {}).await;
        assert!(!talk(address, "GET / HTTP/1.1\r\nHost: x\r\n").await.contains("hi"));
    }

    #[tokio::test]
    async fn place_of_a_client_that_left_is_taken_by_the_next() {
        let (address, _end) = start(|limits| limits.connections = 1).await;
        for _ in 0..3 {
            let answer = talk(address, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
            assert!(answer.ends_with("hi"), "{answer}");
        }
    }

    #[tokio::test]
    async fn address_with_enough_connections_gets_no_other() {
        let (address, _end) = start(|limits| {
            limits.per_address = 1;
            limits.head_time = PATIENCE;
        })
        .await;
        let mut held = TcpStream::connect(address).await.unwrap();
        held.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        held.read_exact(&mut [0; 12]).await.unwrap();
        assert_eq!(talk(address, "").await, "", "closed without a word");
    }

    #[tokio::test]
    async fn client_that_takes_nothing_is_let_go() {
        let (address, _end) = start(|limits| {
            limits.connections = 1;
            limits.head_time = PATIENCE;
        })
        .await;
        let mut idle = TcpStream::connect(address).await.unwrap();
        idle.write_all(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let request = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        assert!(talk(address, request).await.ends_with("hi"), "its place is free again");
    }
}
