//! Calls of an MCP server over HTTP.

use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use reqwest::header::{HeaderName, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, Url};
use rmcp::model::ClientJsonRpcMessage;
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::common::client_side_sse::{BoxedSseResponse, ExponentialBackoff};
use rmcp::transport::streamable_http_client::{
    SseError, StreamableHttpClient, StreamableHttpClientTransportConfig, StreamableHttpError,
    StreamableHttpPostResponse,
};
use tokio_util::sync::CancellationToken;

use super::connection::MESSAGE_BYTES_MAX;
use super::headers::Headers;

/// Calls that go on at once over one connection; further ones wait their turn.
const CALLS_MAX: usize = 256;

/// Longest pause before the stream of notifications is asked for again.
const RETRY_DELAY_MAX: Duration = Duration::from_mins(1);

/// Connections that stay open for the next call.
const IDLE_CONNECTIONS_MAX: usize = 8;

/// Makes the client for the server at `url`.
pub(super) fn client(url: &Url, connect_timeout: Duration) -> reqwest::Result<Client> {
    // Other crates may have asked for rustls without a provider, and features unite.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = || {
        let client = Client::builder()
            .user_agent(concat!("musterbeat/", env!("CARGO_PKG_VERSION")))
            // The headers are shown to nobody else.
            .redirect(Policy::none())
            .connect_timeout(connect_timeout)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX);
        // What runs on this machine is not behind a proxy.
        if is_loopback(url) { client.no_proxy() } else { client }
    };
    // A system without certificates still calls by `http`.
    client().build().or_else(|_| client().tls_certs_only([]).build())
}

/// Says whether the server runs on this machine.
pub(super) fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

/// Returns the transport to the server at `url`; it begins nothing new once `ended` is cancelled.
pub(super) fn transport(
    client: Client,
    url: &Url,
    headers: Headers,
    ended: CancellationToken,
) -> StreamableHttpClientTransport<Wire> {
    let url: Arc<str> = url.as_str().into();
    let mut config = StreamableHttpClientTransportConfig::with_uri(Arc::clone(&url))
        .custom_headers(headers)
        .max_concurrent_requests(CALLS_MAX)
        .max_sse_event_size(MESSAGE_BYTES_MAX)
        // A new session has its tools listed anew, so it is a new connection.
        .reinit_on_expired_session(false);
    let mut retry = ExponentialBackoff::default();
    retry.max_delay = Some(RETRY_DELAY_MAX);
    config.retry_config = Arc::new(retry);
    StreamableHttpClientTransport::with_client(Wire { client, url, ended }, config)
}

/// An HTTP client whose calls end with their connection, and whose errors bear no URL.
///
/// The task that makes them belongs to the transport, and looks at nothing else while it waits
/// for a server that says nothing.
#[derive(Clone)]
pub(super) struct Wire {
    client: Client,
    url: Arc<str>,
    ended: CancellationToken,
}

type Outcome<T> = Result<T, StreamableHttpError<reqwest::Error>>;

impl Wire {
    async fn unless_ended<T>(&self, call: impl Future<Output = Outcome<T>>) -> Outcome<T> {
        tokio::select! {
            () = self.ended.cancelled() => Err(StreamableHttpError::TransportChannelClosed),
            outcome = call => outcome.map_err(nameless),
        }
    }

    fn stream(&self, stream: BoxedSseResponse) -> BoxedSseResponse {
        let url = Arc::clone(&self.url);
        let nameless = stream.map(move |event| event.map_err(|error| nameless_event(error, &url)));
        nameless.take_until(self.ended.clone().cancelled_owned()).boxed()
    }
}

impl StreamableHttpClient for Wire {
    type Error = reqwest::Error;

    async fn post_message(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session: Option<Arc<str>>,
        token: Option<String>,
        headers: HashMap<HeaderName, HeaderValue>,
    ) -> Outcome<StreamableHttpPostResponse> {
        let bytes_max = MESSAGE_BYTES_MAX;
        self.post_message_with_max_sse_event_size(uri, message, session, token, headers, bytes_max)
            .await
    }

    async fn post_message_with_max_sse_event_size(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session: Option<Arc<str>>,
        token: Option<String>,
        headers: HashMap<HeaderName, HeaderValue>,
        bytes_max: usize,
    ) -> Outcome<StreamableHttpPostResponse> {
        let call = self
            .client
            .post_message_with_max_sse_event_size(uri, message, session, token, headers, bytes_max);
        Ok(match self.unless_ended(call).await? {
            StreamableHttpPostResponse::Sse(stream, session) => {
                StreamableHttpPostResponse::Sse(self.stream(stream), session)
            }
            whole => whole,
        })
    }

    /// It comes last, when everything else has ended, and its caller bounds it.
    async fn delete_session(
        &self,
        uri: Arc<str>,
        session: Arc<str>,
        token: Option<String>,
        headers: HashMap<HeaderName, HeaderValue>,
    ) -> Outcome<()> {
        self.client.delete_session(uri, session, token, headers).await.map_err(nameless)
    }

    async fn get_stream(
        &self,
        uri: Arc<str>,
        session: Option<Arc<str>>,
        last_event: Option<String>,
        token: Option<String>,
        headers: HashMap<HeaderName, HeaderValue>,
    ) -> Outcome<BoxedSseResponse> {
        let bytes_max = MESSAGE_BYTES_MAX;
        self.get_stream_with_max_sse_event_size(uri, session, last_event, token, headers, bytes_max)
            .await
    }

    async fn get_stream_with_max_sse_event_size(
        &self,
        uri: Arc<str>,
        session: Option<Arc<str>>,
        last_event: Option<String>,
        token: Option<String>,
        headers: HashMap<HeaderName, HeaderValue>,
        bytes_max: usize,
    ) -> Outcome<BoxedSseResponse> {
        let call = self.client.get_stream_with_max_sse_event_size(
            uri, session, last_event, token, headers, bytes_max,
        );
        self.unless_ended(call).await.map(|stream| self.stream(stream))
    }
}

/// Takes the URL out of an error: its query may bear a secret.
fn nameless(error: StreamableHttpError<reqwest::Error>) -> StreamableHttpError<reqwest::Error> {
    match error {
        StreamableHttpError::Client(error) => StreamableHttpError::Client(error.without_url()),
        other => other,
    }
}

/// Replaces an error that bears the URL somewhere within.
fn nameless_event(error: SseError, url: &str) -> SseError {
    match error {
        SseError::Body(error) if bears(&*error, url) => {
            SseError::Body(Box::new(io::Error::other("the stream broke off")))
        }
        other => other,
    }
}

fn bears(error: &(dyn Error + 'static), url: &str) -> bool {
    error.to_string().contains(url) || format!("{error:?}").contains(url)
}
