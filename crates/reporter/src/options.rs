//! What a reporter is told, and why one ends.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use musterbeat_core::id::AgentId;
use musterbeat_core::metadata::Key;
use secrecy::SecretString;

/// Time between two reports by default: what people watch seems to move, at a request a second.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Time between two reports, at most.
pub const REPORT_INTERVAL_MAX: Duration = Duration::from_hours(1);

/// What a reporter is told.
#[derive(Clone, Debug)]
pub struct ReporterOptions {
    /// Where the server is, by `http` or `https`; a path is kept before the routes.
    pub server: String,
    /// As whom to report.
    pub agent: AgentId,
    /// The right to do so; a server in `dev` needs none.
    pub token: Option<SecretString>,
    /// Whether to run the scripts of definitions.
    ///
    /// They come from the server: whoever may edit them there can then do on this machine what
    /// the user of this process can.
    pub allow_scripts: bool,
    /// Commands of this machine's operator, by key; each goes before its definition's script.
    pub commands: BTreeMap<Key, String>,
    /// A path on the filesystem that `disk` tells of.
    pub disk: PathBuf,
    /// Time between two reports, at least; up to [`REPORT_INTERVAL_MAX`].
    pub report_interval: Duration,
}

impl ReporterOptions {
    /// Reports of the working folder's filesystem each second, without a token and scripts.
    pub fn new(server: impl Into<String>, agent: AgentId) -> Self {
        Self {
            server: server.into(),
            agent,
            token: None,
            allow_scripts: false,
            commands: BTreeMap::new(),
            disk: PathBuf::from("."),
            report_interval: REPORT_INTERVAL,
        }
    }
}

/// Why a reporter did not start, or ended by itself. No text in it bears a token.
#[derive(Debug, thiserror::Error)]
pub enum ReporterError {
    /// An address that cannot be called; it is not repeated, for it may bear a password.
    #[error(
        "the server's URL cannot be called: give it with `http` or `https` and a host, without \
         user, password, query and fragment, like https://muster.example.org"
    )]
    Url,
    /// A token that no request can bear.
    #[error("the token has characters that no token has: give the text as the server printed it")]
    Token,
    /// A pause between reports that is too long.
    #[error("the report interval is {0:?}, at most {REPORT_INTERVAL_MAX:?} is allowed")]
    ReportInterval(Duration),
    /// A client that could not be made.
    #[error("failed to prepare for requests")]
    Client(#[source] reqwest::Error),
    /// A server that wants a token.
    #[error(
        "the server wants the token of agent {0}: give it as MUSTERBEAT_TOKEN or with --token-file"
    )]
    TokenMissing(AgentId),
    /// A token that was revoked, as it is when its agent is deleted, or another server's.
    #[error(
        "the server does not take the token for agent {0}: it was revoked, the agent was deleted, \
         or another server has them; create an agent there and start with its id and token"
    )]
    TokenRefused(AgentId),
    /// An agent that was deleted, or whose token was not the one that was given.
    #[error(
        "the server has no agent {0} for this token: the token is another agent's, or the agent \
         was deleted; create one there and start with its id and token"
    )]
    AgentGone(AgentId),
}
