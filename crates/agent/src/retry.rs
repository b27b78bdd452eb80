//! When a model is asked again.

use std::num::NonZeroU32;
use std::time::{Duration, SystemTime};

use musterbeat_core::backoff::Backoff;
use musterbeat_core::timestamp::Timestamp;
use serde::Serialize;

use crate::error::{ErrorKind, ModelError};

/// Longest wait that a provider may ask for; one that wants more is not asked again.
///
/// A turn that waits holds a worker's slot, and whoever reads it should learn the reason.
pub const RETRY_AFTER_MAX: Duration = Duration::from_mins(10);

/// How often and when a model is asked again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryOptions {
    /// How long to wait: a second at first, a minute at most.
    pub backoff: Backoff,
    /// How often one step asks in all, the first time included.
    pub attempts_max: NonZeroU32,
}

impl Default for RetryOptions {
    fn default() -> Self {
        let backoff =
            Backoff { delay_first: Duration::from_secs(1), delay_max: Duration::from_mins(1) };
        // About ten minutes of full jitter: most outages are shorter.
        Self { backoff, attempts_max: const { NonZeroU32::new(25).expect("25 is not 0") } }
    }
}

impl RetryOptions {
    /// Returns the wait before the model is asked again, after `error` ended attempt `attempt`,
    /// of which the first is 1.
    ///
    /// `None` says to ask no more: the error stays one, it was the last attempt, or the provider
    /// wants to be left alone for longer than [`RETRY_AFTER_MAX`]. `jitter` is drawn evenly from
    /// 0 to 1 by the caller; what the provider asks for is the least, whatever was drawn.
    pub fn delay(&self, attempt: u32, error: &ModelError, jitter: f64) -> Option<Duration> {
        if !error.kind.is_retryable() || attempt >= self.attempts_max.get() {
            return None;
        }
        let floor = error.retry_after.unwrap_or_default();
        let delay = self.backoff.delay(attempt, jitter).max(floor);
        (floor <= RETRY_AFTER_MAX).then_some(delay)
    }
}

/// Tells whoever follows a chat that its model is asked again.
///
/// It is published as a piece of the answer: pieces of the attempt that failed, which came
/// before, are void.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename = "retry")]
pub struct RetryNotice {
    /// Which attempt failed, from 1.
    pub attempt: u32,
    /// How long until the next, in milliseconds.
    pub delay_ms: u64,
    /// Of which kind the error is.
    pub kind: ErrorKind,
    /// What the provider said.
    pub error: String,
    /// Who was asked.
    pub provider: String,
    /// The HTTP status, where there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_code: Option<u16>,
    /// When it is asked next, on the clock of the worker; left out beyond the year 9999.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retrying_at: Option<Timestamp>,
}

