//! What is known of a call that failed, without the key.

use std::error::Error;
use std::time::SystemTime;

use genai::webc;
use reqwest::header::{HeaderMap, LOCATION};
use secrecy::{ExposeSecret, SecretString};
use serde_json::error::Category;

use crate::error::{self, Cause, ModelError};

/// Bytes of what a provider said that are read, at most.
const TEXT_BYTES_MAX: usize = 64 * 1024;

/// What stands for a key where a provider quotes it.
const REDACTED: &str = "[key]";

/// A call that failed.
#[derive(Debug)]
pub(super) struct Failure {
    status: Option<u16>,
    headers: HeaderMap,
    /// What was said: a body, an event, or the words of an error.
    text: String,
    cause: Cause,
}

/// What was going on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The request was made.
    Request,
    /// The answer came in.
    Answer,
}

impl Failure {
    /// Tells what an error of genai is about.
    pub(super) fn of(error: genai::Error, phase: Phase) -> Self {
        match error {
            genai::Error::HttpError { status, body, headers, .. } => {
                Self::answered(status.as_u16(), body, *headers)
            }
            genai::Error::WebModelCall { webc_error, .. }
            | genai::Error::WebAdapterCall { webc_error, .. } => match webc_error {
                webc::Error::ResponseFailedStatus { status, body, headers } => {
                    Self::answered(status.as_u16(), body, *headers)
                }
                webc::Error::Reqwest(error) => Self::broken(&error),
                error => Self::new(Cause::Transport, error.to_string()),
            },
            genai::Error::WebStream { error, .. } => match error.downcast::<genai::Error>() {
                Ok(error) => Self::of(*error, phase),
                Err(error) => match error.downcast_ref::<reqwest::Error>() {
                    Some(error) => Self::broken(error),
                    None => Self::unread(&error),
                },
            },
            genai::Error::ChatResponse { body, .. } => Self::said(body.to_string()),
            // An event that tells of a failure is reported so, with its words for a cause.
            genai::Error::StreamParse { serde_error, .. }
                if serde_error.classify() == Category::Data && serde_error.line() == 0 =>
            {
                Self::said(serde_error.to_string())
            }
            genai::Error::StreamParse { serde_error, .. } => Self::unread(&serde_error),
            error if phase == Phase::Answer => Self::unread(&error),
            error => Self::new(Cause::Local, error.to_string()),
        }
    }

    /// Makes one of words that the provider said in the midst of its answer.
    pub(super) fn said(text: String) -> Self {
        Self::new(Cause::Event, text)
    }

    /// Makes one of an answer that ended before its end.
    pub(super) fn cut_off() -> Self {
        Self::new(Cause::Transport, "the answer was cut off".to_owned())
    }

    fn answered(status: u16, body: String, headers: HeaderMap) -> Self {
        let location = headers.get(LOCATION).and_then(|place| place.to_str().ok());
        let text = match location {
            Some(place) if (300..400).contains(&status) => {
                format!("it redirects to {place}: set its URL to where it is")
            }
            _ => body,
        };
        Self { status: Some(status), headers, ..Self::new(Cause::Answer, text) }
    }

    /// Says what broke by its innermost cause: the outer ones repeat the URL.
    fn broken(error: &reqwest::Error) -> Self {
        let mut cause: &dyn Error = error;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        let is_slow = error.is_timeout() && !error.is_connect();
        let what = if error.is_connect() { "no connection" } else { "the connection broke" };
        let kind = if is_slow { Cause::Timeout } else { Cause::Transport };
        Self::new(kind, format!("{what}: {cause}"))
    }

    fn unread(error: &impl ToString) -> Self {
        let text = format!("its answer was not understood: {}", error.to_string());
        Self::new(Cause::Transport, text)
    }

    fn new(cause: Cause, text: String) -> Self {
        Self { status: None, headers: HeaderMap::new(), text, cause }
    }

    /// Tells of which kind it is; `key` stands nowhere in it.
    pub(super) fn into_error(mut self, provider: &str, key: Option<&SecretString>) -> ModelError {
        let without_key = |text: String| match key {
            Some(key) => text.replace(key.expose_secret(), REDACTED),
            None => text,
        };
        self.text = without_key(self.text);
        self.text.truncate(self.text.floor_char_boundary(TEXT_BYTES_MAX));
        let mut error = ModelError::classify(error::Failure {
            provider,
            status: self.status,
            retry_after: error::retry_after(&self.headers, SystemTime::now()),
            text: &self.text,
            cause: self.cause,
        });
        // Once more: JSON may have had it with escapes.
        error.message = without_key(error.message);
        error
    }
}
