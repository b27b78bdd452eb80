//! Agents and what they report.

use std::collections::BTreeMap;

use async_trait::async_trait;
use musterbeat_core::id::AgentId;
use musterbeat_core::metadata::{Definitions, Reading};
use musterbeat_core::port::{KeyedSample, MetadataStore, NewAgent, Reach, StoreError};
use sqlx::{Connection, PgConnection};
use tokio::time::timeout;

use super::PgStore;
use crate::agent_metadata;

#[async_trait]
impl MetadataStore for PgStore {
    async fn create_agent(&self, agent: &NewAgent) -> Result<(), StoreError> {
        let mut call = self.call("create an agent").await?;
        let created =
            timeout(self.answer_time, agent_metadata::insert(&mut call.conn, agent)).await;
        call.ended(created)
    }

    async fn define(
        &self,
        agent: AgentId,
        reach: Reach,
        definitions: &Definitions,
    ) -> Result<bool, StoreError> {
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
    ) -> Result<BTreeMap<AgentId, Vec<Reading>>, StoreError> {
        let mut call = self.call("read what agents reported").await?;
        let read = agent_metadata::read(&mut call.conn, agents, reach);
        let read = timeout(self.answer_time, read).await;
        call.ended(read)
    }
}

async fn define(
    conn: &mut PgConnection,
    agent: AgentId,
    reach: Reach,
    definitions: &Definitions,
) -> sqlx::Result<bool> {
    let mut transaction = conn.begin().await?;
    if !agent_metadata::lock(&mut transaction, agent, reach).await? {
        return Ok(false);
    }
    agent_metadata::define(&mut transaction, agent, definitions).await?;
    transaction.commit().await?;
    Ok(true)
}
