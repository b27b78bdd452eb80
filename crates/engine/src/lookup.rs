//! Answers about many things, asked for one by one and looked up together.
//!
//! Whoever asks while nobody does is looked up at once; who comes meanwhile waits for the next
//! look-up, which is one call for all of them. An answer is remembered until it is forgotten:
//! whoever changes a thing says so, and what was looked up before that is not remembered.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::hash::Hash;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use lru::LruCache;
use musterbeat_core::port::StoreError;
use tokio::sync::oneshot;

use crate::metrics::{LOOKUP_ASKED, LOOKUPS};
use crate::panic::caught;

/// Things that one call looks up, at most.
const TOGETHER_MAX: usize = 1_000;

/// Looks things up.
#[async_trait]
pub trait Load<K, V>: Send + Sync {
    /// Says in errors and metrics what is looked up.
    fn what(&self) -> &'static str;

    /// Returns what is known of `keys`, each of which is there once.
    async fn load(&self, keys: &[K]) -> Result<HashMap<K, V>, StoreError>;
}

/// Looks things up together, and remembers them. Clones share it.
pub struct Lookup<K, V>(Arc<Shared<K, V>>);

impl<K, V> Clone for Lookup<K, V> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

struct Shared<K, V> {
    load: Box<dyn Load<K, V>>,
    state: Mutex<State<K, V>>,
}

struct State<K, V> {
    /// `None` when nothing is remembered.
    known: Option<LruCache<K, V>>,
    /// What was forgotten since the look-up that is under way began.
    outdated: Outdated<K>,
    waiting: Vec<(K, Answer<V>)>,
    is_loading: bool,
}

enum Outdated<K> {
    These(HashSet<K>),
    All,
}

type Answer<V> = oneshot::Sender<Result<Option<V>, Failed>>;

impl<K, V> Lookup<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + 'static,
{
    /// Remembers up to `known_max` answers; what was asked for longest ago goes first.
    pub fn new(load: impl Load<K, V> + 'static, known_max: NonZeroUsize) -> Self {
        Self::with(load, Some(LruCache::new(known_max)))
    }

    /// Remembers nothing: it only spares calls.
    pub fn without_memory(load: impl Load<K, V> + 'static) -> Self {
        Self::with(load, None)
    }

    fn with(load: impl Load<K, V> + 'static, known: Option<LruCache<K, V>>) -> Self {
        let outdated = Outdated::These(HashSet::new());
        let state = State { known, outdated, waiting: Vec::new(), is_loading: false };
        Self(Arc::new(Shared { load: Box::new(load), state: Mutex::new(state) }))
    }

    /// Returns what is known of `key`, or looks it up; `None` when there is no such thing.
    ///
    /// What was changed and forgotten before this call is not answered as it was before. Dropping
    /// the future leaves the look-up to the others who wait for it.
    ///
    /// # Errors
    /// Those of the look-up, to all who waited for it; nothing is remembered of it.
    pub async fn get(&self, key: &K) -> Result<Option<V>, StoreError> {
        metrics::counter!(LOOKUP_ASKED.name, "of" => self.0.load.what()).increment(1);
        let (answer, answered) = oneshot::channel();
        {
            let mut state = self.0.state();
            if let Some(value) = state.known.as_mut().and_then(|known| known.get(key)) {
                return Ok(Some(value.clone()));
            }
            state.waiting.push((key.clone(), answer));
            if !std::mem::replace(&mut state.is_loading, true) {
                tokio::spawn(Arc::clone(&self.0).load_waiting());
            }
        }
        match answered.await {
            Ok(answer) => answer.map_err(|failed| failed.into_error(self.0.load.what())),
            // The runtime ends, and the task that looks up with it.
            Err(ended) => Err(unavailable(self.0.load.what(), ended)),
        }
    }

    /// Returns what is remembered of `key`, and looks nothing up.
    pub fn known(&self, key: &K) -> Option<V> {
        self.0.state().known.as_ref()?.peek(key).cloned()
    }

