//! A host that offers the REST API of GitHub.
//!
//! A question about a pull request is one call, and one about a branch whose pull request is not
//! known yet two. Each asks whether something changed since the last answer: a host does not
//! count those against its limit when nothing did.

mod answer;
mod call;
mod place;
mod refusal;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use musterbeat_core::diff::{DiffStatus, Reference};
use musterbeat_core::port::{FetchError, GitProvider};
use reqwest::header::HeaderValue;
use reqwest::{Client, Url};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};

use answer::{Listed, PullAnswer, ReviewAnswer};
use call::{Caller, Told};
use place::Place;

use crate::cache::Cache;
use crate::config::{HostError, Options};
use crate::origin::{Remote, host_of};

/// Reviews that are read of a pull request; what was said after so many is not seen.
const REVIEWS_MAX: u8 = 100;

/// A host, with the right to ask it.
#[derive(Debug)]
pub(crate) struct GitHub {
    name: String,
    api: Url,
    token: Option<SecretString>,
    digest: [u8; 32],
    reviews: bool,
    client: Client,
    cache: Arc<Cache>,
    call_time_max: Duration,
}

impl GitHub {
    /// Checks what an operator sets for the host `name`.
    pub(crate) fn new(
        name: String,
        (api, token, reviews): (Option<&str>, Option<&SecretString>, bool),
        cache: &Arc<Cache>,
        options: &Options,
    ) -> Result<Self, HostError> {
        let api = root(&name, api).ok_or_else(|| HostError::Api(name.clone()))?;
        let token = token.map(|token| token.expose_secret().trim()).filter(|told| !told.is_empty());
        if token.is_some_and(|token| HeaderValue::from_str(token).is_err()) {
            return Err(HostError::Token(name));
        }
        let client = call::client(&api, options)
            .map_err(|source| HostError::Client { origin: name.clone(), source })?;
        Ok(Self {
            digest: Sha256::digest(token.unwrap_or_default()).into(),
            token: token.map(Into::into),
            name,
            api,
            reviews,
            client,
            cache: Arc::clone(cache),
            call_time_max: options.call_time_max,
        })
    }

    /// Returns who tells of one of the host's repositories.
    pub(crate) fn open(self: Arc<Self>, remote: Remote) -> Result<Repository, FetchError> {
        let token = self.token.clone().ok_or(FetchError::NoToken)?;
        Ok(Repository { host: self, token, owner: remote.owner, repo: remote.repo })
    }
}

/// Returns the root of the API; `None` for a text that cannot be one.
fn root(name: &str, api: Option<&str>) -> Option<Url> {
    let api = match api {
        Some(api) => Url::parse(api).ok()?,
        None if name == "github.com" => Url::parse("https://api.github.com").ok()?,
        None => Url::parse(&format!("https://{name}/api/v3")).ok()?,
    };
    let is_web = matches!(api.scheme(), "https" | "http") && host_of(&api).is_some();
    let is_bare = api.username().is_empty() && api.password().is_none();
    let is_root = api.query().is_none() && api.fragment().is_none();
    (is_web && is_bare && is_root).then_some(api)
}

/// A repository of a host.
#[derive(Debug)]
pub(crate) struct Repository {
    host: Arc<GitHub>,
    token: SecretString,
    owner: String,
    repo: String,
}

#[async_trait]
impl GitProvider for Repository {
    async fn fetch(&self, reference: &Reference) -> Result<Option<DiffStatus>, FetchError> {
        let place = match &reference.url {
            Some(url) => Some(Place::parse(url, &self.host.name)?),
            None => self.newest(&reference.branch).await?,
        };
        match place {
            Some(place) => self.pull(&place).await.map(Some),
            None => Ok(None),
        }
    }
}

impl Repository {
    /// Finds the newest pull request of a branch of this repository.
    async fn newest(&self, branch: &str) -> Result<Option<Place>, FetchError> {
        if branch.is_empty() {
            let reason = "the reference names neither a pull request nor a branch";
            return Err(FetchError::Invalid(reason.to_owned()));
        }
        let mut url = self.url(&["repos", &self.owner, &self.repo, "pulls"]);
        url.query_pairs_mut()
            .append_pair("head", &format!("{}:{branch}", self.owner))
            .append_pair("state", "all")
            .append_pair("sort", "created")
            .append_pair("direction", "desc")
            .append_pair("per_page", "1");
        let listed = self.caller().get::<Vec<Listed>>(url).await?.keep(&self.host.cache);
        let newest = listed.into_iter().find(|listed| listed.is_of(branch));
        let (owner, repo) = (self.owner.clone(), self.repo.clone());
        Ok(newest.map(|listed| Place { owner, repo, number: listed.number }))
    }

    async fn pull(&self, place: &Place) -> Result<DiffStatus, FetchError> {
        let Place { owner, repo, number } = place;
        let number = number.to_string();
        let path = ["repos", owner.as_str(), repo, "pulls", &number];
        let told: Told<PullAnswer> = self.caller().get(self.url(&path)).await?;
        let reviews = if self.host.reviews { self.reviews(&told, &path).await? } else { None };
        // Kept last: an answer whose reviews were not told is asked for again as a whole.
        Ok(told.keep(&self.host.cache).into_status(reviews.as_deref()))
    }

    /// Asks what reviewers said if something changed: each review changes its pull request.
    async fn reviews(
        &self,
        told: &Told<PullAnswer>,
        pull: &[&str],
    ) -> Result<Option<Vec<ReviewAnswer>>, FetchError> {
        let mut url = self.url(&[pull, &["reviews"]].concat());
        url.query_pairs_mut().append_pair("per_page", &REVIEWS_MAX.to_string());
        let kept = || self.caller().kept(&url);
        if !told.value.is_open() {
            return Ok(kept());
        }
        if told.is_unchanged()
            && let Some(reviews) = kept()
        {
            return Ok(Some(reviews));
        }
        Ok(Some(self.caller().get(url).await?.keep(&self.host.cache)))
    }

    fn caller(&self) -> Caller<'_> {
        let GitHub { client, digest, cache, call_time_max, .. } = &*self.host;
        Caller { client, token: &self.token, digest: *digest, cache, call_time_max: *call_time_max }
    }

    fn url(&self, path: &[&str]) -> Url {
        let mut url = self.host.api.clone();
        let mut segments = url.path_segments_mut().expect("an API's root has a host");
        segments.pop_if_empty().extend(path);
        drop(segments);
        url
    }
}
