//! What an answer means that is not the one that was asked for.

use std::time::{Duration, SystemTime};

use musterbeat_core::port::FetchError;
use reqwest::StatusCode;
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};

/// Longest wait that a host is believed to want: its limits are renewed each hour.
const WAIT_MAX: Duration = Duration::from_hours(24);

/// Says why a host did not answer what was asked; `now` serves when it tells no time of its own.
pub(super) fn read(
    status: StatusCode,
    headers: &HeaderMap,
    body: &[u8],
    now: SystemTime,
) -> FetchError {
    match status {
        StatusCode::TOO_MANY_REQUESTS => FetchError::RateLimited { wait: wait(headers, now) },
        StatusCode::FORBIDDEN if is_limited(headers, body) => {
            FetchError::RateLimited { wait: wait(headers, now) }
        }
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => FetchError::Refused,
        StatusCode::NOT_FOUND | StatusCode::GONE => FetchError::NotFound,
        status if status.is_client_error() => {
            FetchError::Invalid(format!("the host does not take the question: {}", name(status)))
        }
        status if status.is_redirection() => {
            FetchError::Host(format!("{}, which leads to another host", name(status)))
        }
        status => FetchError::Host(name(status)),
    }
}

fn name(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(reason) => format!("{} {reason}", status.as_u16()),
        None => status.as_u16().to_string(),
    }
}

/// Tells a limit from a missing right, for which hosts use the same status.
fn is_limited(headers: &HeaderMap, body: &[u8]) -> bool {
    // A limit on calls at the same time may come without any header.
    let told = || String::from_utf8_lossy(body).to_ascii_lowercase().contains("rate limit");
    headers.contains_key(RETRY_AFTER) || is_used_up(headers) || told()
}

fn is_used_up(headers: &HeaderMap) -> bool {
    text(headers, "x-ratelimit-remaining") == Some("0")
}

/// Returns for how long the host wants to be left alone, if it tells.
fn wait(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let date = text(headers, DATE.as_str()).and_then(|date| httpdate::parse_http_date(date).ok());
    // The difference of two of the host's times, so that a wrong clock of ours does not matter.
    let until = |then: SystemTime| then.duration_since(date.unwrap_or(now)).unwrap_or_default();
    let retry_after = || {
        let value = text(headers, RETRY_AFTER.as_str())?;
        let seconds = value.parse().ok().map(Duration::from_secs);
        seconds.or_else(|| httpdate::parse_http_date(value).ok().map(until))
    };
    let reset = || {
        let seconds = text(headers, "x-ratelimit-reset")?.parse().ok()?;
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).map(until)
    };
    let reset = || if is_used_up(headers) { reset() } else { None };
    retry_after().or_else(reset).map(|wait| wait.min(WAIT_MAX))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

#[cfg(test)]
mod tests {
    use reqwest::header::{HeaderName, HeaderValue};

    use super::*;

    /// The example of the standard, and its seconds since 1970.
    const DAY: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const DAY_SECONDS: u64 = 784_111_777;

    #[test]
    fn each_status_has_its_meaning() {
        let invalid = "the host does not take the question: 422 Unprocessable Entity";
        let redirected = "302 Found, which leads to another host";
        for (status, expected) in [
            (302, FetchError::Host(redirected.into())),
            (401, FetchError::Refused),
            (403, FetchError::Refused),
            (404, FetchError::NotFound),
            (410, FetchError::NotFound),
            (422, FetchError::Invalid(invalid.into())),
            (429, FetchError::RateLimited { wait: None }),
            (500, FetchError::Host("500 Internal Server Error".into())),
            (503, FetchError::Host("503 Service Unavailable".into())),
            (599, FetchError::Host("599".into())),
        ] {
            assert_eq!(refusal(status, &[], ""), expected, "{status}");
        }
    }

    #[test]
    fn a_limit_says_how_long_to_wait() {
        for (headers, seconds) in [
            (&[("retry-after", "30")][..], Some(30)),
            (&[("retry-after", "30"), ("x-ratelimit-remaining", "0")], Some(30)),
            (&[("retry-after", "Sun, 06 Nov 1994 08:50:37 GMT"), ("date", DAY)], Some(60)),
            (&[("retry-after", "soon")], None),
            (&[("x-ratelimit-remaining", "0")], None),
            (&limited("784111897"), Some(120)),
            (&limited("784111000"), Some(0)),
            (&limited("18446744073709551615"), None),
            (&limited("9999999999999"), Some(WAIT_MAX.as_secs())),
            (&[("retry-after", "18446744073709551615")], Some(WAIT_MAX.as_secs())),
        ] {
            let expected = FetchError::RateLimited { wait: seconds.map(Duration::from_secs) };
            for status in [403, 429] {
                assert_eq!(refusal(status, headers, ""), expected, "{status} {headers:?}");
            }
        }
    }

    #[test]
    fn the_local_clock_serves_a_host_that_tells_no_time() {
        let headers = [("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", "784111787")];
        let expected = FetchError::RateLimited { wait: Some(Duration::from_secs(10)) };
        assert_eq!(refusal(403, &headers, ""), expected);
    }

    #[test]
    fn a_limit_without_headers_is_known_by_its_message() {
        let body = r#"{"message": "You have exceeded a secondary rate limit."}"#;
        assert_eq!(refusal(403, &[], body), FetchError::RateLimited { wait: None });
    }

    fn limited(reset: &str) -> [(&str, &str); 3] {
        [("x-ratelimit-remaining", "0"), ("x-ratelimit-reset", reset), ("date", DAY)]
    }

    fn refusal(status: u16, headers: &[(&str, &str)], body: &str) -> FetchError {
        let header = |(name, value): &(&str, &str)| {
            (name.parse::<HeaderName>().unwrap(), value.parse::<HeaderValue>().unwrap())
        };
        let headers = headers.iter().map(header).collect();
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(DAY_SECONDS);
        read(StatusCode::from_u16(status).unwrap(), &headers, body.as_bytes(), now)
    }
}