    /// Forgets what is known of `key`.
    pub fn forget(&self, key: &K) {
        let mut state = self.0.state();
        if state.is_loading
            && let Outdated::These(keys) = &mut state.outdated
        {
            keys.insert(key.clone());
        }
        if let Some(known) = &mut state.known {
            known.pop(key);
        }
    }

    /// Forgets what `is_meant` returns true for.
    pub fn forget_if(&self, is_meant: impl Fn(&V) -> bool) {
        let mut state = self.0.state();
        state.outdated = Outdated::All;
        if let Some(known) = &mut state.known {
            let meant = known.iter().filter(|(_, value)| is_meant(value));
            let meant: Vec<K> = meant.map(|(key, _)| key.clone()).collect();
            for key in &meant {
                known.pop(key);
            }
        }
    }
}

impl<K, V> Shared<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + 'static,
{
    /// Looks up what waits until nothing does.
    async fn load_waiting(self: Arc<Self>) {
        loop {
            let asked: Vec<_> = {
                let mut state = self.state();
                if state.waiting.is_empty() {
                    state.is_loading = false;
                    return;
                }
                let count = state.waiting.len().min(TOGETHER_MAX);
                state.outdated = Outdated::These(HashSet::new());
                state.waiting.drain(..count).collect()
            };
            let keys: HashSet<&K> = asked.iter().map(|(key, _)| key).collect();
            let keys: Vec<K> = keys.into_iter().cloned().collect();
            let what = self.load.what();
            metrics::counter!(LOOKUPS.name, "of" => what).increment(1);
            // A panic must not leave those who wait to themselves.
            let loaded = match caught(what, self.load.load(&keys)).await {
                Ok(Ok(loaded)) => Ok(loaded),
                Ok(Err(error)) => Err(Failed::Store(Arc::new(error))),
                Err(panic) => Err(Failed::Panicked(panic)),
            };
            if let Ok(loaded) = &loaded {
                self.state().remember(loaded);
            }
            for (key, answer) in asked {
                let found = loaded.as_ref().map(|loaded| loaded.get(&key).cloned());
                // Who does not wait any more needs no answer.
                let _ = answer.send(found.map_err(Clone::clone));
            }
        }
    }
}

impl<K: Clone + Eq + Hash, V: Clone> State<K, V> {
    /// Remembers what was looked up, but for what was forgotten meanwhile.
    fn remember(&mut self, loaded: &HashMap<K, V>) {
        let (Some(known), Outdated::These(outdated)) = (&mut self.known, &self.outdated) else {
            return;
        };
        for (key, value) in loaded.iter().filter(|(key, _)| !outdated.contains(key)) {
            known.put(key.clone(), value.clone());
        }
    }
}

impl<K, V> Shared<K, V> {
    fn state(&self) -> MutexGuard<'_, State<K, V>> {
        // No step of a change panics halfway, so it is whole even if its lock is poisoned.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why a look-up failed, for all who waited for it.
#[derive(Clone)]
enum Failed {
    Store(Arc<StoreError>),
    Panicked(String),
}

impl Failed {
    fn into_error(self, what: &'static str) -> StoreError {
        match self {
            Self::Store(error) => {
                let source = Box::new(Together(Arc::clone(&error)));
                match *error {
                    StoreError::Unavailable { operation, .. } => {
                        StoreError::Unavailable { operation, source }
                    }
                    StoreError::Broken { operation, .. } => {
                        StoreError::Broken { operation, source }
                    }
                }
            }
            Self::Panicked(text) => StoreError::Broken { operation: what, source: text.into() },
        }
    }
}

/// One error of several who asked.
#[derive(Debug)]
struct Together(Arc<StoreError>);

impl fmt::Display for Together {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a look-up for several who asked failed")
    }
}

impl std::error::Error for Together {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        std::error::Error::source(&*self.0)
    }
}

fn unavailable(
    operation: &'static str,
    source: impl std::error::Error + Send + Sync + 'static,
) -> StoreError {
    StoreError::Unavailable { operation, source: Box::new(source) }
}

#[cfg(test)]
mod tests;
