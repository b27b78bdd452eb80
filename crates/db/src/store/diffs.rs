//! The states of chats' branches.

use async_trait::async_trait;
use musterbeat_core::diff::{ChatDiff, Reference};
use musterbeat_core::id::{ChatId, OwnerId};
use musterbeat_core::port::{DiffStore, DiffTarget, Reach, Select, StoreError};
use musterbeat_core::refresh::{HostLimit, Refreshed, StaleDiff};
use tokio::time::timeout;

use super::PgStore;
use crate::chat_diff_statuses as diffs;

#[async_trait]
impl DiffStore for PgStore {
    async fn read(&self, chats: &[ChatId], reach: Reach) -> Result<Vec<ChatDiff>, StoreError> {
        let mut call = self.call("read the states of branches").await?;
        let read = timeout(self.answer_time, diffs::read(&mut call.conn, chats, reach)).await;
        call.ended(read)
    }

    async fn mark(
        &self,
        target: DiffTarget,
        reach: Reach,
        reference: &Reference,
    ) -> Result<Vec<(ChatId, OwnerId)>, StoreError> {
        let mut call = self.call("mark branches stale").await?;
        let mark = diffs::mark(&mut call.conn, target, reach, reference, None);
        let marked = timeout(self.answer_time, mark).await;
        call.ended(marked)
    }

    async fn acquire(&self, select: Select) -> Result<Vec<StaleDiff>, StoreError> {
        let mut call = self.call("lease stale branches").await?;
        let acquire = async {
            match select {
                Select::Stale(batch) => diffs::acquire_stale(&mut call.conn, batch, None).await,
                Select::Chat(chat, reach) => {
                    let leased = diffs::acquire_one(&mut call.conn, chat, reach, None).await?;
                    Ok(leased.into_iter().collect())
                }
            }
        };
        let acquired = timeout(self.answer_time, acquire).await;
        call.ended(acquired)
    }

    async fn write(
        &self,
        refreshed: &[Refreshed],
        limits: &[HostLimit],
    ) -> Result<Vec<(ChatId, OwnerId)>, StoreError> {
        let mut call = self.call("write the states of branches").await?;
        let write = diffs::write(&mut call.conn, refreshed, limits, None);
        let written = timeout(self.answer_time, write).await;
        call.ended(written)
    }
}
