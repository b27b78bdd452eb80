//! Why a model gave no answer, and whether it is worth asking again.
//!
//! [`ModelError::classify`] goes by what it knows best:
//!
//! 1. A failure of our own stays one: nothing was asked, and asking again gives the same.
//! 2. A status beats what the text says, but for three things that statuses do not tell apart and
//!    that decide what to do next: a history that is too long, an account without money, and a
//!    refused key. A status that a provider names within its stream counts as one.
//! 3. Without a status the text decides, by the first rule of its table that it meets: what is
//!    wrong for good stands before what may pass.
//! 4. Without a text that says something, the place where it went wrong decides.
//!
//! An account without money is of the kind [`ErrorKind::Auth`], though its status may be 429: no
//! wait helps, and whoever minds the key is the one who can.

mod header;
#[cfg(test)]
mod tests;
mod text;

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use self::text::{Topic, Words};

pub use self::header::retry_after;

/// Bytes of a message, at most; what is longer is cut.
pub const MESSAGE_BYTES_MAX: usize = 2_000;

/// Bytes of a text that is read as JSON for the sake of its message, at most.
const BODY_BYTES_MAX: usize = 64 * 1024;

/// A model gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{provider}: {message}")]
pub struct ModelError {
    /// Of which kind.
    pub kind: ErrorKind,
    /// Who was asked.
    pub provider: String,
    /// What it said, for the user; it bears no key.
    pub message: String,
    /// The HTTP status, where there was one.
    pub status: Option<u16>,
    /// How long the provider wants to be left alone.
    pub retry_after: Option<Duration>,
}

/// Why a model gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorKind {
    /// The key is missing or refused, or its account may not spend.
    Auth,
    /// The configuration or the request is wrong.
    Configuration,
    /// The history is longer than the model's window.
    ContextLength,
    /// Too many calls or tokens in too short a time.
    RateLimit,
    /// The provider has too much to do, or failed on its own side.
    Overloaded,
    /// The provider took too long.
    Timeout,
    /// Nothing came of the answer in time.
    StartupTimeout,
    /// The answer fell silent in the middle.
    Silence,
    /// The connection failed, or the answer was cut off.
    Transport,
    /// Anything else.
    Other,
}

impl ErrorKind {
    /// Says whether the same call may succeed later.
    pub const fn is_retryable(self) -> bool {
        match self {
            Self::RateLimit
            | Self::Overloaded
            | Self::Timeout
            | Self::StartupTimeout
            | Self::Silence
            | Self::Transport => true,
            Self::Auth | Self::Configuration | Self::ContextLength | Self::Other => false,
        }
    }

    /// Returns the name for metrics and the stream.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Configuration => "configuration",
            Self::ContextLength => "context_length",
            Self::RateLimit => "rate_limit",
            Self::Overloaded => "overloaded",
            Self::Timeout => "timeout",
            Self::StartupTimeout => "startup_timeout",
            Self::Silence => "silence",
            Self::Transport => "transport",
            Self::Other => "other",
        }
    }
}

/// A call that failed, as whoever made it saw it.
#[derive(Clone, Copy, Debug)]
pub struct Failure<'a> {
    /// Who was asked.
    pub provider: &'a str,
    /// The HTTP status, where there was an answer.
    pub status: Option<u16>,
    /// What [`retry_after`] read in the answer.
    pub retry_after: Option<Duration>,
    /// What was said: the body of an answer, an event, or the words of an error and its causes.
    ///
    /// The message is made of it, so keys are taken out before.
    pub text: &'a str,
    /// Where it went wrong.
    pub cause: Cause,
}

/// Where a call went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// An HTTP answer said so by its status.
    Answer,
    /// The provider said so in the midst of its answer.
    Event,
    /// The connection failed, or the answer could not be read.
    Transport,
    /// The provider took too long.
    Timeout,
    /// On our side, before anything was asked.
    Local,
}