impl RetryNotice {
    /// Makes one for `error`, which ended attempt `attempt` at `now`.
    pub fn new(attempt: u32, delay: Duration, error: &ModelError, now: SystemTime) -> Self {
        let since_1970 = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let now = i64::try_from(since_1970.as_micros()).ok().and_then(Timestamp::from_micros);
        Self {
            attempt,
            delay_ms: u64::try_from(delay.as_millis()).unwrap_or(u64::MAX),
            kind: error.kind,
            error: error.message.clone(),
            provider: error.provider.clone(),
            status_code: error.status,
            retrying_at: now.and_then(|now| now.after(delay)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bounds_double_from_a_second_to_a_minute_and_the_25th_attempt_is_the_last() {
        let options = RetryOptions::default();
        let error = error(ErrorKind::Overloaded, None);
        let delays: Vec<_> = (1..=25).map(|attempt| seconds(&options, attempt, &error)).collect();
        let mut expected = vec![Some(60); 25];
        expected[..6].copy_from_slice(&[1, 2, 4, 8, 16, 32].map(Some));
        expected[24] = None;
        assert_eq!(delays, expected);
    }

    #[test]
    fn jitter_is_full() {
        let error = error(ErrorKind::Transport, None);
        let delay = |jitter| RetryOptions::default().delay(3, &error, jitter).unwrap();
        assert_eq!([0.0, 0.5, 1.0].map(|jitter| delay(jitter).as_millis()), [0, 2_000, 4_000]);
    }

    #[test]
    fn what_the_provider_asks_for_is_a_floor() {
        let options = RetryOptions::default();
        let after = |wait| error(ErrorKind::RateLimit, Some(Duration::from_secs(wait)));
        assert_eq!(seconds(&options, 3, &after(7)), Some(7), "longer than the backoff's 4 s");
        assert_eq!(seconds(&options, 3, &after(2)), Some(4), "shorter");
        assert_eq!(seconds(&options, 3, &after(0)), Some(4));
        assert_eq!(seconds(&options, 3, &after(600)), Some(600), "longer than its maximum");
        assert_eq!(seconds(&options, 3, &after(601)), None, "longer than anybody waits");
        assert_eq!(seconds(&options, 25, &after(7)), None, "but it grants no attempt");
    }

    #[test]
    fn what_stays_an_error_is_not_asked_again() {
        let options = RetryOptions::default();
        for kind in
            [ErrorKind::Auth, ErrorKind::Configuration, ErrorKind::ContextLength, ErrorKind::Other]
        {
            let error = error(kind, Some(Duration::from_secs(1)));
            assert_eq!(options.delay(1, &error, 1.0), None, "{kind:?}");
        }
    }

    #[test]
    fn one_attempt_is_no_retry() {
        let options = RetryOptions { attempts_max: NonZeroU32::MIN, ..RetryOptions::default() };
        assert_eq!(options.delay(1, &error(ErrorKind::Timeout, None), 1.0), None);
    }

    #[test]
    fn notice_says_what_happened_and_when_it_goes_on() {
        let error = ModelError {
            kind: ErrorKind::RateLimit,
            provider: "local".to_owned(),
            message: "too many requests".to_owned(),
            status: Some(429),
            retry_after: None,
        };
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(1_767_225_599_500);
        let notice = RetryNotice::new(1, Duration::from_millis(1_500), &error, now);
        assert_eq!(
            serde_json::to_value(&notice).unwrap(),
            serde_json::json!({
                "type": "retry",
                "attempt": 1,
                "delay_ms": 1_500,
                "kind": "rate_limit",
                "error": "too many requests",
                "provider": "local",
                "status_code": 429,
                "retrying_at": "2026-01-01T00:00:01Z",
            })
        );
        let nameless = ModelError { status: None, ..error };
        let notice = RetryNotice::new(2, Duration::MAX, &nameless, now);
        let json = serde_json::to_value(&notice).unwrap();
        assert_eq!(json.get("status_code"), None);
        assert_eq!(json.get("retrying_at"), None);
    }

    proptest! {
        #[test]
        fn delay_is_between_the_floor_and_the_bounds(
            attempt: u32,
            floor in proptest::option::of(0_u64..4_000),
            jitter: f64,
        ) {
            let options = RetryOptions::default();
            let floor = floor.map(Duration::from_secs);
            let delay = options.delay(attempt, &error(ErrorKind::RateLimit, floor), jitter);
            let floor = floor.unwrap_or_default();
            prop_assert_eq!(delay.is_some(), attempt < 25 && floor <= RETRY_AFTER_MAX);
            if let Some(delay) = delay {
                prop_assert!(floor <= delay);
                prop_assert!(delay <= options.backoff.delay_max.max(floor));
            }
        }
    }

    fn seconds(options: &RetryOptions, attempt: u32, error: &ModelError) -> Option<u64> {
        options.delay(attempt, error, 1.0).map(|delay| delay.as_secs())
    }

    fn error(kind: ErrorKind, retry_after: Option<Duration>) -> ModelError {
        ModelError {
            kind,
            provider: "local".to_owned(),
            message: "no".to_owned(),
            status: None,
            retry_after,
        }
    }
}
