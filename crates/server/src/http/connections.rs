//! Connections: a bounded number, each with a bounded time to say what it wants.

use std::net::SocketAddr;
use std::sync::Arc;
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
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use crate::metrics::HTTP_CONNECTIONS;

/// Pause after a failed accept: with all file descriptors in use, the next fails as well.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Bounds of connections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ConnectionLimits {
    /// Connections at once; more wait in the kernel's backlog.
    pub(crate) connections_max: usize,
    /// Time that a client has to send a request's head, also between two requests.
    pub(crate) head_time_max: Duration,
}

/// Serves until the end is asked for and every request that had begun is answered.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    limits: ConnectionLimits,
    end: CancellationToken,
) {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(limits.head_time_max);
    let connections = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(limits.connections_max));
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
        let connection = connections.watch(http.serve_connection(TokioIo::new(stream), service));
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

/// Waits for a place, then for a client that takes it.
async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
    let place = Arc::clone(places).acquire_owned().await.expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                // Events are small and should leave at once.
                let _ = stream.set_nodelay(true);
                return (stream, address, place);
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

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    async fn start(connections_max: usize) -> (SocketAddr, CancellationToken) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = Router::new().route("/", get(async || "hi"));
        let limits =
            ConnectionLimits { connections_max, head_time_max: Duration::from_millis(100) };
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
        let (address, _end) = start(2).await;
        assert!(!talk(address, "GET / HTTP/1.1\r\nHost: x\r\n").await.contains("hi"));
    }

    #[tokio::test]
    async fn place_of_a_client_that_left_is_taken_by_the_next() {
        let (address, _end) = start(1).await;
        for _ in 0..3 {
            let answer = talk(address, "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
            assert!(answer.ends_with("hi"), "{answer}");
        }
    }
}
