//! How models are asked.

use async_trait::async_trait;
use musterbeat_core::message::Model;
use musterbeat_core::model_config::ModelConfig;
use musterbeat_core::port::{ModelConfigStore, StoreError};
use sqlx::{Connection, PgConnection};
use tokio::time::timeout;

use super::PgStore;
use crate::model_configs;

#[async_trait]
impl ModelConfigStore for PgStore {
    async fn find(&self, name: Option<Model>) -> Result<Option<ModelConfig>, StoreError> {
        let mut call = self.call("look for a model's configuration").await?;
        let find = model_configs::find(&mut call.conn, name.as_ref());
        let found = timeout(self.answer_time, find).await;
        call.ended(found)
    }

    async fn list(&self) -> Result<Vec<ModelConfig>, StoreError> {
        let mut call = self.call("list the configurations of models").await?;
        let listed = timeout(self.answer_time, model_configs::list(&mut call.conn)).await;
        call.ended(listed)
    }

    async fn put(&self, config: &ModelConfig) -> Result<bool, StoreError> {
        let mut call = self.call("store a model's configuration").await?;
        let put = timeout(self.answer_time, put(&mut call.conn, config)).await;
        call.ended(put)
    }

    async fn delete(&self, name: &Model) -> Result<bool, StoreError> {
        let mut call = self.call("delete a model's configuration").await?;
        let deleted = timeout(self.answer_time, model_configs::delete(&mut call.conn, name)).await;
        call.ended(deleted)
    }
}

async fn put(conn: &mut PgConnection, config: &ModelConfig) -> sqlx::Result<bool> {
    let mut tx = conn.begin().await?;
    model_configs::lock(&mut tx).await?;
    if config.is_default {
        model_configs::unset_default(&mut tx, &config.name).await?;
    }
    if !model_configs::put(&mut tx, config).await? {
        // What was the default stays it.
        tx.rollback().await?;
        return Ok(false);
    }
    tx.commit().await?;
    Ok(true)
}
