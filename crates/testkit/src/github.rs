//! A GitHub on loopback, as far as questions about pull requests go.

mod answer;
mod fault;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{AUTHORIZATION, IF_NONE_MATCH};
use axum::response::Response;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::AbortHandle;

pub use fault::{Fault, Whom};

/// A pull request as the fake tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FakePull {
    /// `open` or `closed`.
    pub state: String,
    /// Whether the base has it; then it is also closed.
    pub merged: bool,
    /// Its title.
    pub title: String,
    /// Whether it is a draft.
    pub draft: bool,
    /// Who opened it.
    pub author: String,
    /// Lines added, lines taken away, files that differ, and commits.
    pub figures: [u32; 4],
    /// The branch that it is to be merged into.
    pub base: String,
    /// The branch itself, by which it is found.
    pub head: String,
    /// Who said what of it, in order: a login and a state such as `APPROVED`.
    pub reviews: Vec<(String, String)>,
}

impl FakePull {
    /// Returns an open pull request of the branch `head`.
    pub fn of(head: &str) -> Self {
        Self {
            state: "open".to_owned(),
            merged: false,
            title: format!("Work on {head}"),
            draft: false,
            author: "octocat".to_owned(),
            figures: [10, 3, 2, 1],
            base: "main".to_owned(),
            head: head.to_owned(),
            reviews: Vec::new(),
        }
    }
}

/// A call that was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// What was asked for, with the query.
    pub path: String,
    /// With which token, if with one.
    pub token: Option<String>,
    /// By which program.
    pub user_agent: String,
    /// With which status.
    pub status: u16,
}

/// A server that speaks as `api.github.com` does, and fails on demand.
///
/// Every answer has a tag that depends on what it tells and on the token; who brings the tag back
/// is told that nothing changed. Dropping it closes everything.
#[derive(Debug)]
pub struct FakeGitHub {
    addr: SocketAddr,
    shared: Arc<Shared>,
    serving: AbortHandle,
}

#[derive(Debug)]
struct Shared {
    told: Mutex<Told>,
    /// Faults, which questions that hang wait to see healed.
    faults: watch::Sender<BTreeMap<Whom, Fault>>,
    /// Questions that hang.
    hanging: watch::Sender<usize>,
}

#[derive(Debug, Default)]
struct Told {
    pulls: BTreeMap<(String, String, i64), FakePull>,
    calls: Vec<Call>,
}

impl FakeGitHub {
    /// Starts on a free port of loopback, with no pull request.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .context("the fake GitHub found no free port on loopback: close some sockets")?;
        let addr = listener.local_addr().context("the fake GitHub has no address")?;
        let shared = Arc::new(Shared {
            told: Mutex::default(),
            faults: watch::Sender::default(),
            hanging: watch::Sender::default(),
        });
        let app = Router::new().fallback(handle).with_state(Arc::clone(&shared));
        let serving = tokio::spawn(async move { axum::serve(listener, app).await });
        Ok(Self { addr, shared, serving: serving.abort_handle() })
    }

    /// Returns the root of the API.
    pub fn api_url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Sets or replaces a pull request; its head is the branch by which it is found.
    pub fn set_pull(&self, owner: &str, repo: &str, number: i64, pull: FakePull) {
        self.told().pulls.insert((owner.to_owned(), repo.to_owned(), number), pull);
    }

    /// Changes a pull request that is set.
    ///
    /// # Panics
    ///
    /// If it is not set.
    pub fn change_pull(
        &self,
        owner: &str,
        repo: &str,
        number: i64,
        change: impl FnOnce(&mut FakePull),
    ) {
        let mut told = self.told();
        let pull = told.pulls.get_mut(&(owner.to_owned(), repo.to_owned(), number));
        change(pull.expect("a pull request is set before it is changed"));
    }

    /// Fails whatever is asked by or about `whom` until it is healed.
    pub fn fail(&self, whom: Whom, fault: Fault) {
        self.shared.faults.send_modify(|faults| drop(faults.insert(whom, fault)));
    }

    /// Ends all faults; what hangs is answered.
    pub fn heal(&self) {
        self.shared.faults.send_modify(BTreeMap::clear);
    }

    /// Waits until `count` questions hang.
    ///
    /// # Errors
    ///
    /// Never, while the fake lives.
    pub async fn hanging(&self, count: usize) -> Result<()> {
        let mut hanging = self.shared.hanging.subscribe();
        hanging.wait_for(|&now| now == count).await.context("the fake GitHub ended")?;
        Ok(())
    }

    /// Returns the calls that were answered, in order.
    pub fn calls(&self) -> Vec<Call> {
        self.told().calls.clone()
    }

    /// Returns the calls that were answered since this was asked last.
    pub fn take_calls(&self) -> Vec<Call> {
        std::mem::take(&mut self.told().calls)
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.shared.told()
    }
}

impl Drop for FakeGitHub {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Shared {
    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn handle(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (head, _) = request.into_parts();
    let header = |name: &str| {
        let value = head.headers.get(name)?.to_str().ok()?;
        Some(value.to_owned())
    };
    let path = head.uri.path_and_query().map(ToString::to_string).unwrap_or_default();
    let bearer = header(AUTHORIZATION.as_str());
    let token = bearer.and_then(|value| Some(value.strip_prefix("Bearer ")?.to_owned()));
    let response = match fault::strike(&shared, token.as_deref(), &path).await {
        Some(response) => response,
        None => answer::answer(
            &shared.told().pulls,
            &head.uri,
            token.as_deref(),
            header(IF_NONE_MATCH.as_str()).as_deref(),
        ),
    };
    let status = response.status().as_u16();
    let user_agent = header("user-agent").unwrap_or_default();
    shared.told().calls.push(Call { path, token, user_agent, status });
    response
}
