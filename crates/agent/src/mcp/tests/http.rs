//! MCP servers over HTTP.

use std::io::Write;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use musterbeat_testkit::{Web, eventually};
use reqwest::StatusCode;
use reqwest::header::{AUTHORIZATION, HeaderName, WWW_AUTHENTICATE};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService};
use serde_json::json;
use tokio::time::timeout;

use super::ground::{PATIENCE, ask, call, error, health, names, open, toolkit};
use super::server::Echo;
use crate::mcp::{Allow, Lifetime, McpEndpoint, McpServer, McpState, McpTransport};

/// A site with the echo on it.
struct Site {
    web: Web,
    shared: Arc<Shared>,
}

struct Shared {
    served: Mutex<Served>,
    /// The status of every answer; 0 for the echo's own, 1 for none at all.
    status: AtomicU16,
    /// Calls that wait for an answer, or for the rest of one.
    waiting: AtomicUsize,
    /// What was shown as the right to call.
    shown: Mutex<Vec<String>>,
    /// What must be shown; nothing by default.
    wanted: Mutex<Option<String>>,
}

/// A refusal as a server gives it that wants another right.
type Refusal = (StatusCode, [(HeaderName, &'static str); 1]);

fn refusal(status: u16) -> Refusal {
    (StatusCode::from_u16(status).unwrap(), [(WWW_AUTHENTICATE, "Bearer")])
}

#[derive(Clone)]
struct Served {
    service: StreamableHttpService<Echo, LocalSessionManager>,
    sessions: Arc<LocalSessionManager>,
}

impl Served {
    fn new() -> Self {
        let sessions = Arc::new(LocalSessionManager::default());
        let echo = Echo::default();
        let service = StreamableHttpService::new(
            move || Ok(echo.clone()),
            Arc::clone(&sessions),
            StreamableHttpServerConfig::default(),
        );
        Self { service, sessions }
    }
}

impl Site {
    async fn start() -> Self {
        let shared = Arc::new(Shared {
            served: Mutex::new(Served::new()),
            status: AtomicU16::new(0),
            waiting: AtomicUsize::new(0),
            shown: Mutex::default(),
            wanted: Mutex::default(),
        });
        let site = Arc::clone(&shared);
        let web = Web::start(move |request| {
            let site = Arc::clone(&site);
            async move {
                let shown = request.headers().get(AUTHORIZATION);
                let shown = shown.map(|shown| shown.to_str().unwrap().to_owned());
                site.shown.lock().unwrap().extend(shown.clone());
                let wanted = site.wanted.lock().unwrap().clone();
                if wanted.is_some() && wanted != shown {
                    return Err(refusal(401));
                }
                let _waiting = Waiting::new(&site.waiting);
                match site.status.load(Ordering::Relaxed) {
                    0 => {}
                    1 => std::future::pending().await,
                    status => return Err(refusal(status)),
                }
                let service = site.served.lock().unwrap().service.clone();
                Ok(service.handle(request).await)
            }
        })
        .await
        .unwrap();
        Self { web, shared }
    }

    fn server(&self) -> McpServer {
        endpoint(&format!("{}/mcp", self.web.url()))
    }

    fn answer(&self, status: u16) {
        self.shared.status.store(status, Ordering::Relaxed);
    }

    /// Forgets all sessions, as a server does that is started anew.
    fn restart(&self) {
        *self.shared.served.lock().unwrap() = Served::new();
    }

    async fn sessions(&self) -> usize {
        let sessions = Arc::clone(&self.shared.served.lock().unwrap().sessions);
        sessions.sessions.read().await.len()
    }
}

/// Counts a call until it is answered, or given up.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn endpoint(url: &str) -> McpServer {
    let endpoint = McpEndpoint { url: url.into(), headers: [].into(), headers_file: None };
    McpServer::new("echo", McpTransport::Http(endpoint), Allow::all())
}

#[tokio::test]
async fn calls_of_two_turns_meet_on_one_session() {
    let site = Site::start().await;
    let toolkit = toolkit(vec![site.server()]);
    let (one, two) = tokio::join!(open(&toolkit), open(&toolkit));
    assert!(names(&one).contains(&"echo__meet".to_owned()));
    let met = tokio::join!(ask(&one, "meet"), ask(&two, "meet"));
    assert_eq!(met, ("met".to_owned(), "met".to_owned()));
    assert_eq!((site.sessions().await, health(&toolkit).connections), (1, 1));
    let failed = call(&one, "fail", json!({})).await.unwrap_err().0;
    assert_eq!(failed, "no such file");
    toolkit.close().await;
    assert_eq!(site.sessions().await, 0, "the session is deleted");
}

#[tokio::test]
async fn turn_with_a_session_of_its_own_deletes_it() {
    let site = Site::start().await;
    let toolkit = toolkit(vec![McpServer { lifetime: Lifetime::Run, ..site.server() }]);
    let (one, two) = tokio::join!(open(&toolkit), open(&toolkit));
    assert_eq!(site.sessions().await, 2);
    drop(one);
    eventually(PATIENCE, "its session is deleted", async || site.sessions().await == 1).await;
    assert_eq!(ask(&two, "set").await, "set was called");
    drop(two);
    eventually(PATIENCE, "the other is deleted too", async || site.sessions().await == 0).await;
    toolkit.close().await;
}

#[tokio::test]
async fn headers_of_the_settings_and_of_a_file_are_shown() {
    let site = Site::start().await;
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "# renewed by hand\nAuthorization: Bearer of-file").unwrap();
    for (name, expected) in [("x-team", "Bearer of-file"), ("authorization", "Bearer of-file")] {
        let mut server = site.server();
        let McpTransport::Http(endpoint) = &mut server.transport else { unreachable!() };
        endpoint.headers = [(name.to_owned(), "Bearer of-settings".into())].into();
        endpoint.headers_file = Some(file.path().to_owned());
        let toolkit = toolkit(vec![server]);
        assert!(!open(&toolkit).await.is_empty());
        toolkit.close().await;
        let shown = std::mem::take(&mut *site.shared.shown.lock().unwrap());
        assert!(!shown.is_empty() && shown.iter().all(|shown| shown == expected), "{shown:?}");
    }
    let mut server = site.server();
    let McpTransport::Http(endpoint) = &mut server.transport else { unreachable!() };
    endpoint.headers_file = Some("/nowhere".into());
    let toolkit = toolkit(vec![server]);
    assert!(open(&toolkit).await.is_empty());
    let failed = health(&toolkit);
    assert!(error(&failed).starts_with("`headers_file` cannot be read: "), "{failed:?}");
}

#[tokio::test]
async fn renewed_right_is_read_when_the_old_one_has_run_out() {
    let site = Site::start().await;
    let want = |token: &str| *site.shared.wanted.lock().unwrap() = Some(token.to_owned());
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "Authorization: old").unwrap();
    want("old");
    let mut server = site.server();
    let McpTransport::Http(endpoint) = &mut server.transport else { unreachable!() };
    endpoint.headers_file = Some(file.path().to_owned());
    let toolkit = toolkit(vec![server]);
    let tools = open(&toolkit).await;
    std::fs::write(file.path(), "Authorization: new").unwrap();
    want("new");
    assert_eq!(ask(&tools, "set").await, "set was called");
    assert_eq!(health(&toolkit).connections, 2);
    want("newest");
    let refused = call(&tools, "set", json!({})).await.unwrap_err().0;
    assert!(refused.starts_with("nothing was done: the MCP server `echo` is away"), "{refused}");
    toolkit.close().await;
}

