//! Ours: the product's reconciler on the product's store.

use std::num::NonZeroU32;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use musterbeat_core::port::PrebuildLead;
use musterbeat_core::prebuild::Limits;
use musterbeat_db::PgStore;
use musterbeat_engine::prebuild::{
    INTERVAL, LOOKBACK, PREBUILD_HISTORY, ReconcileOptions, ReconcilePorts, Reconciler,
    WORKSPACE_HISTORY,
};
use musterbeat_pubsub::MemoryTransport;
use sqlx::PgPool;

use super::way::Cycle;

/// A reconciler with a limit of its own.
pub(super) struct Ours(Reconciler);

impl Ours {
    /// Works on so many presets at once; `lead` is shared by all who use one database.
    pub(super) fn new(pool: &PgPool, lead: Arc<dyn PrebuildLead>, concurrency: NonZeroU32) -> Self {
        let transport = MemoryTransport::default();
        let ports = ReconcilePorts {
            lead,
            prebuilds: Arc::new(PgStore::new(pool.clone())),
            publish: Arc::new(transport.clone()),
            watch: Arc::new(transport),
        };
        let options = ReconcileOptions {
            interval: INTERVAL,
            limits: Limits::DEFAULT,
            lookback: LOOKBACK,
            prebuild_history: PREBUILD_HISTORY,
            workspace_history: WORKSPACE_HISTORY,
            concurrency,
        };
        Self(Reconciler::new(ports, options))
    }
}

#[async_trait]
impl Cycle for Ours {
    async fn cycle(&self) -> Result<u64> {
        let stats = self.0.reconcile_all().await.context("ours could not look at the pools")?;
        ensure!(stats.leads, "somebody else leads in this database");
        Ok(stats.presets_reconciled)
    }
}
