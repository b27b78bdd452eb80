//! Waiting until a chat has nothing to do.

use std::time::Duration;

use musterbeat_core::chat::Report;
use musterbeat_core::id::ChatId;
use musterbeat_core::port::{AwaitError, Interest, Reach, RunContext, StoreError, Topic, Waiter};
use tokio::time::{Instant, sleep_until};

use super::Chats;
use crate::retry::Retry;

/// How long somebody waits for a chat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AwaitTimes {
    /// For how long at most, when they do not say.
    pub timeout: Duration,
    /// How often they look, whatever notices say: half of it at least, by jitter, and up to eight
    /// times as long while nothing happens.
    pub poll: Duration,
}

impl Default for AwaitTimes {
    fn default() -> Self {
        Self { timeout: Duration::from_mins(5), poll: Duration::from_secs(5) }
    }
}

/// Longest wait for a chat: who needs more waits again.
pub const AWAIT_TIMEOUT_MAX: Duration = Duration::from_hours(1);

/// How much longer the pause between two looks becomes while nothing is told.
///
/// A notice that is lost is made up for by the transport; who looks is the last resort, and
/// thousands of parents may wait for hours.
const POLL_GROWTH: u32 = 8;

/// Who waits for a chat.
#[derive(Clone, Copy)]
enum Who<'a> {
    /// Somebody with such a reach.
    Somebody(Reach),
    /// A run, which takes no room meanwhile, and whose owner gives up no sooner than its lease.
    Run(Waiter, &'a dyn RunContext),
}

impl Chats {
    /// Waits until a chat has nothing to do, for `timeout` at most; returns how it stands then.
    ///
    /// No time, or none given, means the default; more than [`AWAIT_TIMEOUT_MAX`] is cut to it.
    pub async fn wait(
        &self,
        chat: ChatId,
        reach: Reach,
        timeout: Option<Duration>,
    ) -> Result<Report, AwaitError> {
        self.wait_as(Who::Somebody(reach), chat, timeout).await
    }

    /// Waits as [`wait`](Self::wait) does, for a chat that descends from `ancestor`.
    pub async fn wait_for_descendant(
        &self,
        ancestor: ChatId,
        descendant: ChatId,
        timeout: Option<Duration>,
    ) -> Result<Report, AwaitError> {
        self.check_lineage(ancestor, descendant).await?;
        self.wait_as(Who::Somebody(Reach::Everything), descendant, timeout).await
    }

    /// Waits as [`wait_for_descendant`](Self::wait_for_descendant) does, for a run of its ancestor.
    pub(super) async fn wait_in_run(
        &self,
        waiter: Waiter,
        context: &dyn RunContext,
        descendant: ChatId,
        timeout: Option<Duration>,
    ) -> Result<Report, AwaitError> {
        let ancestor = ChatId::new(waiter.run.uuid());
        let mut retry = Retry::new(context);
        while let Err(error) = self.check_lineage(ancestor, descendant).await {
            match error {
                AwaitError::Store(error) => retry.wait(error).await?,
                error => return Err(error),
            }
        }
        self.wait_as(Who::Run(waiter, context), descendant, timeout).await
    }

    async fn check_lineage(&self, ancestor: ChatId, descendant: ChatId) -> Result<(), AwaitError> {
        let lineage = self.ports.store.ancestors(descendant).await?;
        if lineage.descends_from(ancestor) {
            return Ok(());
        }
        Err(AwaitError::NotADescendant(descendant))
    }

    async fn wait_as(
        &self,
        who: Who<'_>,
        chat: ChatId,
        timeout: Option<Duration>,
    ) -> Result<Report, AwaitError> {
        let timeout = timeout.filter(|timeout| !timeout.is_zero()).unwrap_or(self.awaits.timeout);
        let deadline = Instant::now() + timeout.min(AWAIT_TIMEOUT_MAX);
        let interest = Interest::One(chat.uuid());
        // Before the first look: what happens after it leads to a notice.
        let mut changes = self.ports.watch.watch(Topic::Chat, interest).await?;
        let (mut counted, mut poll) = (None, self.awaits.poll);
        loop {
            let report = self.look(who, chat).await?.ok_or(AwaitError::NotFound)?;
            if report.is_at_rest() || deadline <= Instant::now() {
                return Ok(report);
            }
            if let Who::Run(_, context) = who {
                // After the look, which told storage: what is claimed now finds room there, too.
                counted.get_or_insert_with(|| context.waiting());
            }
            let pause = poll.mul_f64(0.5 + rand::random::<f64>() / 2.0);
            tokio::select! {
                _ = changes.recv() => poll = self.awaits.poll,
                () = sleep_until(deadline.min(Instant::now() + pause)) => {
                    poll = (poll * 2).min(self.awaits.poll * POLL_GROWTH);
                }
            }
        }
    }

    async fn look(&self, who: Who<'_>, chat: ChatId) -> Result<Option<Report>, StoreError> {
        let store = &self.ports.store;
        let (waiter, context) = match who {
            Who::Somebody(reach) => return store.report(chat, reach, None).await,
            Who::Run(waiter, context) => (waiter, context),
        };
        let mut retry = Retry::new(context);
        loop {
            match store.report(chat, Reach::Everything, Some(waiter)).await {
                Err(error) => retry.wait(error).await?,
                answered => return answered,
            }
        }
    }
}
