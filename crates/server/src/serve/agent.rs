//! The runner `agent`, as the settings say.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::Context;
use musterbeat_agent::agent::{Agent, AgentOptions};
use musterbeat_agent::catalog::{Catalog, CatalogOptions};
use musterbeat_agent::guard::GuardTimes;
use musterbeat_agent::mcp::McpToolkit;
use musterbeat_agent::model::{Model, Models};
use musterbeat_agent::providers::Provider;
use musterbeat_agent::subagents::Subagents;
use musterbeat_agent::tool::Toolkit;
use musterbeat_core::port::ChatRunner;
use musterbeat_db::PgStore;

use crate::settings::Settings;

/// What the runner `agent` shares with the routes that show and change it.
#[derive(Clone)]
pub(crate) struct AgentParts {
    pub(crate) catalog: Arc<Catalog>,
    pub(crate) mcp: Arc<McpToolkit>,
}

impl AgentParts {
    pub(super) fn new(settings: &Settings, store: &PgStore) -> anyhow::Result<Self> {
        let mut providers = BTreeMap::<String, Arc<dyn Model>>::new();
        for config in settings.providers()? {
            let name = config.name.clone();
            let provider = Provider::new(config);
            let provider = provider.with_context(|| format!("the provider {name:?}"))?;
            providers.insert(name, Arc::new(provider));
        }
        let options =
            CatalogOptions { fallback: settings.own_model()?, ..CatalogOptions::default() };
        Ok(Self {
            catalog: Arc::new(Catalog::new(Arc::new(store.clone()), providers, options)),
            mcp: Arc::new(McpToolkit::new(settings.mcp.clone())?),
        })
    }

    /// Returns the runner.
    pub(super) fn runner(&self, settings: &Settings) -> Arc<dyn ChatRunner> {
        let mcp: Arc<dyn Toolkit> = Arc::<McpToolkit>::clone(&self.mcp);
        let toolkits: Vec<Arc<dyn Toolkit>> = vec![Arc::new(Subagents), mcp];
        let options = AgentOptions {
            instructions: settings.agent_instructions.clone(),
            guard: GuardTimes {
                first: settings.model_start_timeout,
                silence: settings.model_silence_timeout,
            },
            ..AgentOptions::default()
        };
        let catalog: Arc<dyn Models> = Arc::<Catalog>::clone(&self.catalog);
        Arc::new(Agent::new(catalog, toolkits, options))
    }
}
