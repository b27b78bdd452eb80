//! Agents: what they are to report, what they reported, and who watches it.
//!
//! A report costs no statement: what must be known of its agent is remembered, and forgotten as
//! soon as somebody changes it. Its values go to the [`MetadataBatcher`].

mod watching;

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use musterbeat_core::id::{AgentId, DefinitionsVersion, OwnerId};
use musterbeat_core::metadata::{self, Definitions, Readings, Reported};
use musterbeat_core::page::Limit;
use musterbeat_core::port::{
    Agent, AgentFacts, AgentStore, MetadataStore, NewAgent, Notice, Publish, Reach, StoreError,
    Topic, Watch,
};
use musterbeat_core::timestamp::Timestamp;
use tokio_util::sync::CancellationToken;

use self::watching::Watching;
pub use self::watching::{MetadataWatcher, UPDATE_PAUSE};
use crate::activity::ActivityTracker;
use crate::lookup::{Load, Lookup};
use crate::metadata::MetadataBatcher;
use crate::notices::watch_all;

/// Agents of which it is remembered what they are to report; with more, some are looked up again.
const KNOWN_MAX: NonZeroUsize = NonZeroUsize::new(50_000).expect("a constant is not zero");

/// What agents need.
#[derive(Clone)]
pub struct AgentPorts {
    /// Keeps agents.
    pub agents: Arc<dyn AgentStore>,
    /// Keeps what they report.
    pub metadata: Arc<dyn MetadataStore>,
    /// Tells others of changes.
    pub publish: Arc<dyn Publish>,
    /// Tells of changes of others.
    pub watch: Arc<dyn Watch>,
    /// Takes what they report.
    pub batcher: MetadataBatcher,
    /// Learns that they report.
    pub activity: ActivityTracker,
}

/// Makes of what an agent reported what its watchers are sent; called once for all of them.
pub type Encode = fn(&Readings) -> Bytes;

/// Knows agents, takes their reports and shows them. Clones share it.
#[derive(Clone)]
pub struct Agents {
    ports: AgentPorts,
    facts: Lookup<AgentId, AgentFacts>,
    watching: Watching,
}

/// What became of a report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Receipt {
    /// How many keys will be stored.
    pub accepted: usize,
    /// Keys of which something else is stored than was sent, and why.
    pub altered: Vec<(String, String)>,
    /// Keys that are not stored.
    pub refused: Vec<Refusal>,
    /// Counts the changes of what the agent is to report.
    pub version: DefinitionsVersion,
}

/// A key that is not stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The key, or its beginning.
    pub key: String,
    /// Why it is not stored.
    pub reason: String,
    /// Whether the same may be taken later.
    pub retryable: bool,
}

impl Agents {
    /// Nobody reports and nobody watches.
    pub fn new(ports: AgentPorts, encode: Encode) -> Self {
        let load = FactsOf(Arc::clone(&ports.agents));
        let watching = Watching::new(Arc::clone(&ports.metadata), encode);
        Self { ports, facts: Lookup::new(load, KNOWN_MAX), watching }
    }

    /// Adds an agent and its token; repeating it changes nothing.
    pub async fn create(&self, agent: &NewAgent) -> Result<(), StoreError> {
        self.ports.agents.create(agent).await
    }

    /// Takes an agent away and revokes its tokens; false when it is not there or out of reach.
    pub async fn delete(&self, agent: AgentId, reach: Reach) -> Result<bool, StoreError> {
        let Some(tokens) = self.ports.agents.delete(agent, reach).await? else { return Ok(false) };
        for token in tokens {
            self.ports.publish.publish(Topic::Token, token.uuid());
        }
        self.redefined(agent);
        Ok(true)
    }

    /// Returns an owner's agents, the youngest first; those that are older than `after`.
    pub async fn list(
        &self,
        owner: OwnerId,
        after: Option<AgentId>,
        limit: Limit,
    ) -> Result<Vec<Agent>, StoreError> {
        self.ports.agents.list(owner, after, limit).await
    }

    /// Replaces what an agent is to report; `None` when it is not there or out of reach.
    pub async fn define(
        &self,
        agent: AgentId,
        reach: Reach,
        definitions: &Definitions,
    ) -> Result<Option<DefinitionsVersion>, StoreError> {
        let version = self.ports.metadata.define(agent, reach, definitions).await?;
        if version.is_some() {
            self.redefined(agent);
        }
        Ok(version)
    }

