//! When a worker looks for work: at notices when it is its turn, and else by itself, seldom.
//!
//! A notice is a hint and the table is the truth, so there is a poll. While notices are known to
//! arrive it is only for what nobody could tell, and backs off.

use std::sync::Arc;
use std::time::Duration;

use musterbeat_core::backoff::Backoff;
use musterbeat_core::id::RunId;
use musterbeat_core::lease::Moment;
use musterbeat_core::port::{
    Clock, Interest, Notice, Resync, ResyncCause, Topic, Watch, WatchError, Watcher,
};
use musterbeat_core::summons::Summons;
use tokio::time::sleep;

use super::tenure::Tenure;
use super::{POLL_INTERVAL_MAX, Ports};

/// Longest wait, by jitter, before a look that all replicas are made to take by one cause.
const RESYNC_JITTER: Duration = Duration::from_millis(100);

/// What a look for work came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Look {
    /// Whether it claimed runs.
    pub(super) found: bool,
    /// How long until another look is known to be worth it.
    pub(super) wait: Option<Duration>,
}

/// Waits for the next look.
pub(super) struct Lookout {
    watch: Arc<dyn Watch>,
    clock: Arc<dyn Clock>,
    pending: Option<Box<dyn Watcher>>,
    claimed: Option<Box<dyn Watcher>>,
    summons: Summons,
    poll_interval: Duration,
    looked_at: Moment,
    /// Time from that look to the next poll, as long as notices arrive.
    poll_wait: Duration,
    /// How many looks in a row have found nothing.
    fruitless: u32,
}

impl Look {
    /// Adds a look for another kind of run.
    pub(super) fn and(self, other: Self) -> Self {
        let waits = self.wait.into_iter().chain(other.wait);
        Self { found: self.found || other.found, wait: waits.min() }
    }
}

impl Lookout {
    /// Begins to watch: what becomes pending after this leads to a notice.
    pub(super) async fn open(ports: &Ports, poll_interval: Duration) -> Self {
        let watch = Arc::clone(&ports.watch);
        Self {
            pending: watched(watch.watch(Topic::Pending, Interest::All).await),
            claimed: watched(watch.watch(Topic::Claimed, Interest::All).await),
            watch,
            clock: Arc::clone(&ports.clock),
            summons: Summons::default(),
            poll_interval,
            looked_at: ports.clock.now(),
            poll_wait: poll_interval,
            fruitless: 0,
        }
    }

    /// Takes in a look that has ended.
    pub(super) fn looked(&mut self, look: Look) {
        self.fruitless = if look.found { 0 } else { self.fruitless.saturating_add(1) };
        self.looked_at = self.clock.now();
        self.poll_wait = poll_wait(self.poll_interval, self.fruitless, rand::random());
        self.summons.looked();
        if let Some(wait) = look.wait {
            self.summons.look_by(self.looked_at.after(wait));
        }
    }

    /// Waits until it is time for a look; dropping the future loses nothing.
    pub(super) async fn due(&mut self, tenure: &Tenure) {
        loop {
            let (now, next) = (self.clock.now(), self.next());
            if next <= now {
                return;
            }
            // That notices arrive no more is told by nobody.
            let wait = next.since(now).min(self.poll_interval);
            tokio::select! {
                // What became pending during a look has most likely been claimed since.
                biased;
                notice = received(&mut self.pending) => self.hear_pending(notice, tenure),
                notice = received(&mut self.claimed) => self.hear_claimed(notice),
                () = sleep(wait) => {}
            }
        }
    }

    fn next(&self) -> Moment {
        let wait = if self.is_confirmed() { self.poll_wait } else { self.poll_interval };
        let poll = self.looked_at.after(wait);
        self.summons.next().map_or(poll, |turn| turn.min(poll))
    }

    fn is_confirmed(&self) -> bool {
        self.pending.is_some() && self.watch.is_confirmed()
    }

    fn hear_pending(&mut self, notice: Notice, tenure: &Tenure) {
        let now = self.clock.now();
        match notice {
            Notice::Changed(ids) => {
                // While this replica may be the only one that hears, it leaves nothing to others.
                let others = if self.is_confirmed() { tenure.others() } else { Arc::default() };
                for id in ids {
                    self.summons.pending(RunId::new(id), tenure.worker(), &others, now);
                }
            }
            Notice::Resync(Resync { cause, .. }) => self.summons.look_by(match cause {
                // There is enough for everybody.
                ResyncCause::Overflow | ResyncCause::Unnamed => now,
                ResyncCause::Gap | ResyncCause::Reconnect | ResyncCause::Silence => {
                    now.after(RESYNC_JITTER.mul_f64(rand::random()))
                }
            }),
        }
    }

    fn hear_claimed(&mut self, notice: Notice) {
        let now = self.clock.now();
        match notice {
            Notice::Changed(ids) => {
                for id in ids {
                    self.summons.claimed(RunId::new(id), now);
                }
            }
            // A look too many costs less than one too few.
            Notice::Resync(_) => {}
        }
    }
}

/// Returns the time from a look to the next poll: the interval, and more after fruitless looks.
fn poll_wait(poll_interval: Duration, fruitless: u32, jitter: f64) -> Duration {
    let delay_max = POLL_INTERVAL_MAX.saturating_sub(poll_interval);
    let backoff = Backoff { delay_first: poll_interval, delay_max };
    poll_interval + backoff.delay(fruitless, jitter)
}

fn watched(watcher: Result<Box<dyn Watcher>, WatchError>) -> Option<Box<dyn Watcher>> {
    watcher
        .inspect_err(|error| {
            let error = error as &dyn std::error::Error;
            tracing::warn!(error, "a worker gets no notices and polls only");
        })
        .ok()
}

/// Waits for a notice, for ever when there is no watcher.
async fn received(watcher: &mut Option<Box<dyn Watcher>>) -> Notice {
    match watcher {
        Some(watcher) => watcher.recv().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn poll_backs_off_from_its_interval_to_half_a_minute() {
        let longest: Vec<_> =
            (0..8).map(|fruitless| poll_wait(SECOND, fruitless, 1.0).as_secs()).collect();
        assert_eq!(longest, [2, 2, 3, 5, 9, 17, 30, 30]);
        assert_eq!(poll_wait(SECOND, 7, 0.0), SECOND);
        assert_eq!(poll_wait(SECOND * 45, 7, 1.0), SECOND * 45);
    }
}
