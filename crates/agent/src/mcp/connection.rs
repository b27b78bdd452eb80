//! A connection to an MCP server, from its handshake to its end.

use std::error::Error;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::Client;
use rmcp::RoleClient;
use rmcp::model::{CallToolRequestParams, CallToolResponse, JsonObject};
use rmcp::service::{
    ClientInitializeError, Peer, RunningService, ServiceError, serve_client_with_ct,
};
use rmcp::transport::IntoTransport;
use rmcp::transport::async_rw::AsyncRwTransport;
use tokio::process::ChildStderr;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::config::{Lifetime, McpEndpoint, McpProgram, McpServer, McpTransport};
use super::ear::Ear;
use super::headers::{self, HeadersError};
use super::offer::{self, Listing, Offer};
use super::process::Process;
use super::standing::Standing;
use super::stderr::ErrorLog;
use super::wire;

/// Bytes of one message of a server, at most.
///
/// A longer line of a program is thrown away unread, so its call ends by its timeout; a longer
/// event over HTTP ends its call at once.
pub(super) const MESSAGE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Longest time for the last words: a second each for two signals, or seven to leave a session.
pub(super) const END_TIME_MAX: Duration = Duration::from_secs(8);

/// Time in which the last words of a program that was killed are read.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// Shortest time between two lists of tools, whatever a server says.
const LIST_INTERVAL_MIN: Duration = Duration::from_secs(1);

/// Why a connection is lost that nobody here ended.
pub(super) const ENDED: &str = "it ended the connection";

/// What connections have in common.
#[derive(Clone, Debug)]
pub(super) struct Ground {
    /// Joins what ends connections.
    pub(super) tasks: TaskTracker,
    /// Ends all connections when it is cancelled.
    pub(super) closing: CancellationToken,
}

/// A connection to an MCP server; it ends, after a grace, when this is dropped.
#[derive(Debug)]
pub(super) struct Connection {
    peer: Peer<RoleClient>,
    shelf: Arc<Shelf>,
    _end: DropGuard,
}

/// What a connection and its keeper both know.
#[derive(Debug)]
struct Shelf {
    offers: Mutex<Arc<[Arc<Offer>]>>,
    is_lost: AtomicBool,
    lifetime: Lifetime,
    standing: Arc<Standing>,
}

