//! Which model answers: configurations from storage, providers from the settings.

use std::array;
use std::collections::BTreeMap;
use std::error::Error;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use moka::future::Cache;
use musterbeat_core::message::Model as ModelName;
use musterbeat_core::model_config::ModelConfig;
use musterbeat_core::port::{ModelConfigStore, StoreError};
use tokio::task::JoinError;

use crate::error::{ErrorKind, ModelError};
use crate::model::{Chosen, Model, Models};

/// Longest time that a configuration is remembered, whatever the options say.
const REMEMBERED_MAX: Duration = Duration::from_hours(24);

/// Groups of names that are forgotten together.
const GROUPS: usize = 16;

/// How a [`Catalog`] remembers.
#[derive(Clone, Debug)]
pub struct CatalogOptions {
    /// How long what storage said is remembered, a day at most; five seconds, for which another
    /// replica may go on with a configuration that was changed.
    pub remembered: Duration,
    /// How many names are remembered; a thousand. Users choose names, so others may push them out.
    pub names_max: u64,
    /// The server's own configuration, which answers to its name, and to no name, where storage
    /// has none.
    pub fallback: Option<ModelConfig>,
}

impl Default for CatalogOptions {
    fn default() -> Self {
        Self { remembered: Duration::from_secs(5), names_max: 1_000, fallback: None }
    }
}

/// Finds models by the names of their configurations.
///
/// Whatever storage said is remembered for a short time, that there is no such configuration too,
/// and callers who ask for the same name at once share one look-up. Failures are not remembered.
pub struct Catalog {
    store: Arc<dyn ModelConfigStore>,
    providers: BTreeMap<String, Arc<dyn Model>>,
    fallback: Option<Arc<ModelConfig>>,
    known: Cache<Key, Found>,
    /// How often each group of names was forgotten.
    generations: [AtomicU64; GROUPS],
}

type Found = Option<Arc<ModelConfig>>;

/// What is remembered, and since when: a look-up that began before its name was forgotten stores
/// its answer where nobody looks any more.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    name: Option<String>,
    generation: u64,
}

impl Catalog {
    /// Makes one of the providers of the settings, by their names.
    pub fn new(
        store: Arc<dyn ModelConfigStore>,
        providers: BTreeMap<String, Arc<dyn Model>>,
        options: CatalogOptions,
    ) -> Self {
        let known = Cache::builder()
            .max_capacity(options.names_max)
            .time_to_live(options.remembered.min(REMEMBERED_MAX));
        Self {
            store,
            providers,
            fallback: options.fallback.map(Arc::new),
            known: known.build(),
            generations: array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    /// Forgets what is known of `name`, and which configuration is the default one: a change of
    /// this one may have moved it.
    ///
    /// Who asks after that is told of storage as it is then, though a look-up be under way.
    pub fn forget(&self, name: &ModelName) {
        for name in [Some(name), None] {
            self.generation(name).fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Forgets everything, like [`Catalog::forget`].
    pub fn forget_all(&self) {
        for generation in &self.generations {
            generation.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn generation(&self, name: Option<&ModelName>) -> &AtomicU64 {
        let mut hasher = DefaultHasher::new();
        name.map(ModelName::as_str).hash(&mut hasher);
        let group = usize::try_from(hasher.finish() % GROUPS as u64);
        &self.generations[group.expect("it is below 16")]
    }

    async fn find(&self, name: Option<&ModelName>) -> Result<Found, ModelError> {
        let key = Key {
            name: name.map(|name| name.as_str().to_owned()),
            generation: self.generation(name).load(Ordering::SeqCst),
        };
        if let Some(found) = self.known.get(&key).await {
            return Ok(found);
        }
        let (known, store, name) = (self.known.clone(), Arc::clone(&self.store), name.cloned());
        // A task of its own, which ends when storage answers or gives up: callers whose turns are
        // stopped one after another would pass the look-up on, and the cache panics at the 200th.
        let look_up = tokio::spawn(async move {
            known.try_get_with(key, async { Ok(store.find(name).await?.map(Arc::new)) }).await
        });
        match look_up.await {
            Ok(found) => found.map_err(|error: Arc<StoreError>| unread(&error)),
            Err(error) => Err(unfinished(&error)),
        }
    }

    /// Returns the server's own configuration where it answers to `name`.
    fn fallback(&self, name: Option<&ModelName>) -> Option<Arc<ModelConfig>> {
        let fallback = self.fallback.as_ref()?;
        name.is_none_or(|name| *name == fallback.name).then(|| Arc::clone(fallback))
    }
}

#[async_trait]
impl Models for Catalog {
    /// Returns the model of this name, or the default one without a name.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] says what is missing and how it is added;
    /// [`ErrorKind::Transport`] that storage cannot be reached, and may be later.
    async fn choose(&self, name: Option<&ModelName>) -> Result<Chosen, ModelError> {
        let found = self.find(name).await?;
        let config = found.or_else(|| self.fallback(name)).ok_or_else(|| unknown(name))?;
        match self.providers.get(&config.provider) {
            Some(model) => Ok(Chosen { model: Arc::clone(model), config }),
            None => Err(homeless(&config)),
        }
    }
}

fn unknown(name: Option<&ModelName>) -> ModelError {
    let message = match name {
        Some(name) => format!(
            "there is no model `{}`: name another, or add it with `PUT /api/v1/models/{0}`",
            name.as_str()
        ),
        None => "no model is named and none is the default: name one, or add one with \
                 `PUT /api/v1/models/NAME` and `is_default`"
            .to_owned(),
    };
    ours(ErrorKind::Configuration, message)
}

fn homeless(config: &ModelConfig) -> ModelError {
    let message = format!(
        "the model `{}` is of the provider `{}`, which the settings do not have: add a \
         `[[provider]]` of this name, or change `provider` with `PUT /api/v1/models/{0}`",
        config.name.as_str(),
        config.provider,
    );
    ours(ErrorKind::Configuration, message)
}

fn unread(error: &StoreError) -> ModelError {
    let kind = match error {
        StoreError::Unavailable { .. } => ErrorKind::Transport,
        StoreError::Broken { .. } => ErrorKind::Other,
    };
    // Users are not told what the database said, and nobody after this knows it.
    tracing::debug!(
        error = error as &dyn Error,
        cause = error.source(),
        "the configuration of a model was not read"
    );
    ours(kind, error.to_string())
}

/// It panicked, or the process ends.
fn unfinished(error: &JoinError) -> ModelError {
    tracing::debug!(error = error as &dyn Error, "the look-up of a model did not come to its end");
    let message = "failed to find the model: the look-up did not come to its end";
    ours(ErrorKind::Other, message.to_owned())
}

fn ours(kind: ErrorKind, message: String) -> ModelError {
    ModelError { kind, provider: "musterbeat".to_owned(), message, status: None, retry_after: None }
}

#[cfg(test)]
mod tests;
