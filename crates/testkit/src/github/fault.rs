//! How the fake GitHub fails.

use axum::body::Body;
use axum::http::header::{DATE, LOCATION, RETRY_AFTER};
use axum::http::response::Builder;
use axum::response::Response;
use tokio::sync::watch;

use super::Shared;

/// Whose questions fail.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whom {
    /// Those with this token.
    Token(String),
    /// Those whose path begins so.
    Path(String),
    /// All.
    Everybody,
}

/// How questions fail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The limit is reached for so many seconds, by the fake's own clock, which is years behind.
    RateLimit {
        /// Seconds until it is renewed.
        seconds: u64,
    },
    /// Questions come too fast; after so many seconds they may come again.
    TooFast {
        /// Seconds to wait.
        seconds: u64,
    },
    /// An answer with this status and text.
    Status(u16, String),
    /// A good answer without a length that has so many blanks.
    Blanks(usize),
    /// Another place to ask.
    Redirect(String),
    /// No answer until the faults are healed; then a good one.
    Silence,
}

/// The time by the fake's clock, which must not be taken for that of this machine.
const CLOCK: (&str, u64) = ("Sun, 06 Nov 1994 08:49:37 GMT", 784_111_777);

/// Fails a question if it is to fail; the first of several faults counts.
pub(super) async fn strike(shared: &Shared, token: Option<&str>, path: &str) -> Option<Response> {
    let struck = |whom: &Whom| match whom {
        Whom::Token(whose) => token == Some(whose),
        Whom::Path(start) => path.starts_with(start),
        Whom::Everybody => true,
    };
    let mut faults = shared.faults.subscribe();
    let fault = {
        let now = faults.borrow_and_update();
        now.iter().find(|(whom, _)| struck(whom)).map(|(_, fault)| fault.clone())?
    };
    let (response, body) = match fault {
        Fault::RateLimit { seconds } => {
            let reset = CLOCK.1.saturating_add(seconds);
            let response = Response::builder().status(403).header("x-ratelimit-remaining", 0);
            (response.header("x-ratelimit-reset", reset), "API rate limit exceeded".into())
        }
        Fault::TooFast { seconds } => {
            (Response::builder().status(429).header(RETRY_AFTER, seconds), Body::empty())
        }
        Fault::Status(status, text) => (Response::builder().status(status), text.into()),
        Fault::Blanks(bytes) => (Response::builder(), blanks(bytes)),
        Fault::Redirect(to) => {
            (Response::builder().status(301).header(LOCATION, to), Body::empty())
        }
        Fault::Silence => {
            let _counted = Hanging::new(&shared.hanging);
            // An error is the end of the fake, which ends the question too.
            let _ = faults.wait_for(|now| !now.keys().any(struck)).await;
            return None;
        }
    };
    Some(finish(response, body))
}

fn finish(response: Builder, body: Body) -> Response {
    response.header(DATE, CLOCK.0).body(body).expect("a fault's headers are ASCII")
}

/// Returns a body in pieces, so that its length is not told before.
fn blanks(bytes: usize) -> Body {
    let piece = || Ok::<_, std::convert::Infallible>(vec![b' '; 1_024]);
    let pieces = std::iter::repeat_with(piece).take(bytes.div_ceil(1_024));
    Body::from_stream(futures_util::stream::iter(pieces))
}

/// One hanging question in the count, until it is answered or given up.
struct Hanging<'a>(&'a watch::Sender<usize>);

impl<'a> Hanging<'a> {
    fn new(count: &'a watch::Sender<usize>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count)
    }
}

impl Drop for Hanging<'_> {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}
