//! What an MCP server may say of itself.

use std::sync::Arc;

use rmcp::model::{ClientCapabilities, ClientConfig, Implementation, ProtocolVersion};
use rmcp::service::NotificationContext;
use rmcp::{ClientHandler, RoleClient};
use tokio::sync::Notify;

/// Listens to an MCP server: it hears that tools changed, and grants nothing.
///
/// The server is told that there is neither a model, nor a person, nor a folder to ask for.
#[derive(Clone, Default)]
pub(super) struct Ear {
    /// Told when the list of tools changed; several changes are one.
    pub(super) changed: Arc<Notify>,
}

impl ClientHandler for Ear {
    fn get_info(&self) -> ClientConfig {
        let name = Implementation::new("musterbeat", env!("CARGO_PKG_VERSION"));
        ClientConfig::new(ClientCapabilities::default(), name)
            // The newest that begins with a handshake, which all servers know.
            .with_protocol_version(ProtocolVersion::LATEST_WITH_INITIALIZE)
    }

    async fn on_tool_list_changed(&self, _context: NotificationContext<RoleClient>) {
        self.changed.notify_one();
    }
}
