//! How long a provider wants to be left alone, as the headers of its answer say.

use std::time::{Duration, SystemTime};

use reqwest::header::HeaderMap;

/// Longest wait that is read; more becomes this.
const WAIT_MAX: Duration = Duration::from_hours(1);

/// Returns how long the provider wants to be left alone, an hour at most.
///
/// `retry-after-ms` goes first, as the more exact one. `retry-after` is in seconds, also in
/// fractions of them, or a date, of which `now` is taken; a date that has passed is no wait. What
/// cannot be read is as if it were not there.
pub fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name| headers.get(name)?.to_str().ok().map(str::trim);
    if let Some(wait) = text("retry-after-ms").and_then(|text| wait(text, 1_000.0)) {
        return Some(wait);
    }
    let after = text("retry-after")?;
    wait(after, 1.0).or_else(|| until(after, now))
}

fn wait(text: &str, units_in_a_second: f64) -> Option<Duration> {
    let count: f64 = text.parse().ok()?;
    let seconds = count / units_in_a_second;
    if !(0.0..f64::INFINITY).contains(&seconds) {
        return None;
    }
    Some(Duration::from_secs_f64(seconds.min(WAIT_MAX.as_secs_f64())))
}

fn until(text: &str, now: SystemTime) -> Option<Duration> {
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(now).unwrap_or(Duration::ZERO).min(WAIT_MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use reqwest::header::{HeaderName, HeaderValue};

    use super::*;

    /// 1994-11-06 08:49:37 UTC.
    const NOW_SECONDS: u64 = 784_111_777;

    #[test]
    fn seconds_and_their_fractions() {
        check(&[("retry-after", "7")], Some(7_000));
        check(&[("retry-after", " 0.25 ")], Some(250));
        check(&[("retry-after", "0")], Some(0));
    }

    #[test]
    fn milliseconds_go_first_where_they_can_be_read() {
        check(&[("retry-after-ms", "1500")], Some(1_500));
        check(&[("retry-after-ms", "12.5"), ("retry-after", "60")], Some(13));
        check(&[("retry-after-ms", "soon"), ("retry-after", "60")], Some(60_000));
    }

    #[test]
    fn dates_in_the_three_forms_of_http() {
        check(&[("retry-after", "Sun, 06 Nov 1994 08:50:00 GMT")], Some(23_000));
        check(&[("retry-after", "Sunday, 06-Nov-94 08:50:00 GMT")], Some(23_000));
        check(&[("retry-after", "Sun Nov  6 08:50:00 1994")], Some(23_000));
        check(&[("retry-after", "Sun, 06 Nov 1994 08:00:00 GMT")], Some(0));
    }

    #[test]
    fn an_hour_is_the_longest_wait() {
        check(&[("retry-after", "3601")], Some(3_600_000));
        check(&[("retry-after", "1e300")], Some(3_600_000));
        check(&[("retry-after-ms", "86400000")], Some(3_600_000));
        check(&[("retry-after", "Mon, 07 Nov 1994 08:50:00 GMT")], Some(3_600_000));
    }

    #[test]
    fn what_cannot_be_read_is_not_there() {
        check(&[], None);
        for text in ["", "-1", "NaN", "inf", "soon", "7s", "Sun, 07 Nov 1994 08:48:37 GMT"] {
            check(&[("retry-after", text)], None);
        }
    }

    proptest! {
        #[test]
        fn any_value_is_read_within_the_bound(
            value in proptest::collection::vec(prop_oneof![32_u8..127, 128_u8..=255], 0..40),
            seconds in any::<f64>(),
        ) {
            let now = now();
            for value in [value, seconds.to_string().into_bytes()] {
                let Ok(value) = HeaderValue::from_bytes(&value) else { continue };
                for name in ["retry-after", "retry-after-ms"] {
                    let headers =
                        HeaderMap::from_iter([(HeaderName::from_static(name), value.clone())]);
                    prop_assert!(retry_after(&headers, now).is_none_or(|wait| wait <= WAIT_MAX));
                }
            }
        }
    }

    /// Compares with milliseconds, rounded.
    fn check(headers: &[(&'static str, &'static str)], expected: Option<u64>) {
        let map = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let wait = retry_after(&map.collect(), now());
        let rounded = wait.map(|wait| wait + Duration::from_micros(500));
        let millis = rounded.map(|wait| u64::try_from(wait.as_millis()).unwrap());
        assert_eq!(millis, expected, "{headers:?}");
    }

    fn now() -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(NOW_SECONDS)
    }
}
