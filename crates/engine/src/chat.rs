//! Chats: the one place that changes them, and the runner that takes their runs.

mod context;
mod kin;
mod runs;
mod wait;

use std::sync::Arc;

use musterbeat_core::chat::{Applied, Chat, ChatPatch, Event, NewChat, Report};
use musterbeat_core::id::{ChatId, OwnerId, RunId};
use musterbeat_core::port::{
    ApplyError, By, ChatReader, ChatStore, Publish, Reach, RunContext, StoreError, Topic, Watch,
};
use musterbeat_core::run::{RunStatus, StopCause, Token};

use crate::retry::Retry;

pub use runs::ChatRuns;
pub use wait::{AWAIT_TIMEOUT_MAX, AwaitTimes};

/// Where chats meet the world.
#[derive(Clone)]
pub struct ChatPorts {
    /// Changes them.
    pub store: Arc<dyn ChatStore>,
    /// Shows them.
    pub reader: Arc<dyn ChatReader>,
    /// Tells of changes.
    pub publish: Arc<dyn Publish>,
    /// Learns of changes.
    pub watch: Arc<dyn Watch>,
}

impl ChatPorts {
    /// Meets the world through one store and one transport.
    pub fn new(
        store: Arc<impl ChatStore + ChatReader + 'static>,
        notices: Arc<impl Publish + Watch + 'static>,
    ) -> Self {
        Self { store: store.clone(), reader: store, publish: notices.clone(), watch: notices }
    }
}

/// Changes chats, and publishes each change after its commit. Clones share the ports.
#[derive(Clone)]
pub struct Chats {
    ports: ChatPorts,
    awaits: AwaitTimes,
}

impl Chats {
    /// Changes the chats behind `ports`.
    pub fn new(ports: ChatPorts) -> Self {
        Self { ports, awaits: AwaitTimes::default() }
    }

    /// Sets how long somebody waits for a chat.
    #[must_use]
    pub fn with_await_times(self, awaits: AwaitTimes) -> Self {
        Self { awaits, ..self }
    }

    /// Creates a chat and wakes a worker for it; see [`ChatStore::create`].
    pub async fn create(&self, chat: NewChat, reach: Reach) -> Result<Applied, ApplyError> {
        let applied = self.ports.store.create(chat, reach).await?;
        self.changed(&applied);
        Ok(applied)
    }

    /// Applies an event to a chat; see [`ChatStore::apply`].
    pub async fn apply(&self, chat: ChatId, by: By, event: Event) -> Result<Applied, ApplyError> {
        let applied = self.ports.store.apply(chat, by, event).await?;
        self.changed(&applied);
        Ok(applied)
    }

    /// Changes what is no history of a chat; see [`ChatStore::update`].
    pub async fn update(
        &self,
        chat: ChatId,
        reach: Reach,
        patch: ChatPatch,
    ) -> Result<Option<Chat>, ApplyError> {
        let updated = self.ports.store.update(chat, reach, patch).await?;
        if let Some(chat) = &updated {
            self.ports.publish.publish(Topic::Owner, chat.owner.uuid());
        }
        Ok(updated)
    }

    /// Returns how a chat stands; see [`ChatStore::report`].
    pub async fn report(&self, chat: ChatId, reach: Reach) -> Result<Option<Report>, StoreError> {
        self.ports.store.report(chat, reach, None).await
    }

    /// Sends an owner's write again until it is answered, which is harmless: it names its step.
    ///
    /// Before each attempt it asks whether the run is still the owner's.
    async fn settle(
        &self,
        chat: ChatId,
        token: Token,
        event: Event,
        context: &dyn RunContext,
    ) -> Result<Applied, ApplyError> {
        let mut retry = Retry::new(context);
        loop {
            if !context.stop_cause().is_none_or(StopCause::allows_writes) {
                return Err(ApplyError::Fenced);
            }
            match self.apply(chat, By::Owner(token), event.clone()).await {
                Err(ApplyError::Store(error)) => retry.wait(error).await?,
                answered => return answered,
            }
        }
    }

    fn changed(&self, applied: &Applied) {
        for chat in applied.family.iter().chain([&applied.chat]) {
            let run = RunId::from(*chat).uuid();
            // First: who is told that a run changed may look at once whether it is still theirs.
            if applied.stops {
                self.ports.publish.publish(Topic::Stop, run);
            }
            self.ports.publish.publish(Topic::Chat, chat.uuid());
        }
        self.ports.publish.publish(Topic::Owner, applied.owner.uuid());
        // Whatever the event: a run that others held locked may have been passed over.
        if applied.status == RunStatus::Pending {
            self.ports.publish.publish(Topic::Pending, RunId::from(applied.chat).uuid());
        }
    }

    /// Tells that a chat's run changed hands.
    fn moved(&self, run: RunId, owner: OwnerId) {
        self.ports.publish.publish(Topic::Chat, run.uuid());
        self.ports.publish.publish(Topic::Owner, owner.uuid());
    }
}

#[cfg(test)]
mod tests;
