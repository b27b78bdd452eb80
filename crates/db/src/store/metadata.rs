//! Agents and what they report.

use std::collections::BTreeMap;

use async_trait::async_trait;
use musterbeat_core::id::{AgentId, DefinitionsVersion, OwnerId, TokenId};
use musterbeat_core::metadata::{Definitions, Readings};
use musterbeat_core::page::Limit;
use musterbeat_core::port::{
    Agent, AgentFacts, AgentStore, KeyedSample, MetadataStore, NewAgent, Reach, StoreError,
};
use sqlx::{Connection, PgConnection};
use tokio::time::timeout;

use super::PgStore;
use crate::{agent_metadata, agents};

#[async_trait]
impl AgentStore for PgStore {
    async fn create(&self, agent: &NewAgent) -> Result<(), StoreError> {
        let mut call = self.call("create an agent").await?;
        let created = timeout(self.answer_time, agents::insert(&mut call.conn, agent)).await;
        call.ended(created)
    }

    async fn delete(
        &self,
        agent: AgentId,
        reach: Reach,
    ) -> Result<Option<Vec<TokenId>>, StoreError> {
        let mut call = self.call("delete an agent").await?;
        let deleted = timeout(self.answer_time, delete(&mut call.conn, agent, reach)).await;
        call.ended(deleted)
    }

    async fn list(
        &self,
        owner: OwnerId,
        after: Option<AgentId>,
        limit: Limit,
    ) -> Result<Vec<Agent>, StoreError> {
        let mut call = self.call("list agents").await?;
        let list = agents::list(&mut call.conn, owner, after, limit);
        let listed = timeout(self.answer_time, list).await;
        call.ended(listed)
    }

    async fn facts(&self, agents: &[AgentId]) -> Result<BTreeMap<AgentId, AgentFacts>, StoreError> {
        let mut call = self.call("look up agents").await?;
        let found = timeout(self.answer_time, agents::facts(&mut call.conn, agents)).await;
        call.ended(found)
    }
}

#[async_trait]
impl MetadataStore for PgStore {
    async fn define(
        &self,
        agent: AgentId,
        reach: Reach,
        definitions: &Definitions,
    ) -> Result<Option<DefinitionsVersion>, StoreError> {
        let mut call = self.call("define what an agent reports").await?;
        let define = define(&mut call.conn, agent, reach, definitions);
        let defined = timeout(self.answer_time, define).await;
        call.ended(defined)
    }

    async fn write(&self, samples: &[KeyedSample]) -> Result<Vec<AgentId>, StoreError> {
        let mut call = self.call("write what agents reported").await?;
        let written =
            timeout(self.answer_time, agent_metadata::write(&mut call.conn, samples)).await;
        call.ended(written)
    }

    async fn read(
        &self,
        agents: &[AgentId],
        reach: Reach,
    ) -> Result<BTreeMap<AgentId, Readings>, StoreError> {
        let mut call = self.call("read what agents reported").await?;
        let read = agent_metadata::read(&mut call.conn, agents, reach);
        let read = timeout(self.answer_time, read).await;
        call.ended(read)
    }
}

async fn delete(
    conn: &mut PgConnection,
    agent: AgentId,
    reach: Reach,
) -> sqlx::Result<Option<Vec<TokenId>>> {
    let mut transaction = conn.begin().await?;
    agent_metadata::lock_others(&mut transaction, agent, &[]).await?;
    let deleted = agents::delete(&mut transaction, agent, reach).await?;
    transaction.commit().await?;
    Ok(deleted)
}

async fn define(
    conn: &mut PgConnection,
    agent: AgentId,
    reach: Reach,
    definitions: &Definitions,
) -> sqlx::Result<Option<DefinitionsVersion>> {
    let mut transaction = conn.begin().await?;
    let version = agents::count_definition(&mut transaction, agent, reach).await?;
    if version.is_some() {
        let kept = definitions.as_slice().iter().map(|it| it.key.as_str().to_owned());
        agent_metadata::lock_others(&mut transaction, agent, &kept.collect::<Vec<_>>()).await?;
        agent_metadata::define(&mut transaction, agent, definitions).await?;
        transaction.commit().await?;
    }
    Ok(version)
}
