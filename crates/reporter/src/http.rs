//! The server over HTTP.

use std::time::Duration;

use async_trait::async_trait;
use musterbeat_core::id::AgentId;
use musterbeat_core::metadata::{KEYS_MAX, Key};
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::redirect::Policy;
use reqwest::{Client, RequestBuilder, Response, StatusCode, Url};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::backlog::Entry;
use crate::duty::{Assignment, Duty};
use crate::explain::{cut, explained};
use crate::options::{ReporterError, ReporterOptions};
use crate::server::{CallError, Receipt, Server};

/// Longest time until there is a connection.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);

/// Longest time of one call, from its connection to the last byte of its answer.
const CALL_TIME_MAX: Duration = Duration::from_secs(10);

/// Bytes of an answer, at most: 128 definitions of the largest size, with every byte escaped.
const BODY_BYTES_MAX: usize = 16 << 20;

/// Bytes of what is quoted of an answer, at most.
const DETAIL_BYTES_MAX: usize = 500;

/// The type of answers that tell what is wrong; one of another type comes from something else.
const PROBLEM: &str = "application/problem+json";

/// Calls a server.
#[derive(Debug)]
pub(crate) struct HttpServer {
    client: Client,
    /// Where the metadata of the agent is.
    url: Url,
    token: Option<SecretString>,
}

impl HttpServer {
    /// Prepares for calls; none is made.
    pub(crate) fn new(options: &ReporterOptions) -> Result<Self, ReporterError> {
        let url = endpoint(&options.server, options.agent).ok_or(ReporterError::Url)?;
        let token = options.token.clone();
        if let Some(token) = &token
            && (token.expose_secret().is_empty() || !is_visible(token.expose_secret()))
        {
            return Err(ReporterError::Token);
        }
        if token.is_some() && url.scheme() == "http" && !is_loopback(&url) {
            tracing::warn!("the token goes to the server unencrypted; use https if it has it");
        }
        let client = client(&url).map_err(ReporterError::Client)?;
        Ok(Self { client, url, token })
    }

    async fn call<T: DeserializeOwned>(&self, request: RequestBuilder) -> Result<T, CallError> {
        let request = match &self.token {
            Some(token) => request.bearer_auth(token.expose_secret()),
            None => request,
        };
        let response = request.send().await.map_err(|error| away(&error.without_url()))?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = body(response).await?;
        if !status.is_success() {
            return Err(refusal(status, &headers, &body));
        }
        serde_json::from_slice(&body).map_err(|error| CallError::Away {
            reason: format!("the answer is not musterbeat's: {error}"),
            wait: None,
        })
    }
}

#[async_trait]
impl Server for HttpServer {
    async fn definitions(&self) -> Result<Assignment, CallError> {
        let told: Told = self.call(self.client.get(self.url.clone())).await?;
        Ok(told.into_assignment())
    }

    async fn report(&self, entries: &[Entry]) -> Result<Receipt, CallError> {
        self.call(self.client.post(self.url.clone()).json(entries)).await
    }
}

/// What is to be reported, as the server writes it.
#[derive(Debug, Deserialize)]
struct Told {
    definitions_version: i64,
    metadata: Vec<ToldDefinition>,
}

/// A definition, without what only people want to know.
#[derive(Debug, Deserialize)]
struct ToldDefinition {
    key: String,
    #[serde(default)]
    script: String,
    interval_seconds: u32,
    timeout_seconds: u32,
}

impl Told {
    fn into_assignment(self) -> Assignment {
        let mut duties: Vec<Duty> = Vec::new();
        for told in self.metadata.into_iter().take(KEYS_MAX) {
            match Key::new(told.key) {
                Ok(key) if duties.iter().any(|duty| duty.key == key) => {}
                Ok(key) => duties.push(Duty::new(
                    key,
                    told.script,
                    told.interval_seconds,
                    told.timeout_seconds,
                )),
                Err(error) => tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "a definition of the server is left out"
                ),
            }
        }
        Assignment { version: self.definitions_version, duties }
    }
}

/// Returns where the metadata of an agent is; `None` for a server that cannot be called.
fn endpoint(server: &str, agent: AgentId) -> Option<Url> {
    let mut url = Url::parse(server).ok()?;
    let is_plain = matches!(url.scheme(), "http" | "https")
        && url.has_host()
        && url.username().is_empty()
        && url.password().is_none()
        && url.query().is_none()
        && url.fragment().is_none();
    if !is_plain {
        return None;
    }
    let agent = agent.to_string();
    let path = ["api", "v1", "agents", &agent, "metadata"];
    url.path_segments_mut().ok()?.pop_if_empty().extend(path);
    Some(url)
}

fn is_visible(token: &str) -> bool {
    token.bytes().all(|byte| byte.is_ascii_graphic())
}

fn client(server: &Url) -> reqwest::Result<Client> {
    // Other crates may have asked for rustls without a provider, and features unite.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = || {
        let client = Client::builder()
            .user_agent(concat!("musterbeat-agent/", env!("CARGO_PKG_VERSION")))
            // The token is shown to nobody else.
            .redirect(Policy::none())
            .connect_timeout(CONNECT_TIME_MAX)
            .timeout(CALL_TIME_MAX);
        // What runs on this machine is not behind a proxy.
        if is_loopback(server) { client.no_proxy() } else { client }
    };
    // A system without certificates still calls by `http`.
    client().build().or_else(|_| client().tls_certs_only([]).build())
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

/// Reads an answer up to its bound.
async fn body(mut response: Response) -> Result<Vec<u8>, CallError> {
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(|error| away(&error.without_url()))? {
        if BODY_BYTES_MAX < body.len() + piece.len() {
            let reason = format!("the answer has more than {BODY_BYTES_MAX} bytes");
            return Err(CallError::Away { reason, wait: None });
        }
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

fn away(error: &reqwest::Error) -> CallError {
    CallError::Away { reason: explained(error), wait: None }
}

/// Says what an answer means that is not the one that was asked for.
fn refusal(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> CallError {
    let is_problem = text(headers.get(CONTENT_TYPE)).is_some_and(|kind| kind.starts_with(PROBLEM));
    if !is_problem {
        // A proxy answers so whose server is being replaced: that an agent is gone, only the
        // server can say.
        let reason = format!("{status} by something that is not musterbeat: is its URL right?");
        return CallError::Away { reason, wait: wait(headers) };
    }
    let reason = format!("{status}: {}", detail(body));
    match status {
        StatusCode::UNAUTHORIZED => CallError::Unauthorized,
        StatusCode::NOT_FOUND => CallError::NotFound,
        StatusCode::BAD_REQUEST
        | StatusCode::PAYLOAD_TOO_LARGE
        | StatusCode::UNPROCESSABLE_ENTITY => CallError::Refused(reason),
        _ => CallError::Away { reason, wait: wait(headers) },
    }
}

/// Returns what a problem says, fit for a line of the log.
fn detail(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Problem {
        detail: String,
    }
    let problem = serde_json::from_slice::<Problem>(body);
    let mut detail = problem.map_or_else(|_| "it does not say why".to_owned(), |it| it.detail);
    cut(&mut detail, DETAIL_BYTES_MAX);
    detail.replace(char::is_control, " ")
}

fn wait(headers: &HeaderMap) -> Option<Duration> {
    text(headers.get(RETRY_AFTER))?.parse().ok().map(Duration::from_secs)
}

fn text(value: Option<&HeaderValue>) -> Option<&str> {
    value?.to_str().ok().map(str::trim)
}

#[cfg(test)]
mod tests;
