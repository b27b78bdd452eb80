//! What the routes work with.

use std::sync::Arc;

use metrics_exporter_prometheus::PrometheusHandle;
use musterbeat_core::port::{ChatReader, Publish, Watch};
use musterbeat_db::PgStore;
use musterbeat_engine::agents::Agents;
use musterbeat_engine::chat::Chats;
use musterbeat_engine::parts::PartStreams;
use musterbeat_engine::refresh::Refresher;
use musterbeat_engine::runs::Runs;
use musterbeat_engine::shutdown::Shutdown;
use musterbeat_engine::workspaces::Workspaces;
use tokio_util::sync::CancellationToken;

use crate::agent_tokens::AgentTokens;
use crate::api::Followed;
use crate::cluster::Cluster;
use crate::readiness::Readiness;
use crate::revocation::Revocations;
use crate::serve::AgentParts;

/// The parts of a server that requests need. Clones share them.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) chats: Chats,
    pub(crate) chat_reader: Arc<dyn ChatReader>,
    pub(crate) store: PgStore,
    pub(crate) refresher: Refresher,
    pub(crate) publish: Arc<dyn Publish>,
    pub(crate) watch: Arc<dyn Watch>,
    pub(crate) parts: PartStreams,
    pub(crate) followed: Followed,
    pub(crate) agents: Agents,
    pub(crate) workspaces: Workspaces,
    pub(crate) runs: Runs,
    /// None unless the runner is `agent`.
    pub(crate) agent: Option<AgentParts>,
    pub(crate) agent_tokens: AgentTokens,
    pub(crate) revocations: Revocations,
    pub(crate) cluster: Cluster,
    pub(crate) readiness: Readiness,
    pub(crate) shutdown: Shutdown,
    /// Ends every event stream.
    pub(crate) streams_end: CancellationToken,
    pub(crate) metrics: PrometheusHandle,
    pub(crate) dev: bool,
}
