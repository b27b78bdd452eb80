//! The end of event streams whose token was revoked.
//!
//! One watcher serves all streams of a process, and one question all tokens that may be meant.

use std::collections::BTreeSet;
use std::future::pending;
use std::sync::Arc;

use musterbeat_core::id::TokenId;
use musterbeat_core::port::{Notice, Topic, Watch};
use musterbeat_db::PgStore;
use musterbeat_engine::notices::watch_all;
use musterbeat_engine::weak_map::WeakMap;
use tokio::sync::SetOnce;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::database::RETRY_BACKOFF;
use crate::http::problem::Problem;
use crate::identity::Caller;

/// The tokens of those who follow something in this process. Clones share them.
#[derive(Clone)]
pub(crate) struct Revocations(Arc<Shared>);

struct Shared {
    store: PgStore,
    watch: Arc<dyn Watch>,
    held: WeakMap<TokenId, SetOnce<()>>,
}

/// What a stream holds of its caller's token; there is none in `dev`.
pub(crate) struct Hold(Option<Arc<SetOnce<()>>>);

impl Hold {
    /// Waits until the token is seen to be revoked.
    pub(crate) async fn revoked(&self) {
        match &self.0 {
            Some(revoked) => {
                revoked.wait().await;
            }
            None => pending().await,
        }
    }
}

impl Revocations {
    pub(crate) fn new(store: PgStore, watch: Arc<dyn Watch>) -> Self {
        Self(Arc::new(Shared { store, watch, held: WeakMap::default() }))
    }

    /// Begins to watch the caller's token; refuses one that was revoked meanwhile.
    pub(crate) async fn hold(&self, caller: Caller) -> Result<Hold, Problem> {
        let hold = self.attach(caller);
        // After it is held: one that is revoked from here on is told to the hold.
        if let Some(token) = caller.token
            && self.0.store.tokens_in_force(&[token]).await?.is_empty()
        {
            return Err(Problem::token_unknown());
        }
        Ok(hold)
    }

    /// Begins to watch the caller's token, in force or not.
    pub(crate) fn attach(&self, caller: Caller) -> Hold {
        let is_fit = |revoked: &SetOnce<()>| !revoked.initialized();
        Hold(caller.token.map(|token| self.0.held.hold(token, is_fit, SetOnce::new)))
    }

    /// Ends the streams of tokens as they are revoked, until `end`.
    pub(crate) async fn run(self, end: CancellationToken) {
        tokio::select! {
            () = end.cancelled() => {}
            () = self.follow() => {}
        }
    }

    async fn follow(&self) {
        let mut watcher = watch_all(&*self.0.watch, Topic::Token).await;
        // What was revoked before the watch began was told to nobody.
        let mut doubted = self.0.held.keys();
        loop {
            self.end_revoked(&doubted).await;
            doubted = match watcher.recv().await {
                Notice::Changed(ids) => {
                    let named = ids.into_iter().map(TokenId::new);
                    named.filter(|token| self.0.held.get(token).is_some()).collect()
                }
                Notice::Resync(_) => self.0.held.keys(),
            };
        }
    }

    /// Ends the streams of those tokens that are in force no longer.
    async fn end_revoked(&self, doubted: &[TokenId]) {
        if doubted.is_empty() {
            return;
        }
        let in_force = self.in_force(doubted).await;
        for token in doubted.iter().filter(|token| !in_force.contains(token)) {
            if let Some(revoked) = self.0.held.get(token) {
                // It may have been revoked twice; once is enough.
                let _ = revoked.set(());
            }
        }
    }

    /// Asks until there is an answer; meanwhile streams go on.
    async fn in_force(&self, doubted: &[TokenId]) -> BTreeSet<TokenId> {
        let mut failures = 0;
        loop {
            match self.0.store.tokens_in_force(doubted).await {
                Ok(tokens) => return tokens.into_iter().collect(),
                Err(error) => {
                    failures += 1;
                    tracing::warn!(
                        failures,
                        error = &error as &dyn std::error::Error,
                        "tokens cannot be looked up for now"
                    );
                    sleep(RETRY_BACKOFF.delay(failures, rand::random())).await;
                }
            }
        }
    }
}
