//! Chats: the one place that changes them, and the runner that takes their runs.

mod context;
mod runs;

use std::sync::Arc;
use std::time::Duration;

use musterbeat_core::chat::{Applied, Chat, ChatPatch, Event, NewChat, Report};
use musterbeat_core::id::{ChatId, OwnerId, RunId};
use musterbeat_core::port::{
    ApplyError, AwaitError, By, ChatStore, Interest, Publish, Reach, RunContext, StoreError, Topic,
    Watch,
};
use musterbeat_core::run::{RunStatus, StopCause, Token};
use tokio::time::{Instant, sleep_until};

use crate::retry::Retry;

pub use runs::ChatRuns;

/// Where chats meet the world.
#[derive(Clone)]
pub struct ChatPorts {
    /// Changes them.
    pub store: Arc<dyn ChatStore>,
    /// Tells of changes.
    pub publish: Arc<dyn Publish>,
    /// Learns of changes.
    pub watch: Arc<dyn Watch>,
}

impl ChatPorts {
    /// Meets the world through one store and one transport.
    pub fn new(store: Arc<dyn ChatStore>, notices: Arc<impl Publish + Watch + 'static>) -> Self {
        Self { store, publish: notices.clone(), watch: notices }
    }
}

/// How long somebody waits for a chat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AwaitTimes {
    /// For how long at most, when they do not say.
    pub timeout: Duration,
    /// How often they look, whatever notices say; half of it at least, by jitter.
    pub poll: Duration,
}

impl Default for AwaitTimes {
    fn default() -> Self {
        Self { timeout: Duration::from_mins(5), poll: Duration::from_secs(5) }
    }
}

/// Longest wait for a chat: who needs more waits again.
pub const AWAIT_TIMEOUT_MAX: Duration = Duration::from_hours(1);

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
    ) -> Result<Option<Chat>, StoreError> {
        let updated = self.ports.store.update(chat, reach, patch).await?;
        if let Some(chat) = &updated {
            self.ports.publish.publish(Topic::Owner, chat.owner.uuid());
        }
        Ok(updated)
    }

    /// Returns how a chat stands; see [`ChatStore::report`].
    pub async fn report(&self, chat: ChatId, reach: Reach) -> Result<Option<Report>, StoreError> {
        self.ports.store.report(chat, reach).await
    }

    /// Waits until a chat has nothing to do, for `timeout` at most; returns how it stands then.
    ///
    /// No time, or none given, means the default; more than [`AWAIT_TIMEOUT_MAX`] is cut to it.
    pub async fn wait(
        &self,
        chat: ChatId,
        reach: Reach,
        timeout: Option<Duration>,
    ) -> Result<Report, AwaitError> {
        let timeout = timeout.filter(|timeout| !timeout.is_zero()).unwrap_or(self.awaits.timeout);
        let deadline = Instant::now() + timeout.min(AWAIT_TIMEOUT_MAX);
        let interest = Interest::One(chat.uuid());
        // Before the first look: what happens after it leads to a notice.
        let mut changes = self.ports.watch.watch(Topic::Chat, interest).await?;
        loop {
            let report = self.ports.store.report(chat, reach).await?;
            let report = report.ok_or(AwaitError::NotFound)?;
            if report.is_at_rest() || deadline <= Instant::now() {
                return Ok(report);
            }
            let poll = self.awaits.poll.mul_f64(0.5 + rand::random::<f64>() / 2.0);
            tokio::select! {
                _ = changes.recv() => {}
                () = sleep_until(deadline.min(Instant::now() + poll)) => {}
            }
        }
    }

    /// Waits as [`wait`](Self::wait) does, for a chat that descends from `ancestor`.
    pub async fn wait_for_descendant(
        &self,
        ancestor: ChatId,
        descendant: ChatId,
        timeout: Option<Duration>,
    ) -> Result<Report, AwaitError> {
        let lineage = self.ports.store.ancestors(descendant).await?;
        if !lineage.descends_from(ancestor) {
            return Err(AwaitError::NotADescendant(descendant));
        }
        self.wait(descendant, Reach::Everything, timeout).await
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
