use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;

use super::{Reach, StoreError};
use crate::id::{AgentId, DefinitionsVersion, OwnerId, TokenId, WorkspaceId};
use crate::metadata::{Definitions, Key, Readings, Sample};
use crate::page::Limit;
use crate::timestamp::Timestamp;

/// Keeps agents.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait AgentStore: Send + Sync {
    /// Adds an agent and its token; repeating it changes nothing.
    async fn create(&self, agent: &NewAgent) -> Result<(), StoreError>;

    /// Takes an agent away with all that belongs to it, and revokes its tokens; returns those.
    ///
    /// `None` when it is not there or out of reach.
    async fn delete(
        &self,
        agent: AgentId,
        reach: Reach,
    ) -> Result<Option<Vec<TokenId>>, StoreError>;

    /// Returns an owner's agents, the youngest first; those that are older than `after`.
    async fn list(
        &self,
        owner: OwnerId,
        after: Option<AgentId>,
        limit: Limit,
    ) -> Result<Vec<Agent>, StoreError>;

    /// Returns what must be known of agents to take their reports; one that is not there is absent.
    async fn facts(&self, agents: &[AgentId]) -> Result<BTreeMap<AgentId, AgentFacts>, StoreError>;
}

/// Keeps what agents are to report, and what they reported last.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait MetadataStore: Send + Sync {
    /// Replaces what an agent is to report; values of keys that are gone go with them.
    ///
    /// `None` when the agent is not there or out of reach.
    async fn define(
        &self,
        agent: AgentId,
        reach: Reach,
        definitions: &Definitions,
    ) -> Result<Option<DefinitionsVersion>, StoreError>;

    /// Writes samples of defined keys that are not older than what is stored; returns whose
    /// values changed.
    ///
    /// Rows are locked in one order by all who write, so that writes of several processes wait
    /// for each other and never for ever. Repeated, it returns the same agents again. A time that
    /// the database's clock has not reached is taken down to it: a process whose clock is ahead
    /// does not shut out those that come after it.
    async fn write(&self, samples: &[KeyedSample]) -> Result<Vec<AgentId>, StoreError>;

    /// Returns what agents are to report and reported last.
    ///
    /// One that is not there or out of reach is absent.
    async fn read(
        &self,
        agents: &[AgentId],
        reach: Reach,
    ) -> Result<BTreeMap<AgentId, Readings>, StoreError>;
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
    /// Names its token, for revoking.
    pub token: TokenId,
    /// The SHA-256 of its token.
    pub token_hash: [u8; 32],
}

/// An agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// Names it.
    pub id: AgentId,
    /// Whose it is.
    pub owner: OwnerId,
    /// Of which workspace it reports.
    pub workspace: Option<WorkspaceId>,
    /// What people call it.
    pub name: String,
    /// When it was created.
    pub created_at: Timestamp,
}

/// What must be known of an agent to take its reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentFacts {
    /// Whose it is.
    pub owner: OwnerId,
    /// Of which workspace it reports.
    pub workspace: Option<WorkspaceId>,
    /// Counts the changes of its definitions.
    pub version: DefinitionsVersion,
    /// What it is to report; shared, since it is looked at with each report.
    pub keys: Arc<BTreeSet<Key>>,
}

/// A sample with what it is of.
pub type KeyedSample = ((AgentId, Key), Sample);
