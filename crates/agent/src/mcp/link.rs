//! An MCP server that turns ask for its tools.

use std::sync::Arc;

use musterbeat_core::invalid::Invalid;
use reqwest::Client;
use tokio::sync::watch;
use tokio::time::timeout;

use super::config::{Lifetime, McpServer, McpTransport};
use super::connection::{ConnectError, Connection, ENDED, Ground, explained};
use super::standing::Standing;
use super::wire;

/// A server, and the way to it.
#[derive(Debug)]
pub(super) struct Link {
    server: Arc<McpServer>,
    client: Option<Client>,
    standing: Arc<Standing>,
    ground: Ground,
    /// The connection that all turns share, if they do.
    shared: watch::Sender<Shared>,
}

/// The connection that all turns share.
#[derive(Debug)]
enum Shared {
    Away,
    /// A task connects, and those who ask wait for it together.
    Opening,
    Open(Arc<Connection>),
}

impl Link {
    /// Checks the description of a server; nothing is connected.
    pub(super) fn new(server: McpServer, ground: Ground) -> Result<Self, Invalid> {
        server.check()?;
        let client = match &server.transport {
            McpTransport::Program(_) => None,
            McpTransport::Http(endpoint) => {
                let url = endpoint.parsed_url().map_err(|invalid| server.blame(invalid))?;
                if url.scheme() == "http" && !wire::is_loopback(&url) {
                    tracing::warn!(
                        mcp.server = server.name,
                        "what goes to an MCP server is not encrypted; use https if it has it"
                    );
                }
                let client = wire::client(&url, server.connect_timeout).map_err(|error| {
                    let reason = format!("has no HTTP client: {}", explained(&error.without_url()));
                    server.blame(Invalid::new("url", reason))
                })?;
                Some(client)
            }
        };
        Ok(Self {
            standing: Arc::new(Standing::new(server.name.clone())),
            server: Arc::new(server),
            client,
            ground,
            shared: watch::Sender::new(Shared::Away),
        })
    }

    /// Returns how the server is described.
    pub(super) fn server(&self) -> &McpServer {
        &self.server
    }

    /// Returns how the server stands.
    pub(super) fn standing(&self) -> &Standing {
        &self.standing
    }

    /// Returns a connection for a turn, `None` when the server is away.
    pub(super) async fn connection(self: &Arc<Self>) -> Option<Arc<Connection>> {
        match self.server.lifetime {
            Lifetime::Shared => self.shared().await,
            Lifetime::Run if self.standing.may_try() => self.open().await,
            Lifetime::Run => None,
        }
    }

    /// Returns the connection that all turns share, `None` when the server is away.
    ///
    /// All who ask at once share one attempt, which goes on when they are dropped.
    pub(super) async fn shared(self: &Arc<Self>) -> Option<Arc<Connection>> {
        let mut shared = self.shared.subscribe();
        if self.begin() {
            let link = Arc::clone(self);
            self.ground.tasks.spawn(async move {
                let attempt = Attempt(&link.shared);
                let opened = link.open().await;
                attempt.0.send_replace(opened.map_or(Shared::Away, Shared::Open));
            });
        }
        let settled = shared.wait_for(|shared| !matches!(shared, Shared::Opening));
        match &*timeout(self.server.connect_timeout, settled).await.ok()?.ok()? {
            Shared::Open(connection) if !connection.is_lost() => Some(Arc::clone(connection)),
            Shared::Open(_) | Shared::Opening | Shared::Away => None,
        }
    }

    /// Says whether the caller is to connect, and forgets a connection that broke.
    fn begin(&self) -> bool {
        let mut begins = false;
        self.shared.send_if_modified(|shared| {
            let is_away = match shared {
                Shared::Away => true,
                Shared::Open(connection) if connection.is_lost() => {
                    // Before the next one is made: whoever notices later changes nothing.
                    connection.lose(ENDED);
                    true
                }
                Shared::Open(_) | Shared::Opening => false,
            };
            if is_away {
                begins = self.standing.may_try() && !self.ground.closing.is_cancelled();
                *shared = if begins { Shared::Opening } else { Shared::Away };
            }
            is_away
        });
        begins
    }

    async fn open(&self) -> Option<Arc<Connection>> {
        let (client, standing) = (self.client.as_ref(), &self.standing);
        match Connection::open(&self.server, client, standing, &self.ground).await {
            Ok(connection) => Some(connection),
            Err(ConnectError::Closing) => None,
            Err(error) => {
                standing.failed(explained(&error));
                None
            }
        }
    }
}

/// Ends the wait for an attempt that panicked.
struct Attempt<'a>(&'a watch::Sender<Shared>);

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        self.0.send_if_modified(|shared| {
            let is_open_ended = matches!(shared, Shared::Opening);
            if is_open_ended {
                *shared = Shared::Away;
            }
            is_open_ended
        });
    }
}
