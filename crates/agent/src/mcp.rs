//! Tools of MCP servers, which are programs or are called over HTTP.
//!
//! An operator names the servers, and which of their tools are offered; a chat has no say in it,
//! so children have the same as their parents. What a server offers is told to models as
//! `SERVER__TOOL`.
//!
//! A server that is away takes nothing from a turn but the time of one attempt: the turn goes on
//! without its tools, and the next attempt is made after a pause that grows. A call whose
//! connection breaks in the middle ends in an error that says that its outcome is unknown; it is
//! never made twice.
//!
//! ```no_run
//! use musterbeat_agent::mcp::{Allow, McpEndpoint, McpServer, McpToolkit, McpTransport};
//!
//! # async fn example() -> Result<(), musterbeat_core::invalid::Invalid> {
//! let endpoint = McpEndpoint {
//!     url: "https://issues.example.org/mcp".into(),
//!     headers: [("authorization".to_owned(), "Bearer …".into())].into(),
//!     headers_file: None,
//! };
//! let allow = Allow::new(&["read_*".to_owned(), "search".to_owned()])?;
//! let issues = McpServer::new("issues", McpTransport::Http(endpoint), allow);
//!
//! // A `Toolkit` for agents, which the process closes at its end.
//! let toolkit = McpToolkit::new(vec![issues])?;
//! println!("{:?}", toolkit.health());
//! toolkit.close().await;
//! # Ok(())
//! # }
//! ```

mod allow;
mod call;
mod config;
mod connection;
mod content;
mod ear;
mod environment;
mod headers;
mod link;
mod name;
mod offer;
mod process;
mod standing;
mod stderr;
mod table;
#[cfg(test)]
mod tests;
mod wire;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;
use musterbeat_core::invalid::Invalid;
use musterbeat_core::port::ChatTurn;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use self::allow::{Allow, PATTERN_BYTES_MAX, PATTERNS_MAX};
pub use self::config::{
    CALL_TIMEOUT, CALL_TIMEOUT_MAX, CONNECT_TIMEOUT, CONNECT_TIMEOUT_MAX, Lifetime, McpEndpoint,
    McpProgram, McpServer, McpTransport, SERVER_NAME_BYTES_MAX, SERVERS_MAX,
};
pub use self::offer::{DESCRIPTION_BYTES_MAX, SCHEMA_BYTES_MAX, TOOLS_MAX};
pub use self::standing::{McpHealth, McpState};

use self::call::McpTool;
use self::connection::{END_TIME_MAX, Ground};
use self::link::Link;
use crate::tool::{Tool, Toolkit};

/// Time that [`McpToolkit::close`] takes, at most: the last words of all connections at once.
pub const CLOSE_TIME_MAX: Duration = END_TIME_MAX.saturating_add(Duration::from_secs(2));

/// Offers the tools of MCP servers to turns.
///
/// Nothing is connected before a turn asks. Dropping it, and the tools that it gave out, ends its
/// connections in the background; [`close`](Self::close) waits for that.
#[derive(Debug)]
pub struct McpToolkit {
    links: Vec<Arc<Link>>,
    ground: Ground,
}

impl McpToolkit {
    /// Takes over at most [`SERVERS_MAX`] servers.
    ///
    /// # Errors
    /// Names the server and the field that is not within its limits, or the name that is used
    /// twice.
    pub fn new(servers: Vec<McpServer>) -> Result<Self, Invalid> {
        if SERVERS_MAX < servers.len() {
            let count = servers.len();
            let reason = format!("has {count} servers, at most {SERVERS_MAX} are allowed");
            return Err(Invalid::new("mcp", reason));
        }
        let mut names = HashSet::new();
        if let Some(twice) = servers.iter().find(|server| !names.insert(server.name.as_str())) {
            let reason = format!("`{}` is used twice: keep one of the two", twice.name);
            return Err(Invalid::new("mcp.name", reason));
        }
        let ground = Ground { tasks: TaskTracker::new(), closing: CancellationToken::new() };
        let links = servers.into_iter().map(|server| Link::new(server, ground.clone()));
        let links = links.map(|link| link.map(Arc::new)).collect::<Result<_, _>>()?;
        Ok(Self { links, ground })
    }

    /// Returns how each server stands, in their order.
    pub fn health(&self) -> Vec<McpHealth> {
        self.links.iter().map(|link| link.standing().health()).collect()
    }

    /// Ends all connections, and waits until they have ended, for [`CLOSE_TIME_MAX`] at most.
    ///
    /// Calls on their way fail, and turns get no tools from then on. A second call does nothing
    /// more. When the future is dropped the connections end all the same.
    pub async fn close(&self) {
        self.ground.closing.cancel();
        self.ground.tasks.close();
        if timeout(CLOSE_TIME_MAX, self.ground.tasks.wait()).await.is_err() {
            tracing::warn!(
                connections.count = self.ground.tasks.len(),
                "connections to MCP servers did not end in time and were left"
            );
        }
    }
}

#[async_trait]
impl Toolkit for McpToolkit {
    async fn open(&self, _turn: &ChatTurn) -> Vec<Arc<dyn Tool>> {
        join_all(self.links.iter().map(tools)).await.concat()
    }
}

/// Returns the tools of a server, none when it is away.
async fn tools(link: &Arc<Link>) -> Vec<Arc<dyn Tool>> {
    let Some(connection) = link.connection().await else { return Vec::new() };
    let own = (link.server().lifetime == Lifetime::Run).then(|| Arc::clone(&connection));
    let tool = |offer: &Arc<_>| -> Arc<dyn Tool> {
        let (offer, link) = (Arc::clone(offer), Arc::clone(link));
        Arc::new(McpTool { offer, link, own: own.clone() })
    };
    connection.offers().iter().map(tool).collect()
}
