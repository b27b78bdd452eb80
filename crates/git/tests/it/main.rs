//! The hosts, asked through the port: a fake GitHub on loopback, and repositories made by `git`.

#![expect(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod github;
mod hosts;
mod limits;
mod local;
mod repository;

use musterbeat_core::diff::{DiffStatus, Reference};
use musterbeat_core::id::OwnerId;
use musterbeat_core::port::{FetchError, GitHosts};
use musterbeat_git::{HostConfig, Hosts, ProviderConfig};
use uuid::Uuid;

/// Asks as the engine does: who tells of the origin, and then what of the reference.
async fn ask(
    hosts: &Hosts,
    origin: &str,
    url: Option<&str>,
    branch: &str,
) -> Result<Option<DiffStatus>, FetchError> {
    let provider = hosts.open(owner(), origin).await?;
    let url = url.map(str::to_owned);
    provider.fetch(&Reference { url, branch: branch.to_owned(), origin: origin.to_owned() }).await
}

fn owner() -> OwnerId {
    OwnerId::new(Uuid::nil())
}

/// Describes a host that is asked at `api`.
fn github(origin: &str, api: &str, token: &str) -> HostConfig {
    let (api, token) = (Some(api.to_owned()), Some(token.to_owned().into()));
    let provider = ProviderConfig::GitHub { api, token, reviews: false };
    HostConfig { origin: origin.to_owned(), provider }
}
