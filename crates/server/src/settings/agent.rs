//! Settings of the runner `agent`: whom it asks, with which key.

use anyhow::Context;
use musterbeat_agent::mcp::McpToolkit;
use musterbeat_agent::providers::{ProviderConfig, ProviderKind};
use musterbeat_core::chat::{SubagentBounds, SubagentPolicy};
use musterbeat_core::message::Model;
use musterbeat_core::model_config::ModelConfig;
use secrecy::SecretString;
use serde::Deserialize;

use super::{KeyFile, RunnerChoice, Settings};

/// Provider of the model that the settings name themselves.
pub const DEFAULT_PROVIDER: &str = "default";

/// Somebody who answers for models.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProviderSettings {
    /// What configurations of models call it.
    pub name: String,
    /// What it speaks.
    #[serde(default)]
    pub kind: ProviderKind,
    /// Where it is, if that does not follow from its kind.
    #[serde(default)]
    pub url: Option<String>,
    /// The key for it.
    #[serde(default)]
    pub key: Option<SecretString>,
    /// A file that holds the key.
    #[serde(default)]
    pub key_file: Option<KeyFile>,
    /// A variable of the environment that holds the key.
    #[serde(default)]
    pub key_env: Option<String>,
}

impl ProviderSettings {
    /// Returns it with its key; `names` are what key and file are called where they are set.
    fn config(&self, names: [&str; 2]) -> anyhow::Result<ProviderConfig> {
        let [key, file] = names;
        let given = [self.key.is_some(), self.key_file.is_some(), self.key_env.is_some()];
        anyhow::ensure!(
            given.into_iter().filter(|given| *given).count() <= 1,
            "more than one of `{key}`, `{file}` and `key_env` is set; keep one"
        );
        let key = match (&self.key, &self.key_file, &self.key_env) {
            (Some(key), _, _) => Some(key.clone()),
            (_, Some(held), _) => Some(held.key().with_context(|| format!("`{file}`"))?),
            (_, _, Some(variable)) => {
                let key = std::env::var(variable);
                Some(key.with_context(|| format!("`key_env`: {variable} is not set"))?.into())
            }
            _ => None,
        };
        let Self { name, kind, url, .. } = self.clone();
        Ok(ProviderConfig { name, kind, base_url: url, key })
    }
}

impl Settings {
    /// Returns whom the runner `agent` may ask, with their keys.
    ///
    /// # Errors
    /// Names the provider whose key is not to be had, and one that is there twice.
    pub fn providers(&self) -> anyhow::Result<Vec<ProviderConfig>> {
        let has_key = self.model_key.is_some() || self.model_key_file.is_some();
        let own = self.model_url.is_some() || self.model.is_some() || has_key;
        let own = own.then(|| ProviderSettings {
            name: DEFAULT_PROVIDER.to_owned(),
            kind: self.model_kind,
            url: self.model_url.clone(),
            key: self.model_key.clone(),
            key_file: self.model_key_file.clone(),
            key_env: None,
        });
        let own = own.iter().map(|own| (own, ["model_key", "model_key_file"]));
        let further = self.provider.iter().map(|further| (further, ["key", "key_file"]));
        let mut configs = Vec::<ProviderConfig>::new();
        for (settings, names) in own.chain(further) {
            let name = &settings.name;
            anyhow::ensure!(
                !name.trim().is_empty() && configs.iter().all(|config| config.name != *name),
                "`provider`: the name {name:?} is empty or taken; each needs one of its own"
            );
            let config =
                settings.config(names).with_context(|| format!("the provider {name:?}"))?;
            configs.push(config);
        }
        Ok(configs)
    }

    /// Returns the model of chats that name none, unless a stored configuration is the default.
    ///
    /// # Errors
    /// Names what is wrong with its name.
    pub fn own_model(&self) -> anyhow::Result<Option<ModelConfig>> {
        let Some(name) = &self.model else { return Ok(None) };
        let model = Model::new(name.clone()).context("`model`")?;
        let mut config = ModelConfig::new(model, DEFAULT_PROVIDER, name.clone());
        config.context_limit = self.model_context.map(std::num::NonZeroU32::get);
        config.check().context("`model_context`")?;
        Ok(Some(config))
    }

    /// Returns how far families of chats may grow.
    pub fn subagents(&self) -> SubagentPolicy {
        SubagentPolicy {
            default: SubagentBounds {
                depth_max: self.subagent_depth_max,
                at_work_max: self.subagents_max,
            },
            bound: SubagentBounds {
                depth_max: self.subagent_depth_limit,
                at_work_max: self.subagents_limit,
            },
        }
    }

    pub(super) fn agent_checked(&self) -> anyhow::Result<()> {
        if self.runner != RunnerChoice::Agent {
            return Ok(());
        }
        self.own_model()?;
        anyhow::ensure!(
            !self.providers()?.is_empty(),
            "the runner `agent` has nobody to ask; set `model_url` and `model`, such as \
             MUSTERBEAT_MODEL_URL=http://127.0.0.1:11434/v1 MUSTERBEAT_MODEL=qwen3, or a \
             [[provider]]"
        );
        // Nothing is connected before a turn asks.
        McpToolkit::new(self.mcp.clone()).context("`mcp`")?;
        Ok(())
    }
}
