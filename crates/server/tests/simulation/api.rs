//! Requests whose answer may be lost, and the log of what became of each.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use rand::RngExt;
use rand::rngs::StdRng;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::Value;

/// How long a user waits for an answer: less than a replica may be frozen.
const PATIENCE: Duration = Duration::from_secs(3);

/// What a user does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Act {
    Create,
    SendQueue,
    SendInterrupt,
    Edit,
    Interrupt,
    Promote,
    DeleteQueued,
    ClearQueue,
    Archive,
    Unarchive,
    Title,
}

impl Act {
    pub(crate) const ALL: [Self; 11] = [
        Self::Create,
        Self::SendQueue,
        Self::SendInterrupt,
        Self::Edit,
        Self::Interrupt,
        Self::Promote,
        Self::DeleteQueued,
        Self::ClearQueue,
        Self::Archive,
        Self::Unarchive,
        Self::Title,
    ];
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was done, or found nothing to do; a few answers name no version.
    Accepted(Option<i64>),
    /// It was not done.
    Refused(StatusCode),
    /// Nobody knows: the answer was lost.
    Unknown,
}

/// A request of a user.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) act: Act,
    /// Of the chat, or what was created; empty when nobody knows.
    pub(crate) chat: String,
    /// What it says: a question or a title.
    pub(crate) text: Option<String>,
    /// What it names: a message or a queued turn.
    pub(crate) named: Option<i64>,
    /// Microseconds since 1970, on the clock that the database has, too.
    pub(crate) sent: i64,
    pub(crate) answered: i64,
    pub(crate) outcome: Outcome,
}

/// An answer, as far as it came.
#[derive(Debug)]
pub(crate) enum Answer {
    Done(Value),
    Refused(StatusCode),
    Lost,
    /// It never left.
    Unsent,
}

/// The way to the replicas, wherever they listen at the moment.
#[derive(Clone)]
pub(crate) struct Api {
    http: reqwest::Client,
    bases: Arc<Mutex<Vec<String>>>,
    log: Arc<Mutex<Vec<Request>>>,
}

impl Api {
    pub(crate) fn new(replicas: usize) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        Self {
            http: reqwest::Client::new(),
            bases: Arc::new(Mutex::new(vec![String::new(); replicas])),
            log: Arc::default(),
        }
    }

    /// Tells where a replica listens.
    pub(crate) fn moved(&self, replica: usize, url: &str) {
        url.clone_into(&mut held(&self.bases)[replica]);
    }

    /// Returns a request to any of the replicas.
    pub(crate) fn request(&self, rng: &mut StdRng, method: Method, path: &str) -> RequestBuilder {
        let bases = held(&self.bases);
        let base = &bases[rng.random_range(0..bases.len())];
        self.http.request(method, format!("{base}/api/v1{path}"))
    }

    pub(crate) async fn call(
        &self,
        rng: &mut StdRng,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Answer {
        let mut request = self.request(rng, method, path).timeout(PATIENCE);
        if let Some(body) = body {
            request = request.json(body);
        }
        match request.send().await {
            Ok(response) => {
                let status = response.status();
                match response.bytes().await {
                    Ok(_) if status.is_client_error() => Answer::Refused(status),
                    Ok(body) if status.is_success() => {
                        Answer::Done(serde_json::from_slice(&body).unwrap_or(Value::Null))
                    }
                    // A server that could not tell may have done it all the same.
                    _ => Answer::Lost,
                }
            }
            Err(error) if error.is_connect() || error.is_builder() => Answer::Unsent,
            Err(_) => Answer::Lost,
        }
    }

    /// Reads something; `None` when it did not come.
    pub(crate) async fn read(&self, rng: &mut StdRng, path: &str) -> Option<Value> {
        match self.call(rng, Method::GET, path, None).await {
            Answer::Done(value) => Some(value),
            Answer::Refused(_) | Answer::Lost | Answer::Unsent => None,
        }
    }

    pub(crate) fn record(&self, request: Request) {
        held(&self.log).push(request);
    }

    pub(crate) fn log(&self) -> Vec<Request> {
        held(&self.log).clone()
    }
}

/// Takes a lock that nobody poisons.
pub(crate) fn held<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap()
}

/// Returns the time in microseconds since 1970.
pub(crate) fn micros() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_micros()).unwrap()
}