#[tokio::test]
async fn forgotten_session_is_made_anew_within_a_call() {
    let site = Site::start().await;
    let toolkit = toolkit(vec![site.server()]);
    let tools = open(&toolkit).await;
    site.restart();
    let met = tokio::join!(ask(&tools, "meet"), ask(&tools, "meet"));
    assert_eq!(met, ("met".to_owned(), "met".to_owned()));
    assert_eq!((site.sessions().await, health(&toolkit).connections), (1, 2));
    assert_eq!(health(&toolkit).failures, 0);
    toolkit.close().await;

    let own = super::ground::toolkit(vec![McpServer { lifetime: Lifetime::Run, ..site.server() }]);
    let tools = open(&own).await;
    site.restart();
    let expired = call(&tools, "set", json!({})).await.unwrap_err().0;
    assert!(expired.starts_with("nothing was done: "), "{expired}");
}

#[tokio::test]
async fn status_of_a_failed_call_says_what_may_have_been_done() {
    let site = Site::start().await;
    let toolkit = toolkit(vec![site.server()]);
    let tools = open(&toolkit).await;
    let failure = async |status: u16| {
        site.answer(status);
        call(&tools, "set", json!({})).await.unwrap_err().0
    };
    let busy = failure(429).await;
    assert!(busy.starts_with("nothing was done: the MCP server `echo` has too much"), "{busy}");
    let unknown = "the outcome is unknown: the MCP server `echo` gave no clear answer: HTTP 503";
    assert_eq!(failure(503).await, unknown);
    site.answer(0);
    assert_eq!(ask(&tools, "set").await, "set was called");
    assert_eq!((health(&toolkit).connections, health(&toolkit).failures), (1, 2));
    toolkit.close().await;
}

#[tokio::test]
async fn silent_server_is_given_up_and_nothing_waits_for_it() {
    let site = Site::start().await;
    site.answer(1);
    for lifetime in [Lifetime::Shared, Lifetime::Run] {
        let connect_timeout = Duration::from_millis(300);
        let toolkit = toolkit(vec![McpServer { lifetime, connect_timeout, ..site.server() }]);
        let opened = timeout(PATIENCE, open(&toolkit)).await;
        assert!(opened.expect("the turn goes on").is_empty());
        eventually(PATIENCE, "the attempt has failed", async || {
            matches!(health(&toolkit).state, McpState::Failed { .. })
        })
        .await;
        assert_eq!(error(&health(&toolkit)), "it did not answer within 300ms");
        // Also the transport's own task has let go, though the toolkit is still there.
        eventually(PATIENCE, "the call is given up", async || {
            site.shared.waiting.load(Ordering::Relaxed) == 0
        })
        .await;
        toolkit.close().await;
    }
}

#[tokio::test]
async fn secrets_of_a_url_are_not_shown() {
    // Nobody listens there any more.
    let url = Web::start(async |_| StatusCode::OK).await.unwrap().url();
    let toolkit = toolkit(vec![endpoint(&format!("{url}/mcp?key=s3cret"))]);
    assert!(open(&toolkit).await.is_empty());
    let health = health(&toolkit);
    assert!(error(&health).starts_with("the handshake failed"), "{health:?}");
    assert!(!format!("{health:?} {toolkit:?}").contains("s3cret"), "{health:?} {toolkit:?}");
}
