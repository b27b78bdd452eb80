//! Limits of every request: its rate, its body, its time, and in `dev` its host.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum_extra::headers::Authorization;
use axum_extra::headers::Header as _;
use axum_extra::headers::authorization::Bearer;
use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use uuid::Uuid;

use super::problem::{Kind, Problem};
use crate::agent_tokens::AgentTokens;

/// Bytes of a request's body, at most: a whole content, and room for its JSON.
pub(crate) const BODY_BYTES_MAX: usize = 1024 * 1024;

/// Longest time until a response begins; an event stream begins at once and goes on.
pub(crate) const TIME_MAX: Duration = Duration::from_secs(30);

/// Requests that one agent may send at once, and a second in the long run: one is usual.
const AGENT_BURST: NonZeroU32 = NonZeroU32::new(50).expect("a constant is not zero");
const AGENT_PER_SECOND: NonZeroU32 = NonZeroU32::new(10).expect("a constant is not zero");

/// Counts requests by the address that they come from.
///
/// Not by token: whoever sends a new one each time would never be limited. Only an agent whose
/// token is known has a share of its own: a fleet behind one address does not share one, and
/// one that sends without a pause takes nothing from the others.
pub(crate) struct Rate {
    addresses: DefaultKeyedRateLimiter<IpAddr>,
    agents: DefaultKeyedRateLimiter<Uuid>,
    tokens: AgentTokens,
}

impl Rate {
    /// Lets each address send `burst` requests at once and `per_second` in the long run.
    pub(crate) fn new(per_second: NonZeroU32, burst: NonZeroU32, tokens: AgentTokens) -> Self {
        let addresses = Quota::per_second(per_second).allow_burst(burst);
        let agents = Quota::per_second(AGENT_PER_SECOND).allow_burst(AGENT_BURST);
        let (addresses, agents) = (RateLimiter::keyed(addresses), RateLimiter::keyed(agents));
        Self { addresses, agents, tokens }
    }

    /// Forgets those who have not been heard of lately, which bounds the memory.
    pub(crate) fn forget_idle(&self) {
        self.addresses.retain_recent();
        self.addresses.shrink_to_fit();
        self.agents.retain_recent();
        self.agents.shrink_to_fit();
    }

    /// Counts a request; says who sends more than their share.
    fn admit(&self, address: IpAddr, headers: &HeaderMap) -> Result<(), &'static str> {
        if let Some(agent) = self.agent(headers) {
            let is_within = self.agents.check_key(&agent).is_ok();
            return is_within.then_some(()).ok_or("this agent");
        }
        self.addresses.check_key(&address).is_ok().then_some(()).ok_or("this address")
    }

    /// Returns the agent that sends a request, if its token is known.
    fn agent(&self, headers: &HeaderMap) -> Option<Uuid> {
        let header = headers.get(header::AUTHORIZATION)?;
        let bearer = Authorization::<Bearer>::decode(&mut std::iter::once(header)).ok()?;
        let token = Some(bearer.token()).filter(|token| AgentTokens::is_one(token))?;
        self.tokens.known(token).map(|caller| caller.owner.uuid())
    }
}

/// Refuses a request over its address's rate, or its agent's.
pub(crate) async fn within_rate(
    State(rate): State<Arc<Rate>>,
    ConnectInfo(address): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    match rate.admit(address.ip(), request.headers()) {
        Ok(()) => next.run(request).await,
        Err(who) => {
            let detail = format!("{who} sends more than its share; try again in a second");
            Problem::new(Kind::TooManyRequests, detail).into_response()
        }
    }
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
