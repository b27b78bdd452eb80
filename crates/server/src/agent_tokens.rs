//! Who bears the token of an agent, remembered: an agent shows it every few seconds.
//!
//! Of users and admins nothing is remembered. A token that is revoked is forgotten by every
//! replica when it hears of it, within milliseconds; by one that hears nothing at the moment,
//! once it notices that, within `notify_silence` and `notify_probe_timeout`.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use async_trait::async_trait;
use musterbeat_core::id::TokenId;
use musterbeat_core::port::{Notice, StoreError, Topic, Watch};
use musterbeat_db::PgStore;
use musterbeat_db::tokens::{Bearer, TokenHash};
use musterbeat_engine::lookup::{Load, Lookup};
use musterbeat_engine::notices::watch_all;
use tokio_util::sync::CancellationToken;

use crate::identity::{self, AGENT_PREFIX, Caller};

/// Tokens that are remembered; with more, some are looked up again.
const KNOWN_MAX: NonZeroUsize = NonZeroUsize::new(50_000).expect("a constant is not zero");

/// Knows the tokens of agents. Clones share it.
#[derive(Clone)]
pub(crate) struct AgentTokens {
    bearers: Lookup<TokenHash, Bearer>,
    watch: Arc<dyn Watch>,
}

impl AgentTokens {
    pub(crate) fn new(store: PgStore, watch: Arc<dyn Watch>) -> Self {
        Self { bearers: Lookup::new(Tokens(store), KNOWN_MAX), watch }
    }

    /// Says whether `token` looks like one of an agent.
    pub(crate) fn is_one(token: &str) -> bool {
        token.starts_with(AGENT_PREFIX)
    }

    /// Returns who bears `token`, `None` when nobody does.
    pub(crate) async fn bearer(&self, token: &str) -> Result<Option<Caller>, StoreError> {
        Ok(self.bearers.get(&identity::hash(token)).await?.map(Caller::from))
    }

    /// Returns who bears `token` if that is remembered.
    pub(crate) fn known(&self, token: &str) -> Option<Caller> {
        self.bearers.known(&identity::hash(token)).map(Caller::from)
    }

    /// Forgets a token that was revoked.
    pub(crate) fn forget(&self, token: TokenId) {
        self.bearers.forget_if(|bearer| bearer.token == token);
    }

    /// Forgets tokens as they are revoked, until `end`.
    pub(crate) async fn run(self, end: CancellationToken) {
        tokio::select! {
            () = end.cancelled() => {}
            () = self.follow() => {}
        }
    }

    async fn follow(&self) {
        let mut watcher = watch_all(&*self.watch, Topic::Token).await;
        // What was revoked before the watch began was told to nobody.
        self.bearers.forget_if(|_| true);
        loop {
            match watcher.recv().await {
                Notice::Changed(ids) => {
                    self.bearers.forget_if(|bearer| ids.contains(&bearer.token.uuid()));
                }
                Notice::Resync(_) => self.bearers.forget_if(|_| true),
            }
        }
    }
}

struct Tokens(PgStore);

#[async_trait]
impl Load<TokenHash, Bearer> for Tokens {
    fn what(&self) -> &'static str {
        "agent token"
    }

    async fn load(&self, keys: &[TokenHash]) -> Result<HashMap<TokenHash, Bearer>, StoreError> {
        Ok(self.0.find_tokens(keys).await?.into_iter().collect())
    }
}
