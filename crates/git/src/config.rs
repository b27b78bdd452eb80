//! Which hosts there are, and what is wrong with a description of them.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;

/// A host that tells of repositories.
#[derive(Clone, Debug)]
pub struct HostConfig {
    /// Which repositories: the name of their host, or an absolute folder for
    /// [`ProviderConfig::Local`].
    pub origin: String,
    /// Who tells of them.
    pub provider: ProviderConfig,
}

/// Who tells of the repositories of a host.
#[derive(Clone, Debug)]
pub enum ProviderConfig {
    /// The REST API of GitHub, or of a server that offers the same.
    GitHub {
        /// Root of the API; by default `https://api.github.com` for `github.com`, and
        /// `https://HOST/api/v3` for every other host.
        api: Option<String>,
        /// The right to ask. Without one, or with an empty one, nothing is asked.
        token: Option<SecretString>,
        /// Whether to ask what reviewers said, which is a call more for each change.
        reviews: bool,
    },
    /// The repositories themselves, at or below the folder.
    Local,
}

/// Limits of the calls and of what is kept of their answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// Longest time of one call, from its connection to the last byte of its answer.
    pub call_time_max: Duration,
    /// Bytes that the cache of answers holds, at most; 0 keeps nothing.
    pub cache_bytes_max: usize,
}

impl Options {
    /// Twenty seconds are twice what GitHub grants itself; 16 MiB hold some 20,000 answers.
    pub const DEFAULT: Self =
        Self { call_time_max: Duration::from_secs(20), cache_bytes_max: 16 << 20 };
}

impl Default for Options {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Why a description of hosts was refused. No text in it bears a token.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// An origin that is set twice.
    #[error("`origin` of git hosts: `{0}` is set twice: keep one of the two")]
    Duplicate(String),
    /// An origin that is no host's name; it is not repeated, for it may bear a password.
    #[error(
        "`origin` of git host number {number} is no host's name: give it as remotes name it, \
         without scheme, user, port and path, such as `github.com`"
    )]
    HostName {
        /// Which of the hosts, the first being 1.
        number: usize,
    },
    /// A folder that depends on where the process runs.
    #[error(
        "`origin` of git hosts: `{}` is not absolute: give the folder's path from the root",
        .0.display()
    )]
    RelativeFolder(PathBuf),
    /// A folder that is not there.
    #[error(
        "`origin` of git hosts: `{}` is no folder that can be read: create it, or give another",
        folder.display()
    )]
    Folder {
        /// The folder.
        folder: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A root that no API has; it is not repeated, for it may bear a password.
    #[error(
        "`api` of git host `{0}` is no URL that begins with https:// or http:// and has neither \
         user, query nor fragment: give it such as `https://api.github.com`"
    )]
    Api(String),
    /// A token that no header may carry.
    #[error(
        "`token` of git host `{0}` contains characters that no header may carry: give it as the \
         host issued it"
    )]
    Token(String),
    /// A client that could not be made.
    #[error("the HTTP client for git host `{origin}` was not made: check the proxy settings")]
    Client {
        /// For which host.
        origin: String,
        /// What it said.
        #[source]
        source: reqwest::Error,
    },
}