    /// Takes a report, which came at `now`; `None` when its agent is not there or out of reach.
    ///
    /// Nothing waits for the write. What is accepted will be stored unless something newer comes
    /// first, or the process dies, or the key is taken from the definitions meanwhile. The agent's
    /// workspace counts as used, even if nothing of the report is accepted.
    pub async fn report(
        &self,
        agent: AgentId,
        reach: Reach,
        report: Vec<Reported>,
        now: Timestamp,
    ) -> Result<Option<Receipt>, StoreError> {
        let Some(facts) = self.within(agent, reach).await? else { return Ok(None) };
        if let Some(workspace) = facts.workspace {
            self.ports.activity.agent_reported(workspace, facts.owner, now);
        }
        let checked = metadata::check(report, |key| facts.keys.contains(key), now);
        let mut accepted = checked.accepted.len();
        let final_refusals = checked.refused.into_iter();
        let mut refused: Vec<Refusal> =
            final_refusals.map(|(key, reason)| Refusal { key, reason, retryable: false }).collect();
        let no_room = self.ports.batcher.report(agent, checked.accepted);
        accepted -= no_room.len();
        refused.extend(no_room.into_iter().map(|key| Refusal {
            key: key.as_str().to_owned(),
            reason: "too much waits to be stored; send it again later".to_owned(),
            retryable: true,
        }));
        let stands = |key: &str| refused.iter().all(|refusal| refusal.key != key);
        let altered = checked.altered.into_iter().filter(|(key, _)| stands(key)).collect();
        Ok(Some(Receipt { accepted, altered, refused, version: facts.version }))
    }

    /// Returns what an agent is to report and reported last; `None` when it is not there or out
    /// of reach.
    pub async fn read(&self, agent: AgentId, reach: Reach) -> Result<Option<Readings>, StoreError> {
        Ok(self.ports.metadata.read(&[agent], reach).await?.remove(&agent))
    }

    /// Begins to watch what an agent reports; `None` when it is not there or out of reach.
    pub async fn watch(
        &self,
        agent: AgentId,
        reach: Reach,
    ) -> Result<Option<MetadataWatcher>, StoreError> {
        if self.within(agent, reach).await?.is_none() {
            return Ok(None);
        }
        self.watching.watch(agent).await
    }

    /// Follows changes until `end`: those of definitions, and those of values for who watches.
    pub async fn run(self, end: CancellationToken) {
        let follow = async {
            tokio::join!(self.follow_definitions(), self.watching.follow(&*self.ports.watch))
        };
        tokio::select! {
            () = end.cancelled() => {}
            _ = follow => {}
        }
    }

    async fn follow_definitions(&self) {
        let mut watcher = watch_all(&*self.ports.watch, Topic::Definitions).await;
        // What changed before the watch began was told to nobody.
        self.facts.forget_if(|_| true);
        loop {
            match watcher.recv().await {
                Notice::Changed(agents) => {
                    for agent in agents {
                        self.facts.forget(&AgentId::new(agent));
                    }
                }
                Notice::Resync(_) => self.facts.forget_if(|_| true),
            }
        }
    }

    /// Returns what must be known of an agent, if it is within reach.
    async fn within(&self, agent: AgentId, reach: Reach) -> Result<Option<AgentFacts>, StoreError> {
        let facts = self.facts.get(&agent).await?;
        Ok(facts.filter(|facts| match reach {
            Reach::Everything => true,
            Reach::Of(owner) => owner == facts.owner,
        }))
    }

    /// Tells that what an agent is to report changed; whoever reports here next sees it.
    fn redefined(&self, agent: AgentId) {
        self.facts.forget(&agent);
        self.ports.publish.publish(Topic::Definitions, agent.uuid());
        self.ports.publish.publish(Topic::Agent, agent.uuid());
    }
}

struct FactsOf(Arc<dyn AgentStore>);

#[async_trait]
impl Load<AgentId, AgentFacts> for FactsOf {
    fn what(&self) -> &'static str {
        "agent"
    }

    async fn load(&self, keys: &[AgentId]) -> Result<HashMap<AgentId, AgentFacts>, StoreError> {
        Ok(self.0.facts(keys).await?.into_iter().collect())
    }
}

#[cfg(test)]
mod tests;
