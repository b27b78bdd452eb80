//! The replicas among themselves: parts of a chat that is worked on elsewhere.
//!
//! Who follows a chat here that another replica works on gets its parts by a relay: one connection
//! a chat to that replica, whose parts go into the streams of this process as if they came from
//! here. It is there while the chat has followers and that owner.
//!
//! All replicas share a secret. Without one nothing is relayed and nothing is served: followers get
//! the stored messages then, and no parts of chats that are worked on elsewhere.

mod relay;
mod serve;
mod wire;

use std::sync::Arc;

use anyhow::Context;
use axum::http::{HeaderName, HeaderValue};
use musterbeat_core::chat::Place;
use musterbeat_core::id::RunId;
use musterbeat_engine::parts::PartStreams;
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use uuid::Uuid;

pub(crate) use self::relay::Relay;
pub(crate) use self::serve::routes;
use crate::settings::Settings;

/// Names the process that relays, so that none ever asks itself.
const REPLICA: HeaderName = HeaderName::from_static("x-musterbeat-replica");

/// Relays that one replica serves at once; who is refused tries again.
const SERVED_MAX: usize = 4_096;

/// What this replica knows of the others. Clones share it.
#[derive(Clone)]
pub(crate) struct Cluster(Arc<Shared>);

struct Shared {
    /// This process; never reused.
    replica: Uuid,
    /// Where others reach this replica.
    advertise_url: Option<String>,
    /// `None` when nothing is relayed.
    access: Option<Access>,
    served: Arc<Semaphore>,
}

struct Access {
    secret: SecretString,
    http: reqwest::Client,
}

impl Cluster {
    /// Takes `cluster_secret` and `advertise_url` of the settings.
    ///
    /// # Errors
    /// Says why this process cannot call others.
    pub(crate) fn of(settings: &Settings) -> anyhow::Result<Self> {
        let access = settings.cluster_secret.clone().map(|secret| {
            let http = client().context("failed to make ready for calls to other replicas")?;
            anyhow::Ok(Access { secret, http })
        });
        Ok(Self(Arc::new(Shared {
            replica: Uuid::now_v7(),
            advertise_url: settings.advertise_url.clone(),
            access: access.transpose()?,
            served: Arc::new(Semaphore::new(SERVED_MAX)),
        })))
    }

    /// Says whether the parts of a chat with this owner come from another replica.
    pub(crate) fn is_elsewhere(&self, place: &Place) -> bool {
        self.0.access.is_some()
            && place.advertise_url.is_some()
            && place.advertise_url != self.0.advertise_url
    }

    /// Brings the parts of `run` from where its owner is, until the relay is dropped.
    pub(crate) fn relay(&self, run: RunId, place: &Place, parts: &PartStreams) -> Relay {
        Relay::start(self.clone(), run, place, parts.clone())
    }

    /// Says whether `bearer` is the cluster's secret; `None` when there is none.
    fn admits(&self, bearer: &str) -> Option<bool> {
        let access = self.0.access.as_ref()?;
        // All of both digests is compared, so the time tells nothing of the secret.
        let (ours, theirs) = (digest(access.secret.expose_secret()), digest(bearer));
        let differing = ours.iter().zip(theirs).fold(0, |all, (our, their)| all | (our ^ their));
        Some(differing == 0)
    }

    fn replica(&self) -> HeaderValue {
        HeaderValue::from_str(&self.0.replica.to_string()).expect("a UUID is ASCII")
    }
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text.as_bytes()).into()
}

/// Makes the client with which this replica calls others.
fn client() -> reqwest::Result<reqwest::Client> {
    // Other crates may have asked for rustls without a provider, and features unite.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = || {
        reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(relay::DIAL_TIME_MAX)
            // Each relay is one long response: there is nothing to use again.
            .pool_max_idle_per_host(0)
    };
    client().build().or_else(|failed| without_roots(client(), failed))
}

/// A system without certificates still calls others by `http`.
#[cfg(feature = "tls")]
fn without_roots(
    client: reqwest::ClientBuilder,
    _failed: reqwest::Error,
) -> reqwest::Result<reqwest::Client> {
    client.tls_certs_only([]).build()
}

#[cfg(not(feature = "tls"))]
fn without_roots(
    _client: reqwest::ClientBuilder,
    failed: reqwest::Error,
) -> reqwest::Result<reqwest::Client> {
    Err(failed)
}

#[cfg(test)]
mod tests {
    use musterbeat_core::id::{Fence, WorkerId};

    use super::*;

    fn cluster(secret: Option<&str>, url: Option<&str>) -> Cluster {
        Cluster::of(&Settings {
            cluster_secret: secret.map(Into::into),
            advertise_url: url.map(str::to_owned),
            ..Settings::default()
        })
        .unwrap()
    }

    fn place(url: Option<&str>) -> Place {
        let worker = WorkerId::new(Uuid::from_u128(1));
        Place { worker, fence: Fence(1), advertise_url: url.map(str::to_owned) }
    }

    #[test]
    fn only_the_whole_secret_is_admitted() {
        let cluster = cluster(Some("a secret of the cluster"), None);
        assert_eq!(cluster.admits("a secret of the cluster"), Some(true));
        for wrong in ["", "a secret of the", "a secret of the clustes", "a secret of the cluster "]
        {
            assert_eq!(cluster.admits(wrong), Some(false), "{wrong:?}");
        }
    }

    #[test]
    fn nobody_is_admitted_without_a_secret() {
        assert_eq!(cluster(None, None).admits(""), None);
    }

    #[test]
    fn owner_elsewhere_is_one_with_another_address() {
        let check = |secret, own, theirs, elsewhere| {
            assert_eq!(cluster(secret, own).is_elsewhere(&place(theirs)), elsewhere);
        };
        let (secret, one, other) =
            (Some("a secret of the cluster"), Some("http://a"), Some("http://b"));
        check(secret, one, other, true);
        check(secret, None, other, true);
        check(secret, one, one, false);
        check(secret, one, None, false);
        check(None, one, other, false);
    }
}
