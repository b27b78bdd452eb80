//! Which server the tests ask for.

use std::env;
use std::fmt;
use std::str::FromStr;

use anyhow::{Context, Error, Result, bail};
use musterbeat_embedded::Source;

/// Where a server comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provider {
    /// The server that `TEST_DATABASE_URL` names.
    Url,
    /// A container.
    Docker,
    /// PostgreSQL's own programs.
    Embedded,
}

impl fmt::Display for Provider {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Url => "url",
            Self::Docker => "docker",
            Self::Embedded => "embedded",
        })
    }
}

impl FromStr for Provider {
    type Err = Error;

    fn from_str(word: &str) -> Result<Self> {
        match word {
            "url" => Ok(Self::Url),
            "docker" => Ok(Self::Docker),
            "embedded" => Ok(Self::Embedded),
            _ => bail!("`{word}` is no provider of test servers: say docker, embedded or url"),
        }
    }
}

/// The name of an image and its tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageName {
    /// Everything before the tag.
    pub name: String,
    /// The tag.
    pub tag: String,
}

impl ImageName {
    /// Whether tests that ask for this image get the same from PostgreSQL's version `major`.
    pub(crate) fn is_official(&self, major: &str) -> bool {
        let version = self.tag.split(['.', '-']).next();
        self.name == "postgres" && version == Some(major)
    }
}

impl fmt::Display for ImageName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}", self.name, self.tag)
    }
}

impl FromStr for ImageName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        if text.contains('@') {
            bail!("the image `{text}` is named by a digest: name it by a tag, as in postgres:18");
        }
        // A colon before a slash belongs to a port.
        let (name, tag) = match text.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, tag),
            _ => (text, "latest"),
        };
        if name.is_empty() || tag.is_empty() {
            bail!("`{text}` is no name of an image: say it as in postgres:18");
        }
        Ok(Self { name: name.to_owned(), tag: tag.to_owned() })
    }
}

/// What the tests ask for.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This provider and no other; `None` takes the first that works.
    pub provider: Option<Provider>,
    /// A server whose user may create databases.
    pub url: Option<String>,
    /// The image for Docker.
    pub image: ImageName,
    /// The programs for an embedded server.
    pub source: Source,
    /// Parameters of a server that is started, over those that tests need.
    pub parameters: Vec<(String, String)>,
}

impl Settings {
    /// Reads the variables that the crate's documentation lists.
    pub fn from_env() -> Result<Self> {
        Self::from_lookup(|name| env::var(name).ok())
    }

    /// Reads the same variables from `lookup`; an empty one counts as absent.
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self> {
        let get = |name| lookup(name).filter(|value| !value.is_empty());
        let provider = get("MUSTERBEAT_TEST_PROVIDER").map(|word| word.parse()).transpose();
        let image = get("PG_IMAGE").unwrap_or_else(|| "postgres:18".to_owned());
        let source = get("MUSTERBEAT_POSTGRES").unwrap_or_else(|| "auto".to_owned());
        let settings = Self {
            provider: provider.context("MUSTERBEAT_TEST_PROVIDER cannot be read")?,
            url: get("TEST_DATABASE_URL"),
            image: image.parse().context("PG_IMAGE cannot be read")?,
            source: source.parse().context("MUSTERBEAT_POSTGRES cannot be read")?,
            parameters: vec![],
        };
        if settings.provider == Some(Provider::Url) && settings.url.is_none() {
            bail!("MUSTERBEAT_TEST_PROVIDER=url needs a server: set TEST_DATABASE_URL");
        }
        Ok(settings)
    }

    /// Returns the providers to try, in order.
    ///
    /// A given URL stands alone: if it does not work, its owner wants to know.
    pub fn candidates(&self) -> Vec<Provider> {
        match (self.provider, &self.url) {
            (Some(provider), _) => vec![provider],
            (None, Some(_)) => vec![Provider::Url],
            (None, None) => vec![Provider::Docker, Provider::Embedded],
        }
    }
}
