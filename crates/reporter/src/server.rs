//! The server as the reporter sees it.

use std::time::Duration;

use async_trait::async_trait;
use serde::Deserialize;

use crate::backlog::Entry;
use crate::duty::Assignment;

/// The calls that an agent makes.
#[async_trait]
pub(crate) trait Server: Send + Sync {
    /// Asks what is to be reported.
    async fn definitions(&self) -> Result<Assignment, CallError>;

    /// Reports values; repeating it replaces them by themselves.
    async fn report(&self, entries: &[Entry]) -> Result<Receipt, CallError>;
}

/// What became of a report; what is not named in it was stored as it was sent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Receipt {
    #[serde(default)]
    pub(crate) changed: Vec<Remark>,
    #[serde(default)]
    pub(crate) refused: Vec<Refusal>,
    pub(crate) definitions_version: i64,
}

/// What was changed about a value.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Remark {
    pub(crate) key: String,
    pub(crate) reason: String,
}

/// Why a value was not stored.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Refusal {
    pub(crate) key: String,
    pub(crate) reason: String,
    /// Whether the same value may be stored later.
    #[serde(default)]
    pub(crate) retryable: bool,
}

/// Why a call was not answered as it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum CallError {
    #[error("the server does not take the token")]
    Unauthorized,
    #[error("the server has no such agent")]
    NotFound,
    /// The server would refuse the same call again.
    #[error("the server refuses the call: {0}")]
    Refused(String),
    /// The same call may be answered later.
    #[error("{reason}")]
    Away {
        reason: String,
        /// For how long the server wants to be left alone.
        wait: Option<Duration>,
    },
}
