//! The client that asks a provider.

use std::net::IpAddr;
use std::time::Duration;

use genai::resolver::{AuthData, Endpoint, ProviderConfig as Target};
use genai::{BoxError, Headers};
use reqwest::Url;
use reqwest::redirect::Policy;
use secrecy::ExposeSecret;

use super::config::{Dialect, Place, ProviderError};

/// Time to connect; who is there answers within a few round trips.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);

/// Connections that stay open for the next step of a turn.
const IDLE_CONNECTIONS_MAX: usize = 64;

/// Makes the client of the provider `name`.
pub(super) fn client(name: &str, place: &Place) -> Result<genai::Client, ProviderError> {
    let failed = |source: BoxError| ProviderError::Client { provider: name.to_owned(), source };
    // Other crates may have asked for rustls without a provider, and features unite.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let builder = || {
        let builder = reqwest::Client::builder()
            .user_agent(concat!("musterbeat/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none())
            .connect_timeout(CONNECT_TIME_MAX)
            .pool_max_idle_per_host(IDLE_CONNECTIONS_MAX)
            // Compression holds pieces back.
            .no_gzip();
        // What runs on this machine is not behind a proxy.
        if is_at_home(place) { builder.no_proxy() } else { builder }
    };
    // A system without certificates still asks by `http`.
    let client = builder().build().or_else(|_| builder().tls_certs_only([]).build());
    let client = client.map_err(|error| failed(error.into()))?;
    let endpoint = place.base.as_ref().map(|base| Endpoint::from_owned(base.as_str()));
    // What is not set here would be looked for in the environment.
    let target = Target { endpoint, auth: Some(auth(place)) };
    let client = genai::Client::builder()
        .with_reqwest(client)
        .append_provider_config(place.adapter, target)
        .build();
    client.map_err(|error| failed(error.into()))
}

/// Says whether the place is on this machine, as Ollama's is unless another is set.
fn is_at_home(place: &Place) -> bool {
    match &place.base {
        Some(base) => is_loopback(base),
        None => place.dialect == Dialect::Ollama && place.key.is_none(),
    }
}

fn is_loopback(base: &Url) -> bool {
    let host = base.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

fn auth(place: &Place) -> AuthData {
    let Some(key) = &place.key else { return without_key(place) };
    AuthData::from_single(key.expose_secret())
}

/// Sends no key. Where genai would insist on one, the header stays away, or is empty.
fn without_key(place: &Place) -> AuthData {
    let path = match place.dialect {
        Dialect::Completions => "chat/completions",
        Dialect::Responses => "responses",
        Dialect::Anthropic | Dialect::Gemini | Dialect::Ollama => return AuthData::from_single(""),
    };
    let url = place.base.as_ref().and_then(|base| {
        let mut url = base.join(path).ok()?;
        url.set_query(base.query());
        Some(url.into())
    });
    let url = url.unwrap_or_default();
    AuthData::RequestOverride { url, headers: Headers::default() }
}
