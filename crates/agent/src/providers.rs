//! Providers of models: who is asked over HTTP, in whichever dialect it speaks.
//!
//! A [`Provider`] is a [`Model`] for every name that it knows: a request says which. Dialects are
//! those of genai. What it says in logs quotes what providers answer, which may quote a key, so
//! it is asked where nobody listens: whatever matters comes back as an error.

mod answer;
mod client;
mod config;
mod failure;
mod prompt;
mod seal;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;

use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt, TryStreamExt};
use genai::ModelIden;
use genai::adapter::AdapterKind;
use secrecy::SecretString;
use tracing::instrument::WithSubscriber;
use tracing::subscriber::NoSubscriber;

use crate::error::ModelError;
use crate::model::{Delta, Model, Request};

use answer::Answer;
use failure::{Failure, Phase};

pub use config::{ProviderConfig, ProviderError, ProviderKind};

/// One who can be asked; clones share their connections.
///
/// No redirect is followed, so that no other host is shown the key. A loopback address is asked
/// without a proxy, all others as the environment says (`HTTPS_PROXY` and so on). A call has ten
/// seconds to connect and no other limit of time: who asks sets those.
#[derive(Clone)]
pub struct Provider(Arc<Inner>);

struct Inner {
    name: String,
    kind: ProviderKind,
    adapter: AdapterKind,
    key: Option<SecretString>,
    client: genai::Client,
}

impl Provider {
    /// Checks what an operator set and makes a client; nothing is asked.
    ///
    /// # Errors
    /// Refuses a name, base URL or key that cannot be used, and a kind that needs a key and has
    /// none. Fails when the client cannot be made.
    pub fn new(config: ProviderConfig) -> Result<Self, ProviderError> {
        let place = config.place()?;
        let client = client::client(&config.name, &place)?;
        let ProviderConfig { name, kind, .. } = config;
        let adapter = place.adapter;
        Ok(Self(Arc::new(Inner { name, kind, adapter, key: place.key, client })))
    }

    async fn begin(
        self,
        request: Request,
    ) -> Result<impl Stream<Item = Result<Delta, ModelError>>, ModelError> {
        let (history, options) = prompt::prompt(&request, self.0.kind, &self.0.name);
        let model = ModelIden::new(self.0.adapter, prompt::model_name(&request.config.model));
        let asking = self.0.client.exec_chat_stream(model, history, Some(&options));
        match asking.with_subscriber(NoSubscriber::new()).await {
            Ok(response) => {
                Ok(Answer::new(self, response.stream, request.config.context_limit).into_stream())
            }
            Err(error) => Err(self.failed(Failure::of(error, Phase::Request))),
        }
    }

    fn failed(&self, failure: Failure) -> ModelError {
        failure.into_error(&self.0.name, self.0.key.as_ref())
    }
}

impl Model for Provider {
    fn provider(&self) -> &str {
        &self.0.name
    }

    fn ask(&self, request: Request) -> BoxStream<'static, Result<Delta, ModelError>> {
        stream::once(self.clone().begin(request)).try_flatten().boxed()
    }
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { name, kind, .. } = &*self.0;
        f.debug_struct("Provider").field("name", name).field("kind", kind).finish_non_exhaustive()
    }
}
