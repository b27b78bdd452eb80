//! Keeps what is known of chats' branches fresh.
//!
//! Each tick, and when something is marked stale, a batch of the stalest is leased by one
//! statement, asked about, and written by another. A pull request is asked about once for all
//! chats on it. A branch whose host fails, is silent or wants to be left alone holds up no other,
//! and what a process leased before it died comes back when the lease has ended.

mod ask;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use musterbeat_core::batch::Portion;
use musterbeat_core::diff::{ChatDiff, Reference};
use musterbeat_core::id::{ChatId, OwnerId};
use musterbeat_core::port::{
    DiffStore, DiffTarget, FetchError, GitHosts, Interest, Publish, Reach, Select, StoreError,
    Topic, Watch, Watcher,
};
use musterbeat_core::refresh::{BATCH, HostLimit, LEASE, RefreshTimes, Refreshed, StaleDiff};
use tokio::time::{Instant, sleep, sleep_until};

use self::ask::Asked;
use crate::metrics::{REFRESH_SECONDS, REFRESH_WRITES_GIVEN_UP, REFRESHED};
use crate::retry::BACKOFF;
use crate::shutdown::Shutdown;

/// Longest pause between two looks for stale branches; a half at least, by jitter.
pub const TICK: Duration = Duration::from_secs(10);

/// Time of a lease that is left for writing what was found.
const WRITE_TIME: Duration = Duration::from_mins(1);

/// Replicas that are woken by one mark spread over this time.
const WAKE_SPREAD: Duration = Duration::from_millis(200);

/// What refreshing takes.
#[derive(Clone)]
pub struct RefreshPorts {
    /// Keeps what is known.
    pub diffs: Arc<dyn DiffStore>,
    /// Knows whom to ask.
    pub hosts: Arc<dyn GitHosts>,
    /// Tells owners what changed, and others what is stale.
    pub publish: Arc<dyn Publish>,
    /// Tells what others made stale.
    pub watch: Arc<dyn Watch>,
}

/// How branches are refreshed.
#[derive(Clone, Copy, Debug)]
pub struct RefreshOptions {
    /// How long answers are fresh.
    pub times: RefreshTimes,
    /// Longest pause between two looks.
    pub tick: Duration,
    /// Stale branches that a batch begins with.
    pub batch: u32,
    /// Questions under way at once.
    pub concurrency: usize,
    /// How long one may take.
    pub answer_time: Duration,
}

impl RefreshOptions {
    /// Fifty branches each ten seconds, ten questions at once.
    pub const DEFAULT: Self = Self {
        times: RefreshTimes::DEFAULT,
        tick: TICK,
        batch: BATCH,
        concurrency: 10,
        answer_time: Duration::from_secs(20),
    };
}

impl Default for RefreshOptions {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// A branch could not be refreshed at once.
#[derive(Debug, thiserror::Error)]
pub enum RefreshError {
    /// The chat is not there or out of reach, or nothing is known of its branch.
    #[error("nothing is known of the chat's branch")]
    NotFound,
    /// The host told nothing.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// Storage failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The process ends, or has a fault.
    #[error("the refresh was given up")]
    GivenUp,
}

/// Marks branches stale and refreshes them. Clones share it.
#[derive(Clone)]
pub struct Refresher(Arc<Shared>);

struct Shared {
    ports: RefreshPorts,
    options: RefreshOptions,
}

impl Refresher {
    /// Refreshes through `ports`.
    pub fn new(ports: RefreshPorts, options: RefreshOptions) -> Self {
        Self(Arc::new(Shared { ports, options }))
    }

    /// Makes chats stale, and has them refreshed soon by whichever process is first.
    ///
    /// Returns how many there were. Repeating it only makes them stale again.
    pub async fn mark(
        &self,
        target: DiffTarget,
        reach: Reach,
        reference: &Reference,
    ) -> Result<usize, StoreError> {
        let Shared { ports, .. } = &*self.0;
        let marked = ports.diffs.mark(target, reach, reference).await?;
        for (chat, _) in &marked {
            ports.publish.publish(Topic::Stale, chat.uuid());
        }
        self.tell(&marked);
        Ok(marked.len())
    }

    /// Asks about a chat's branch at once, and returns what is known then.
    ///
    /// Once begun it is carried out even if the caller goes away. A host that wants to be left
    /// alone is left alone.
    pub async fn refresh(&self, chat: ChatId, reach: Reach) -> Result<ChatDiff, RefreshError> {
        let refresher = self.clone();
        let refresh = tokio::spawn(async move { refresher.refresh_one(chat, reach).await });
        refresh.await.unwrap_or(Err(RefreshError::GivenUp))
    }

    /// Refreshes what is stale until `shutdown` is requested.
    ///
    /// What is leased then and not told yet is stale again at once, for other processes.
    pub async fn run(self, shutdown: Shutdown) {
        let Shared { ports, options } = &*self.0;
        let mut marks = watched(&*ports.watch).await;
        loop {
            tokio::select! {
                () = shutdown.requested() => return,
                () = marked(&mut marks) => sleep(WAKE_SPREAD.mul_f64(rand::random())).await,
                () = sleep(options.tick.mul_f64(0.5 + rand::random::<f64>() / 2.0)) => {}
            }
            while !shutdown.is_requested() && self.refresh_batch(&shutdown).await {}
        }
    }

