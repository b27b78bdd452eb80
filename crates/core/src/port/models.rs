use async_trait::async_trait;

use super::StoreError;
use crate::message::Model;
use crate::model_config::ModelConfig;

/// Keeps how models are asked.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait ModelConfigStore: Send + Sync {
    /// Returns the configuration of this name, or the default one without a name.
    async fn find(&self, name: Option<Model>) -> Result<Option<ModelConfig>, StoreError>;

    /// Returns all of them by name, [`MODELS_MAX`] at most.
    async fn list(&self) -> Result<Vec<ModelConfig>, StoreError>;

    /// Adds one, or replaces the one of its name; the last default is the only one.
    ///
    /// `false` when there are [`MODELS_MAX`] of them already, and nothing changed.
    async fn put(&self, config: &ModelConfig) -> Result<bool, StoreError>;

    /// Takes one away; `false` when there is none.
    async fn delete(&self, name: &Model) -> Result<bool, StoreError>;
}

/// Configurations of models, at most.
pub const MODELS_MAX: u32 = 1_000;
