//! A web server of a test's own, on loopback.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::Request;
use axum::response::IntoResponse;
use tokio::net::TcpListener;
use tokio::task::AbortHandle;

/// A web server that answers as a test tells it to; dropping it takes no new connections.
#[derive(Debug)]
pub struct Web {
    addr: SocketAddr,
    serving: AbortHandle,
}

impl Web {
    /// Starts on a free port of loopback; `answer` is asked for every path and method.
    pub async fn start<F, A>(answer: F) -> Result<Self>
    where
        F: Fn(Request) -> A + Clone + Send + Sync + 'static,
        A: Future<Output: IntoResponse> + Send,
    {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .context("a test's web server found no free port on loopback: close some sockets")?;
        let addr = listener.local_addr().context("a test's web server has no address")?;
        let app = Router::new().fallback(move |request: Request| answer(request));
        let serving = tokio::spawn(async move { axum::serve(listener, app).await });
        Ok(Self { addr, serving: serving.abort_handle() })
    }

    /// Returns the URL of its root, without a slash at its end.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