    async fn refresh_one(&self, chat: ChatId, reach: Reach) -> Result<ChatDiff, RefreshError> {
        let Shared { ports, options } = &*self.0;
        let leased_at = Instant::now();
        let leased = ports.diffs.acquire(Select::Chat(chat, reach)).await?;
        if leased.is_empty() {
            return Err(RefreshError::NotFound);
        }
        // The request that asks has its own time.
        let no_end = Shutdown::default();
        let asked = ask::ask(&*ports.hosts, options, leased, leased_at, &no_end).await;
        let error = asked.error.clone();
        self.write(asked, leased_at, &no_end).await?;
        if let Some(error) = error {
            return Err(error.into());
        }
        let diff = ports.diffs.read(&[chat], reach).await?.pop();
        diff.ok_or(RefreshError::NotFound)
    }

    /// Refreshes a batch and says whether there may be more.
    async fn refresh_batch(&self, shutdown: &Shutdown) -> bool {
        let Shared { ports, options } = &*self.0;
        let leased_at = Instant::now();
        let leased = match ports.diffs.acquire(Select::Stale(options.batch)).await {
            Ok(leased) => leased,
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "stale branches cannot be leased for now"
                );
                return false;
            }
        };
        let more = leased.len() >= options.batch as usize;
        if !leased.is_empty() {
            let asked = ask::ask(&*ports.hosts, options, leased, leased_at, shutdown).await;
            // Whatever could not be written was said, and comes back with its lease.
            let _ = self.write(asked, leased_at, shutdown).await;
            metrics::histogram!(REFRESH_SECONDS.name).record(leased_at.elapsed());
        }
        more
    }

    /// Writes what was found before the lease ends, and tells the owners what changed.
    ///
    /// Returns the last error of those that some of it was given up for.
    async fn write(
        &self,
        asked: Asked,
        leased_at: Instant,
        shutdown: &Shutdown,
    ) -> Result<(), StoreError> {
        let Asked { refreshed, limits, .. } = asked;
        let mut limits = &limits[..];
        let mut left = &refreshed[..];
        let mut portion = Portion::new(left.len());
        let mut written = Ok(());
        while !left.is_empty() {
            let (part, rest) = left.split_at(portion.next(left.len()));
            match self.write_part(part, limits, leased_at + LEASE, shutdown).await {
                Ok(changed) => {
                    metrics::counter!(REFRESHED.name).increment(part.len() as u64);
                    self.tell(&changed);
                    limits = &[];
                    portion.written();
                    left = rest;
                }
                // Storage is away: what is left is stale again when the lease ends.
                Err(error @ StoreError::Unavailable { .. }) => {
                    metrics::counter!(REFRESH_WRITES_GIVEN_UP.name).increment(left.len() as u64);
                    tracing::warn!(
                        left = left.len(),
                        error = &error as &dyn std::error::Error,
                        "what was found about branches cannot be written in time"
                    );
                    return Err(error);
                }
                // What cannot be written stands alone by now, and stops no other.
                Err(error) if portion.refused(part.len()) => {
                    metrics::counter!(REFRESH_WRITES_GIVEN_UP.name).increment(1);
                    tracing::error!(
                        chat.id = ?part.first().map(|row| row.chat),
                        error = &error as &dyn std::error::Error,
                        "what was found about a branch cannot be written"
                    );
                    written = Err(error);
                    left = rest;
                }
                Err(error) => {
                    tracing::debug!(
                        error = &error as &dyn std::error::Error,
                        "what was found about branches is written in halves"
                    );
                }
            }
        }
        written
    }

    /// Writes until storage answers, the lease has ended, or the process ends.
    async fn write_part(
        &self,
        part: &[Refreshed],
        limits: &[HostLimit],
        deadline: Instant,
        shutdown: &Shutdown,
    ) -> Result<Vec<(ChatId, OwnerId)>, StoreError> {
        let mut failures = 0;
        loop {
            match self.0.ports.diffs.write(part, limits).await {
                Err(StoreError::Unavailable { operation, source }) => {
                    failures += 1;
                    let pause = sleep(BACKOFF.delay(failures, rand::random()));
                    let given_up = tokio::select! {
                        biased;
                        () = shutdown.requested() => true,
                        () = sleep_until(deadline) => true,
                        () = pause => false,
                    };
                    if given_up {
                        return Err(StoreError::Unavailable { operation, source });
                    }
                }
                answer => return answer,
            }
        }
    }

    fn tell(&self, changed: &[(ChatId, OwnerId)]) {
        let owners: BTreeSet<OwnerId> = changed.iter().map(|(_, owner)| *owner).collect();
        for owner in owners {
            self.0.ports.publish.publish(Topic::Owner, owner.uuid());
        }
    }
}

/// Begins to watch for marks; without notices they are found by the next look.
async fn watched(watch: &dyn Watch) -> Option<Box<dyn Watcher>> {
    let watcher = watch.watch(Topic::Stale, Interest::All).await;
    if let Err(error) = &watcher {
        tracing::warn!(
            error = error as &dyn std::error::Error,
            "stale branches are found by looking alone"
        );
    }
    watcher.ok()
}

async fn marked(marks: &mut Option<Box<dyn Watcher>>) {
    match marks {
        Some(watcher) => drop(watcher.recv().await),
        None => std::future::pending().await,
    }
}

/// Says whether there is time to ask once more under a lease.
fn may_ask(leased_at: Instant, answer_time: Duration) -> bool {
    Instant::now() + answer_time + WRITE_TIME <= leased_at + LEASE
}

#[cfg(test)]
mod tests;
