//! Calls of the API, each asked conditionally and bounded in time and bytes.

use std::error::Error;
use std::time::{Duration, SystemTime};

use musterbeat_core::port::FetchError;
use reqwest::header::{ACCEPT, ETAG, HeaderValue, IF_NONE_MATCH};
use reqwest::redirect::{Attempt, Policy};
use reqwest::{Client, Response, StatusCode, Url};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::refusal;
use crate::cache::{Cache, Entry, Key};
use crate::config::Options;
use crate::metrics::{self, Outcome};

/// Bytes of an answer's body, at most: a pull request has some tens of KB.
const BODY_BYTES_MAX: usize = 1 << 20;

/// Redirects that are followed: a repository that was renamed, or two or three times.
const REDIRECTS_MAX: usize = 3;

/// Connections that stay open to a host for the next batch of questions.
const IDLE_CONNECTIONS_MAX: usize = 10;

/// Characters of what is wrong with an answer, at most.
const PARSE_ERROR_CHARS_MAX: usize = 200;

/// The format that is asked for, and the version of the API whose fields are read.
const MEDIA_TYPE: &str = "application/vnd.github+json";
const API_VERSION: (&str, &str) = ("x-github-api-version", "2022-11-28");

/// Makes the client for an API.
pub(super) fn client(api: &Url, options: &Options) -> reqwest::Result<Client> {
    // Other crates may have asked for rustls without a provider, and features unite.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = || {
        let client = Client::builder()
            .user_agent(concat!("musterbeat/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::custom(follow))
            .timeout(options.call_time_max)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX);
        // What runs on this machine is not behind a proxy.
        if is_loopback(api) { client.no_proxy() } else { client }
    };
    // A system without certificates still asks by `http`.
    client().build().or_else(|_| client().tls_certs_only([]).build())
}

fn is_loopback(api: &Url) -> bool {
    let host = api.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

/// Follows redirects on the same host only: no other is shown the token.
fn follow(attempt: Attempt<'_>) -> reqwest::redirect::Action {
    let place =
        |url: &Url| (url.scheme().to_owned(), url.host_str().map(str::to_owned), url.port());
    if REDIRECTS_MAX < attempt.previous().len() {
        return attempt.error("the host redirects too often");
    }
    match attempt.previous().first() {
        Some(first) if place(first) == place(attempt.url()) => attempt.follow(),
        _ => attempt.stop(),
    }
}

/// One who asks: a client, a token, and what was answered before.
#[derive(Clone, Copy, Debug)]
pub(super) struct Caller<'a> {
    pub(super) client: &'a Client,
    pub(super) token: &'a SecretString,
    /// Digest of the token.
    pub(super) digest: [u8; 32],
    pub(super) cache: &'a Cache,
    /// Names the limit to whoever was not answered in time.
    pub(super) call_time_max: Duration,
}

/// An answer, and what is to be kept of it once all that depends on it is known.
#[derive(Debug)]
pub(super) struct Told<T> {
    pub(super) value: T,
    /// `None` when the host said that nothing changed.
    unsaved: Option<(Key, Option<Entry>)>,
}

impl<T> Told<T> {
    /// Says whether it is what was told before.
    pub(super) fn is_unchanged(&self) -> bool {
        self.unsaved.is_none()
    }

    /// Keeps the answer, so that the next question is whether it has changed, and returns it.
    pub(super) fn keep(self, cache: &Cache) -> T {
        if let Some((key, Some(entry))) = self.unsaved {
            cache.put(key, entry);
        }
        self.value
    }
}

impl Caller<'_> {
    /// Asks for what is at `url`, or whether it has changed; one call.
    pub(super) async fn get<T>(&self, url: Url) -> Result<Told<T>, FetchError>
    where
        T: DeserializeOwned + Serialize,
    {
        let told = self.call(url).await;
        metrics::called(match &told {
            Ok(told) if told.is_unchanged() => Outcome::NotModified,
            Ok(_) => Outcome::Fresh,
            Err(_) => Outcome::Failed,
        });
        told
    }

    /// Returns what was told before of `url`, without a call.
    pub(super) fn kept<T: DeserializeOwned>(&self, url: &Url) -> Option<T> {
        self.cache.get(&self.key(url)).and_then(|entry| serde_json::from_slice(&entry.body).ok())
    }

    fn key(&self, url: &Url) -> Key {
        Key { url: url.as_str().to_owned(), token: self.digest }
    }

    async fn call<T>(&self, url: Url) -> Result<Told<T>, FetchError>
    where
        T: DeserializeOwned + Serialize,
    {
        let key = self.key(&url);
        let before = self.cache.get(&key);
        let response = self.send(url, before.as_ref()).await?;
        let (status, headers) = (response.status(), response.headers().clone());
        if let (StatusCode::NOT_MODIFIED, Some(before)) = (status, &before) {
            return Ok(Told { value: parse(&before.body)?, unsaved: None });
        }
        let body = self.body(response).await?;
        if status != StatusCode::OK {
            return Err(refusal::read(status, &headers, &body, SystemTime::now()));
        }
        let value: T = parse(&body)?;
        let entry = |etag: &HeaderValue| {
            let body = serde_json::to_vec(&value).ok()?;
            Some(Entry { etag: etag.clone(), body })
        };
        let entry = headers.get(ETAG).and_then(entry);
        Ok(Told { value, unsaved: Some((key, entry)) })
    }

    async fn send(&self, url: Url, before: Option<&Entry>) -> Result<Response, FetchError> {
        let mut request = self
            .client
            .get(url)
            .bearer_auth(self.token.expose_secret())
            .header(ACCEPT, MEDIA_TYPE)
            .header(API_VERSION.0, API_VERSION.1);
        if let Some(entry) = before {
            request = request.header(IF_NONE_MATCH, &entry.etag);
        }
        request.send().await.map_err(|error| self.lost(&error))
    }

    async fn body(&self, mut response: Response) -> Result<Vec<u8>, FetchError> {
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| self.lost(&error))? {
            if BODY_BYTES_MAX < body.len() + chunk.len() {
                let reason = format!("its answer has more than {BODY_BYTES_MAX} bytes");
                return Err(FetchError::Host(reason));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    /// Says what broke by its innermost cause: the outer ones repeat the URL.
    fn lost(&self, error: &reqwest::Error) -> FetchError {
        if error.is_timeout() {
            return FetchError::Transport(format!("no answer within {:?}", self.call_time_max));
        }
        let mut cause: &dyn Error = error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        // The client's own errors are outermost.
        let told = error.source().is_some().then(|| cause.to_string());
        let told = told.unwrap_or_else(|| "the call was not made".to_owned());
        if error.is_redirect() { FetchError::Host(told) } else { FetchError::Transport(told) }
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, FetchError> {
    serde_json::from_slice(body).map_err(|error| {
        // It repeats a value of the wrong type, which may be long.
        let told: String = error.to_string().chars().take(PARSE_ERROR_CHARS_MAX).collect();
        FetchError::Host(format!("its answer was not understood: {told}"))
    })
}
