use std::collections::BTreeMap;

use async_trait::async_trait;

use super::{Reach, StoreError};
use crate::id::{AgentId, OwnerId, WorkspaceId};
use crate::metadata::{Definitions, Key, Reading, Sample};

/// Keeps agents, what they are to report, and what they reported last.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait MetadataStore: Send + Sync {
    /// Adds an agent; repeating it changes nothing.
    async fn create_agent(&self, agent: &NewAgent) -> Result<(), StoreError>;

    /// Replaces what an agent is to report; values of keys that are gone go with them.
    ///
    /// False when the agent is not there or out of reach.
    async fn define(
        &self,
        agent: AgentId,
        reach: Reach,
        definitions: &Definitions,
    ) -> Result<bool, StoreError>;

    /// Writes samples of defined keys that are not older than what is stored; returns whose
    /// values changed.
    ///
    /// Rows are locked in one order by all who write, so that writes of several processes wait
    /// for each other and never for ever. Repeated, it returns the same agents again.
    async fn write(&self, samples: &[KeyedSample]) -> Result<Vec<AgentId>, StoreError>;

    /// Returns what agents are to report and reported last, in the order of display.
    ///
    /// One that is not there or out of reach is absent.
    async fn read(
        &self,
        agents: &[AgentId],
        reach: Reach,
    ) -> Result<BTreeMap<AgentId, Vec<Reading>>, StoreError>;
}

/// An agent to add.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewAgent {
    /// Names it.
    pub id: AgentId,
    /// Whose it is.
    pub owner: OwnerId,
    /// Of which workspace it reports.
    pub workspace: Option<WorkspaceId>,
    /// What people call it.
    pub name: String,
}

/// A sample with what it is of.
pub type KeyedSample = ((AgentId, Key), Sample);
