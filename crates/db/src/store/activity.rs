//! What keeps workspaces alive.

use async_trait::async_trait;
use musterbeat_core::activity::Activity;
use musterbeat_core::port::{ActivityStore, StoreError};
use tokio::time::timeout;

use super::PgStore;
use crate::activity;

#[async_trait]
impl ActivityStore for PgStore {
    async fn touch(&self, seen: &Activity) -> Result<u64, StoreError> {
        let mut call = self.call("write where somebody works").await?;
        let touched = timeout(self.answer_time, activity::touch(&mut call.conn, seen, None)).await;
        call.ended(touched)
    }
}