impl ModelError {
    /// Tells of which kind a failure is.
    ///
    /// The status is kept as it was given; without one it is the one that the provider's text
    /// names. Where the text is JSON in a form that providers use, the message is what it says
    /// there. It is cut at [`MESSAGE_BYTES_MAX`].
    pub fn classify(failure: Failure<'_>) -> Self {
        let words = Words::of(failure.text);
        let named = match failure.cause {
            Cause::Answer | Cause::Event => words.status(),
            // Numbers in it are ours: of ports, sizes and times.
            Cause::Transport | Cause::Timeout | Cause::Local => None,
        };
        Self {
            kind: kind(failure.cause, [failure.status, named], &words),
            provider: failure.provider.to_owned(),
            message: message(failure.text),
            status: failure.status.or(named),
            retry_after: failure.retry_after,
        }
    }
}

fn kind(cause: Cause, statuses: [Option<u16>; 2], words: &Words) -> ErrorKind {
    const OF_OURS: &[Topic] = &[Topic::Window, Topic::Key, Topic::Access, Topic::Ours];
    const OF_THE_LINE: &[Topic] = &[Topic::Address, Topic::Slow];
    if cause == Cause::Local {
        return words.kind(OF_OURS).unwrap_or(ErrorKind::Configuration);
    }
    if let Some((kind, unless)) = statuses.into_iter().flatten().find_map(by_status) {
        return words.kind(unless).unwrap_or(kind);
    }
    match cause {
        Cause::Timeout => ErrorKind::Timeout,
        Cause::Transport => words.kind(OF_THE_LINE).unwrap_or(ErrorKind::Transport),
        Cause::Answer | Cause::Event | Cause::Local => {
            words.kind(Topic::ALL).unwrap_or(ErrorKind::Other)
        }
    }
}

/// Returns what a status means, unless the text is about one of the topics; `None` when it tells
/// of no error.
const fn by_status(status: u16) -> Option<(ErrorKind, &'static [Topic])> {
    const REQUEST: &[Topic] = &[Topic::Window, Topic::Money, Topic::Key];
    const LIMIT: &[Topic] = &[Topic::Window, Topic::Quota, Topic::Money];
    let (kind, unless): (_, &[Topic]) = match status {
        // 402: there is no money, see above.
        401..=403 | 407 => (ErrorKind::Auth, &[]),
        408 | 504 | 524 => (ErrorKind::Timeout, &[]),
        // However it is counted, less history is the remedy.
        413 => (ErrorKind::ContextLength, &[]),
        // 425: asked again without early data. 499: somebody between us hung up.
        425 | 499 => (ErrorKind::Transport, &[]),
        429 => (ErrorKind::RateLimit, LIMIT),
        // It does not know such a request, and will not learn it.
        501 => (ErrorKind::Configuration, &[]),
        // 409: another request is in the way.
        409 | 502..=599 => (ErrorKind::Overloaded, &[]),
        300..=499 => (ErrorKind::Configuration, REQUEST),
        // Servers at home tell by it of a history that is too long.
        500 => (ErrorKind::Overloaded, &[Topic::Window]),
        _ => return None,
    };
    Some((kind, unless))
}

fn message(text: &str) -> String {
    let said = said(text).unwrap_or_else(|| text.to_owned());
    let said = said.trim();
    if said.is_empty() {
        return "it gave no reason".to_owned();
    }
    let said = &said[..said.floor_char_boundary(MESSAGE_BYTES_MAX)];
    said.replace(|char: char| char.is_control() && char != '\n', " ")
}

/// Returns what a body says to people, where it has a form that providers use.
fn said(text: &str) -> Option<String> {
    if text.len() > BODY_BYTES_MAX {
        return None;
    }
    let body: Value = serde_json::from_str(text).ok()?;
    let body = body.get(0).unwrap_or(&body);
    ["/error/message", "/error", "/message", "/detail"]
        .iter()
        .filter_map(|path| body.pointer(path)?.as_str())
        .find(|said| !said.trim().is_empty())
        .map(ToOwned::to_owned)
}
