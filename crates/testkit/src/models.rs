//! A provider of models on loopback, as far as chat completions go.
//!
//! It speaks the wire format that most providers and local servers share. What it answers is
//! queued by a test, answer by answer, or told by a rule.

mod answer;
mod asked;
mod demo;
mod gate;
mod wire;

use std::collections::VecDeque;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::response::Response;
use axum::routing::{get, post};
use axum::serve::ListenerExt;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::AbortHandle;

pub use answer::{Answer, Tokens};
pub use asked::Asked;
pub use demo::demo;
pub use gate::Gate;

/// Requests that are remembered; the oldest are forgotten first.
const ASKED_MAX: usize = 4_096;

/// Bytes of a request, at most.
const REQUEST_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A server that speaks as `/v1/chat/completions` does, streaming or not, and fails on demand.
///
/// A request gets the oldest queued answer; while none is queued, the rule's; without a rule, an
/// error that says so. Dropping it takes no more connections; answers under way go on.
#[derive(Debug)]
pub struct FakeModels {
    addr: SocketAddr,
    shared: Arc<Shared>,
    serving: AbortHandle,
}

/// What every request may need.
#[derive(Debug, Default)]
struct Shared {
    told: Mutex<Told>,
    /// How many requests came.
    total: watch::Sender<usize>,
    /// Answers that have begun and not ended.
    under_way: watch::Sender<usize>,
}

#[derive(Default)]
struct Told {
    queue: VecDeque<Answer>,
    rule: Option<Arc<Rule>>,
    key: Option<String>,
    asked: VecDeque<Arc<Asked>>,
}

type Rule = dyn Fn(&Asked) -> Answer + Send + Sync;

impl FakeModels {
    /// Starts on a free port of loopback, with nothing to answer.
    pub async fn start() -> Result<Self> {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into()).await
    }

    /// Starts at `addr`.
    pub async fn start_at(addr: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(addr).await.with_context(|| {
            format!("the fake provider of models cannot listen on {addr}: choose another port")
        })?;
        let addr = listener.local_addr().context("the fake provider of models has no address")?;
        let shared = Arc::<Shared>::default();
        let app = Router::new()
            .route("/v1/chat/completions", post(complete))
            .route("/v1/models", get(wire::models))
            .layer(DefaultBodyLimit::max(REQUEST_BYTES_MAX))
            .with_state(Arc::clone(&shared));
        // Pieces are sent when they are said, as real servers do; without it is only slower.
        let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
        let serving = tokio::spawn(async move { axum::serve(listener, app).await });
        Ok(Self { addr, shared, serving: serving.abort_handle() })
    }

    /// Returns what clients are told as the base URL; it ends in `/v1`.
    pub fn base_url(&self) -> String {
        format!("http://{}/v1", self.addr)
    }

    /// Appends an answer to the queue.
    pub fn queue(&self, answer: Answer) {
        self.told().queue.push_back(answer);
    }

    /// Returns how many answers of the queue nobody has asked for.
    pub fn queued(&self) -> usize {
        self.told().queue.len()
    }

    /// Answers by `rule` whenever the queue is empty; it replaces an earlier rule.
    pub fn answer_by(&self, rule: impl Fn(&Asked) -> Answer + Send + Sync + 'static) {
        self.told().rule = Some(Arc::new(rule));
    }

    /// Refuses whoever brings another key than `key`, or none.
    pub fn demand_key(&self, key: &str) {
        self.told().key = Some(key.to_owned());
    }

    /// Returns what was asked, the newest 4,096 requests at most, in order.
    pub fn asked(&self) -> Vec<Arc<Asked>> {
        self.told().asked.iter().cloned().collect()
    }

    /// Returns how many requests came.
    pub fn asked_total(&self) -> usize {
        *self.shared.total.borrow()
    }

    /// Waits for the request of this number, the first being 1, and returns it.
    ///
    /// # Errors
    /// Fails for number 0, and when so many came after it that it is forgotten.
    pub async fn nth(&self, number: usize) -> Result<Arc<Asked>> {
        let mut total = self.shared.total.subscribe();
        total.wait_for(|&total| number <= total).await.context("the fake ended")?;
        let told = self.told();
        // Requests are counted under this lock, so the number of the newest is the total.
        let place = (told.asked.len() + number).checked_sub(self.asked_total() + 1);
        let asked = place.and_then(|place| told.asked.get(place));
        asked.cloned().with_context(|| format!("request {number} is not remembered"))
    }

    /// Waits until exactly `count` answers are under way: neither ended nor given up by a client.
    ///
    /// # Errors
    /// Never, while the fake lives.
    pub async fn under_way(&self, count: usize) -> Result<()> {
        let mut under_way = self.shared.under_way.subscribe();
        under_way.wait_for(|&now| now == count).await.context("the fake ended")?;
        Ok(())
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.shared.told()
    }
}

impl Drop for FakeModels {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Shared {
    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a request and returns its number and what it is answered.
    fn take(&self, asked: &Arc<Asked>) -> (usize, Answer) {
        let (number, rule) = {
            let mut told = self.told();
            if told.asked.len() == ASKED_MAX {
                told.asked.pop_front();
            }
            told.asked.push_back(Arc::clone(asked));
            self.total.send_modify(|total| *total += 1);
            let number = *self.total.borrow();
            if told.key.is_some() && told.key != asked.key {
                return (number, Answer::fail(401, "Incorrect API key provided."));
            }
            match told.queue.pop_front() {
                Some(answer) => return (number, answer),
                None => (number, told.rule.clone()),
            }
        };
        // Not under the lock: a rule may take its time, and may ask the fake.
        let unscripted = || Answer::fail(501, "The fake was not told what to answer.");
        (number, rule.map_or_else(unscripted, |rule| rule(asked)))
    }
}

impl fmt::Debug for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Told").field("queue", &self.queue).finish_non_exhaustive()
    }
}

async fn complete(State(shared): State<Arc<Shared>>, head: HeaderMap, body: Bytes) -> Response {
    let bearer = head.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let key = bearer.and_then(|value| value.strip_prefix("Bearer "));
    let Some(asked) = Asked::read(&body, key) else {
        return wire::refuse(&Answer::fail(400, "The body is not a request of chat completions."));
    };
    let asked = Arc::new(asked);
    let (number, answer) = shared.take(&asked);
    let under_way = UnderWay::new(Arc::clone(&shared));
    wire::respond(number, &asked, answer, under_way).await
}

/// One answer in the count, until it has ended or its client is gone.
#[derive(Debug)]
struct UnderWay(Arc<Shared>);

impl UnderWay {
    fn new(shared: Arc<Shared>) -> Self {
        shared.under_way.send_modify(|count| *count += 1);
        Self(shared)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.send_modify(|count| *count -= 1);
    }
}
