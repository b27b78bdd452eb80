//! Limits of every request: its rate, its body, its time, and in `dev` its host.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use super::problem::{Kind, Problem};

/// Bytes of a request's body, at most: a whole content, and room for its JSON.
pub(crate) const BODY_BYTES_MAX: usize = 1024 * 1024;

/// Longest time until a response begins; an event stream begins at once and goes on.
pub(crate) const TIME_MAX: Duration = Duration::from_secs(30);

/// Counts requests by the address that they come from.
///
/// Not by token: whoever sends a new one each time would never be limited.
pub(crate) struct Rate {
    limiter: DefaultKeyedRateLimiter<IpAddr>,
}

impl Rate {
    /// Lets each address send `burst` requests at once and `per_second` in the long run.
    pub(crate) fn new(per_second: NonZeroU32, burst: NonZeroU32) -> Self {
        Self { limiter: RateLimiter::keyed(Quota::per_second(per_second).allow_burst(burst)) }
    }

    /// Forgets addresses that have not been heard of lately, which bounds the memory.
    pub(crate) fn forget_idle(&self) {
        self.limiter.retain_recent();
        self.limiter.shrink_to_fit();
    }
}

/// Refuses a request over its address's rate.
pub(crate) async fn within_rate(
    State(rate): State<Arc<Rate>>,
    ConnectInfo(address): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    if rate.limiter.check_key(&address.ip()).is_ok() {
        return next.run(request).await;
    }
    let detail = "this address sends more than its share; try again in a second";
    Problem::new(Kind::TooManyRequests, detail).into_response()
}

/// Ends a request whose response does not begin in time.
pub(crate) async fn in_time(request: Request, next: Next) -> Response {
    tokio::time::timeout(TIME_MAX, next.run(request)).await.unwrap_or_else(|_| {
        let detail = format!("no answer within {} s; try again", TIME_MAX.as_secs());
        Problem::new(Kind::Unavailable, detail).into_response()
    })
}

/// Refuses a foreign host name where no token is asked for.
///
/// A web page can make a browser send requests to loopback under a name of its own.
pub(crate) async fn on_loopback(request: Request, next: Next) -> Response {
    if has_loopback_host(request.headers()) {
        return next.run(request).await;
    }
    let detail = "a server in `dev` answers only to localhost, 127.0.0.1 and [::1]";
    Problem::new(Kind::Forbidden, detail).into_response()
}

fn has_loopback_host(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST).and_then(|host| host.to_str().ok()) else {
        return false;
    };
    let name = host.rsplit_once(':').map_or(host, |(name, port)| {
        if port.bytes().all(|byte| byte.is_ascii_digit()) { name } else { host }
    });
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_hosts_pass() {
        let check = |host: &str, allowed: bool| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            assert_eq!(has_loopback_host(&headers), allowed, "{host}");
        };
        check("localhost:7878", true);
        check("LOCALHOST", true);
        check("127.0.0.1:80", true);
        check("[::1]:7878", true);
        check("[::1]", true);
        check("evil.example", false);
        check("127.0.0.1.evil.example", false);
        check("localhost.evil.example:7878", false);
        assert!(!has_loopback_host(&HeaderMap::new()));
    }
}
