use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::diff::{DiffStatus, Reference};
use crate::id::OwnerId;

/// Knows who tells of which repositories, and with whose right to ask.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait GitHosts: Send + Sync {
    /// Returns who tells `owner` of the repository at `origin`.
    ///
    /// # Errors
    /// [`FetchError::NoHost`] and [`FetchError::NoToken`]; nothing was asked then.
    async fn open(&self, owner: OwnerId, origin: &str) -> Result<Arc<dyn GitProvider>, FetchError>;
}

/// Tells of the branches of one repository, with one right to ask.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait GitProvider: Send + Sync {
    /// Asks for the pull request of a reference if it names one, otherwise for its branch.
    ///
    /// `None` when the branch has no pull request yet. Dropping the future gives the question up.
    async fn fetch(&self, reference: &Reference) -> Result<Option<DiffStatus>, FetchError>;
}

/// Why a host told nothing. No text in it bears a token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    /// No host is set for this origin.
    #[error("no host is set for this origin")]
    NoHost,
    /// The host wants a token, and there is none.
    #[error("there is no token for this origin")]
    NoToken,
    /// The host refuses the token, or the repository to it.
    #[error("the host refuses access")]
    Refused,
    /// The repository or its pull request is not there, or not for this token.
    #[error("the repository or pull request was not found")]
    NotFound,
    /// The host wants to be left alone.
    #[error("the host's rate limit is reached")]
    RateLimited {
        /// For how long, where it told.
        wait: Option<Duration>,
    },
    /// The host failed.
    #[error("the host failed: {0}")]
    Host(String),
    /// The host was not reached, or was silent.
    #[error("the host was not reached: {0}")]
    Transport(String),
    /// The reference or the answer makes no sense.
    #[error("{0}")]
    Invalid(String),
}

impl FetchError {
    /// Returns the word that metrics use.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::NoHost => "no_host",
            Self::NoToken => "no_token",
            Self::Refused => "refused",
            Self::NotFound => "not_found",
            Self::RateLimited { .. } => "rate_limited",
            Self::Host(_) => "host",
            Self::Transport(_) => "transport",
            Self::Invalid(_) => "invalid",
        }
    }
}