/// There is no connection. No text in it bears a secret.
#[derive(Debug, thiserror::Error)]
pub(super) enum ConnectError {
    #[error(
        "its program or the interpreter that its first line names is not there; name a program \
         by its path, or one that `PATH` leads to"
    )]
    Missing,
    #[error("its program may not be executed; make it executable with `chmod +x`")]
    NotExecutable,
    #[error("its program could not be started")]
    Start(#[source] io::Error),
    #[error(transparent)]
    Headers(#[from] HeadersError),
    #[error("its URL cannot be called")]
    Url,
    #[error("it did not answer within {0:?}")]
    TimedOut(Duration),
    #[error("the handshake failed")]
    Handshake(#[source] Box<ClientInitializeError>),
    #[error("its tools could not be listed")]
    List(#[source] Box<ServiceError>),
    #[error("{before}; its program's last words: {last}")]
    Quoted { before: String, last: String },
    #[error("the process is ending")]
    Closing,
}

impl Connection {
    /// Connects to a server and lists its tools, within its time.
    ///
    /// When the future is dropped nothing is left of the attempt.
    pub(super) async fn open(
        server: &Arc<McpServer>,
        client: Option<&Client>,
        standing: &Arc<Standing>,
        ground: &Ground,
    ) -> Result<Arc<Self>, ConnectError> {
        let deadline = Instant::now() + server.connect_timeout;
        let opening = async {
            match (&server.transport, client) {
                (McpTransport::Program(program), _) => of_program(server, program, deadline).await,
                (McpTransport::Http(endpoint), Some(client)) => {
                    of_endpoint(server, endpoint, client.clone(), deadline).await
                }
                (McpTransport::Http(_), None) => Err(ConnectError::Url),
            }
        };
        let (line, tail) = tokio::select! {
            // A process that ends starts no program.
            biased;
            () = ground.closing.cancelled() => return Err(ConnectError::Closing),
            opened = opening => opened?,
        };
        let shelf = Arc::new(Shelf {
            offers: Mutex::new(Arc::clone(&line.listing.offers)),
            is_lost: AtomicBool::new(false),
            lifetime: server.lifetime,
            standing: Arc::clone(standing),
        });
        standing.connected(line.listing.offers.len(), &line.listing.notes);
        let end = ground.closing.child_token();
        let connection = Self {
            peer: line.service.peer().clone(),
            shelf: Arc::clone(&shelf),
            _end: end.clone().drop_guard(),
        };
        let keeper = Keeper { server: Arc::clone(server), shelf, end };
        ground.tasks.spawn(keeper.keep(line, tail));
        Ok(Arc::new(connection))
    }

    /// Returns the tools that the server offers.
    pub(super) fn offers(&self) -> Arc<[Arc<Offer>]> {
        Arc::clone(&self.shelf.offers.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Says whether the connection broke, after which no call is answered.
    pub(super) fn is_lost(&self) -> bool {
        self.shelf.is_lost.load(Ordering::Acquire) || self.peer.is_transport_closed()
    }

    /// Notes that the connection broke; calls on their way may still be answered.
    pub(super) fn lose(&self, why: &str) {
        self.shelf.lose(why);
    }

    /// Makes a call. When the future is dropped the server is told that nobody waits for it.
    pub(super) async fn call(
        &self,
        tool: &str,
        input: JsonObject,
    ) -> Result<CallToolResponse, ServiceError> {
        let call = CallToolRequestParams::new(tool.to_owned()).with_arguments(input);
        self.peer.call_tool_once(call).await
    }
}

impl Shelf {
    fn lose(&self, why: &str) {
        let was_lost = self.is_lost.swap(true, Ordering::AcqRel);
        // What a turn has for itself says nothing of the next turn's.
        if !was_lost && self.lifetime == Lifetime::Shared {
            self.standing.lost(why.to_owned());
        }
    }
}

/// What the handshake brought.
struct Line {
    service: RunningService<RoleClient, Ear>,
    changed: Arc<Notify>,
    /// Ends the service when it is cancelled.
    hang_up: CancellationToken,
    listing: Listing,
}

/// What is to be ended after the service: a program, if it is one.
type Tail = Option<(Process, ErrorLog<ChildStderr>)>;

async fn of_program(
    server: &McpServer,
    program: &McpProgram,
    deadline: Instant,
) -> Result<(Line, Tail), ConnectError> {
    let (process, streams) = Process::start(program).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => ConnectError::Missing,
        io::ErrorKind::PermissionDenied => ConnectError::NotExecutable,
        _ => ConnectError::Start(error),
    })?;
    let mut log = ErrorLog::new(server.name.clone(), streams.stderr);
    let transport = AsyncRwTransport::new_client(streams.stdout, streams.stdin)
        .with_max_line_length(MESSAGE_BYTES_MAX);
    match log.beside(greet(server, transport, CancellationToken::new(), deadline)).await {
        Ok(line) => Ok((line, Some((process, log)))),
        Err(error) => {
            // Killed first, so that its last words end.
            drop(process);
            let _ = timeout(LAST_WORDS, log.follow()).await;
            Err(error.quoting(log.last()))
        }
    }
}

async fn of_endpoint(
    server: &McpServer,
    endpoint: &McpEndpoint,
    client: Client,
    deadline: Instant,
) -> Result<(Line, Tail), ConnectError> {
    let url = endpoint.parsed_url().map_err(|_| ConnectError::Url)?;
    let mut headers = headers::parse(&endpoint.headers).map_err(|_| ConnectError::Url)?;
    if let Some(file) = &endpoint.headers_file {
        let read = timeout_at(deadline, headers::read(file)).await;
        headers.extend(read.map_err(|_| ConnectError::TimedOut(server.connect_timeout))??);
    }
    let hang_up = CancellationToken::new();
    let transport = wire::transport(client, &url, headers, hang_up.clone());
    Ok((greet(server, transport, hang_up, deadline).await?, None))
}

/// Shakes hands and lists the tools, until the deadline at most.
async fn greet<T, E, A>(
    server: &McpServer,
    transport: T,
    hang_up: CancellationToken,
    deadline: Instant,
) -> Result<Line, ConnectError>
where
    T: IntoTransport<RoleClient, E, A>,
    E: Error + Send + Sync + 'static,
{
    // Whatever ends this early also ends what the transport started.
    let guard = hang_up.clone().drop_guard();
    let ear = Ear::default();
    let changed = Arc::clone(&ear.changed);
    let greeting = async {
        let service = serve_client_with_ct(ear, transport, hang_up.clone())
            .await
            .map_err(|error| ConnectError::Handshake(Box::new(error)))?;
        let listing = offer::list(service.peer(), server)
            .await
            .map_err(|error| ConnectError::List(Box::new(error)))?;
        Ok::<_, ConnectError>((service, listing))
    };
    let greeted = timeout_at(deadline, greeting).await;
    let (service, listing) =
        greeted.map_err(|_| ConnectError::TimedOut(server.connect_timeout))??;
    Ok(Line { service, changed, hang_up: guard.disarm(), listing })
}

impl ConnectError {
    fn quoting(self, last: &str) -> Self {
        if last.is_empty() {
            return self;
        }
        Self::Quoted { before: explained(&self), last: last.to_owned() }
    }
}

/// Joins an error and its causes.
pub(super) fn explained(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let cause = error.to_string();
        // Many an error repeats its cause.
        if !text.ends_with(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        source = error.source();
    }
    text
}

/// Sees to a connection from its handshake to its end.
struct Keeper {
    server: Arc<McpServer>,
    shelf: Arc<Shelf>,
    end: CancellationToken,
}

/// Why a keeper woke.
enum Wake {
    Lost,
    Ended,
    Changed,
}

impl Keeper {
    async fn keep(self, line: Line, tail: Tail) {
        match tail {
            Some((process, mut log)) => log.beside(self.attend(line, process.end())).await,
            None => self.attend(line, async {}).await,
        }
    }

    /// Lists the tools anew when they change; at the end waits for the service and for `tail`.
    async fn attend(self, line: Line, tail: impl Future<Output = ()>) {
        let Line { service, changed, hang_up, .. } = line;
        let peer = service.peer().clone();
        let mut service = pin!(service.waiting());
        let mut list_at = Instant::now();
        loop {
            let wake = tokio::select! {
                _ = &mut service => Wake::Lost,
                () = self.end.cancelled() => Wake::Ended,
                () = async { changed.notified().await; sleep_until(list_at).await } => Wake::Changed,
            };
            match wake {
                Wake::Changed => self.relist(&peer).await,
                Wake::Lost => {
                    self.shelf.lose(ENDED);
                    return tail.await;
                }
                Wake::Ended => break,
            }
            list_at = Instant::now() + LIST_INTERVAL_MIN;
        }
        hang_up.cancel();
        // The service closes the program's input, and may itself wait for the program's death.
        let _ = tokio::join!(timeout(END_TIME_MAX, service), tail);
    }

    /// Lists the tools; a server that cannot is as good as lost.
    async fn relist(&self, peer: &Peer<RoleClient>) {
        let listing = timeout(self.server.connect_timeout, offer::list(peer, &self.server));
        let listing = tokio::select! {
            listing = listing => listing,
            () = self.end.cancelled() => return,
        };
        match listing {
            Ok(Ok(Listing { offers, notes })) => {
                self.shelf.standing.listed(offers.len(), &notes);
                *self.shelf.offers.lock().unwrap_or_else(PoisonError::into_inner) = offers;
            }
            Ok(Err(error)) => self.shelf.lose(&explained(&error)),
            Err(_) => self.shelf.lose("it did not list its tools in time"),
        }
    }
}
