//! One task that listens, on one connection at a time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use musterbeat_core::backoff::Backoff;
use musterbeat_core::port::{Resync, ResyncCause, Topic};
use musterbeat_core::timestamp::Timestamp;
use sqlx::postgres::{PgListener, PgNotification};
use time::OffsetDateTime;
use tokio::time::{Instant, interval, sleep, sleep_until, timeout};

use super::desk::{Before, Desk};
use super::session::{Session, SessionError, failed};
use crate::channel::{Channel, HEARTBEAT};
use crate::codec::{self, Body, Known, Message};
use crate::hub::Hub;
use crate::ledger::{Ledger, Verdict};
use crate::metrics;
use crate::outbox::Outbox;
use crate::pulse::{Beat, Pulse, PulseTimes};

const BACKOFF: Backoff =
    Backoff { delay_first: Duration::from_millis(50), delay_max: Duration::from_secs(5) };

/// Time between looks for channels that nobody watches any more.
const TIDY_INTERVAL: Duration = Duration::from_secs(30);

/// Asks the session itself; a pooler that has exchanged it answers otherwise.
const PROBE: &str = "select count(*) from pg_listening_channels()";

/// Listens for all watchers of this process.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) session: Session,
    pub(super) hub: Hub,
    pub(super) desk: Arc<Desk>,
    pub(super) outbox: Arc<Outbox>,
    pub(super) epoch: u64,
    pub(super) times: PulseTimes,
    pub(super) channels: BTreeMap<String, Channel>,
}

/// Why a connection is given up.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("the connection that listens was lost")]
    Broken(#[source] SessionError),
    #[error("the connection that listens was ended")]
    Ended,
    #[error(
        "notifications do not arrive: is there a pooler in transaction mode? \
         `musterbeat doctor` says"
    )]
    Deaf,
}

impl Lost {
    fn cause(&self) -> ResyncCause {
        match self {
            Self::Broken(SessionError::Silent) | Self::Deaf => ResyncCause::Silence,
            Self::Broken(_) | Self::Ended => ResyncCause::Reconnect,
        }
    }
}

/// Says that nothing is listened to, whatever ends a connection.
struct Ending<'a>(&'a Desk);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.end();
        metrics::listening(false);
    }
}

impl Listener {
    /// Listens for ever. Dropping the future ends the connection, and no watcher is deceived:
    /// the next run tells each of them to read again.
    pub(super) async fn run(&self) {
        let mut failures = 0;
        let mut owed = None;
        loop {
            let mut life = Life { alive_at: None, listened: false, confirmed: false };
            let resync = owed.unwrap_or(Resync::of(ResyncCause::Reconnect));
            let Err(lost) = self.live(resync, &mut life).await;
            failures = if life.confirmed { 0 } else { failures + 1 };
            tracing::warn!(
                error = &lost as &dyn std::error::Error,
                "changes of other processes do not arrive; listening anew"
            );
            metrics::connection_lost(lost.cause());
            // Until it listens again watchers are owed a word on the first loss.
            if life.listened || owed.is_none() {
                let since = life.alive_at.or(resync.since);
                owed = Some(Resync { cause: lost.cause(), since });
            }
            sleep(BACKOFF.delay(failures, rand::random())).await;
        }
    }

    /// Listens on one connection until it is lost.
    async fn live(
        &self,
        resync: Resync,
        life: &mut Life,
    ) -> Result<std::convert::Infallible, Lost> {
        let ending = Ending(&self.desk);
        let mut session = self.session.listener().await.map_err(Lost::Broken)?;
        self.within(session.listen_all([HEARTBEAT])).await?;
        let (listened, before) = self.listen_first(&mut session).await?;
        metrics::listening(true);
        life.listened = true;
        if before == Before::Down {
            for topic in Topic::ALL {
                self.hub.resync(topic, resync);
            }
        }
        self.outbox.mark_heartbeat(vec![]);
        let connection = Connection {
            listener: self,
            session,
            listened,
            ledger: Ledger::default(),
            pulse: Pulse::new(self.times, Instant::now()),
            asked_at: Instant::now(),
            life,
        };
        let lost = connection.serve().await;
        drop(ending);
        lost
    }

    /// Listens to all that is watched, until no more comes to it meanwhile.
    async fn listen_first(
        &self,
        session: &mut PgListener,
    ) -> Result<(BTreeSet<Channel>, Before), Lost> {
        let mut listened = BTreeSet::new();
        loop {
            let missing: BTreeSet<_> = self.desk.wanted().difference(&listened).copied().collect();
            self.listen(session, &missing).await?;
            listened.extend(missing);
            if let Some(before) = self.desk.begin(&listened) {
                return Ok((listened, before));
            }
        }
    }

    async fn listen(
        &self,
        session: &mut PgListener,
        channels: &BTreeSet<Channel>,
    ) -> Result<(), Lost> {
        if channels.is_empty() {
            return Ok(());
        }
        let names: Vec<_> = channels.iter().map(|channel| channel.name()).collect();
        self.within(session.listen_all(names.iter().map(String::as_str))).await
    }

    /// Waits for the answer to a command of the connection.
    async fn within<T>(&self, answer: impl Future<Output = sqlx::Result<T>>) -> Result<T, Lost> {
        let answer = timeout(self.times.answer, answer).await;
        answer
            .map_err(|_| Lost::Broken(SessionError::Silent))?
            .map_err(failed)
            .map_err(Lost::Broken)
    }
}

/// What is known of a connection when it has ended.
struct Life {
    /// When the last notice arrived.
    alive_at: Option<Timestamp>,
    listened: bool,
    confirmed: bool,
}

/// A connection that listens.
struct Connection<'a> {
    listener: &'a Listener,
    session: PgListener,
    /// INVARIANT: the ledger has no other channels, or their silence would look like a loss.
    listened: BTreeSet<Channel>,
    ledger: Ledger,
    pulse: Pulse,
    /// When a heartbeat was asked for last.
    asked_at: Instant,
    life: &'a mut Life,
}

enum Wake {
    Received(sqlx::Result<Option<PgNotification>>),
    Missing(BTreeSet<Channel>),
    Due,
    Tidy,
}

impl Connection<'_> {
    async fn serve(mut self) -> Result<std::convert::Infallible, Lost> {
        self.take_buffered();
        let mut tidy = interval(TIDY_INTERVAL);
        tidy.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            // Only waiting is cancelled here, and the connection is never made anew.
            let wake = tokio::select! {
                received = self.session.try_recv() => Wake::Received(received),
                missing = self.listener.desk.missing() => Wake::Missing(missing),
                () = sleep_until(self.pulse.deadline()) => Wake::Due,
                _ = tidy.tick() => Wake::Tidy,
            };
            match wake {
                Wake::Received(Ok(Some(notification))) => {
                    self.alive();
                    self.received(&notification);
                }
                Wake::Received(Ok(None)) => return Err(Lost::Ended),
                Wake::Received(Err(error)) => return Err(Lost::Broken(failed(error))),
                Wake::Missing(channels) => self.listen(channels).await?,
                Wake::Due => self.ask().await?,
                Wake::Tidy => self.tidy().await?,
            }
        }
    }

    async fn listen(&mut self, channels: BTreeSet<Channel>) -> Result<(), Lost> {
        self.listener.listen(&mut self.session, &channels).await?;
        self.listened.extend(&channels);
        self.listener.desk.extend(channels);
        self.take_buffered();
        Ok(())
    }

    /// Gives up what nobody watches any more.
    async fn tidy(&mut self) -> Result<(), Lost> {
        while let Some(channel) = self.listener.desk.take_idle() {
            let name = channel.name();
            self.listener.within(self.session.unlisten(&name)).await?;
            // What arrived before comes first: then the channel is forgotten for good.
            self.take_buffered();
            self.listened.remove(&channel);
            self.ledger.forget(channel);
        }
        Ok(())
    }

    /// Asks for a sign of life, or gives the connection up when none came.
    ///
    /// A publisher that is held up, so that no heartbeat goes out, makes no difference: others may
    /// publish, and whether this connection is deaf to them cannot be told.
    async fn ask(&mut self) -> Result<(), Lost> {
        if self.pulse.due(Instant::now()) == Beat::GiveUp {
            return Err(Lost::Deaf);
        }
        // Quicker than the heartbeat where the connection is dead.
        let probe = sqlx::query_scalar::<_, i64>(PROBE).persistent(false);
        let listened = self.listener.within(probe.fetch_one(&mut self.session)).await?;
        if listened == 0 {
            return Err(Lost::Deaf);
        }
        self.take_buffered();
        // After the probe: what comes with its answer is no sign.
        self.listener.outbox.mark_heartbeat(self.ledger.known().collect());
        self.asked_at = Instant::now();
        Ok(())
    }

    /// Hands on what came with the answer to a command.
    ///
    /// It is no sign of life: a pooler lets through what waits in a session while it is lent out
    /// for a command, and nothing in between.
    fn take_buffered(&mut self) {
        while let Some(notification) = self.session.next_buffered() {
            self.received(&notification);
        }
    }

    /// A notice has arrived by itself.
    fn alive(&mut self) {
        self.pulse.heard(Instant::now(), rand::random());
        self.life.alive_at = Some(wall_clock());
        self.life.confirmed = true;
        self.listener.desk.set_confirmed(true);
    }

    fn received(&mut self, notification: &PgNotification) {
        let decoded = codec::decode(notification.payload());
        match self.listener.channels.get(notification.channel()) {
            Some(channel) => self.told(*channel, decoded),
            None => {
                if let Ok(Message { header, body: Body::Heartbeat(known) }) = decoded {
                    if header.epoch == self.listener.epoch {
                        metrics::came_back(self.asked_at.elapsed());
                    }
                    for known in known {
                        self.heard(known);
                    }
                }
            }
        }
    }

    /// Passes on what a publisher told on a channel.
    fn told(&mut self, channel: Channel, decoded: Result<Message, codec::DecodeError>) {
        let hub = &self.listener.hub;
        let Message { header, body } = match decoded {
            Ok(message) => message,
            Err(error) => {
                // A later release may tell more finely than is understood here.
                metrics::not_understood(channel.topic);
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    topic = channel.topic.as_str(),
                    "a notification was not understood"
                );
                self.resync(channel, ResyncCause::Unnamed);
                return;
            }
        };
        // Without a place it was sent inside a transaction.
        if header.epoch != 0 {
            match self.ledger.received(header.epoch, channel, header.sequence) {
                Verdict::Next => {}
                Verdict::Repeated => return,
                Verdict::Broken => self.missed(channel),
            }
        }
        if header.epoch == self.listener.epoch {
            // Watchers of this process were told when it was published.
            return;
        }
        match body {
            Body::Ids(ids) => hub.changed(channel.topic, ids.into_iter()),
            Body::Fingerprints(fingerprints) => {
                let may_be = |id: &uuid::Uuid| channel.carries(id) && fingerprints.contains(*id);
                hub.changed_if(channel.topic, may_be);
            }
            Body::Everything => self.resync(channel, ResyncCause::Unnamed),
            Body::Heartbeat(_) => {}
        }
    }

    /// Compares what another process has seen with what was seen here.
    fn heard(&mut self, known: Known) {
        if let Some(channel) = Channel::with_code(known.channel)
            && self.listened.contains(&channel)
            && self.ledger.heard(known.epoch, channel, known.sequence)
        {
            self.missed(channel);
        }
    }

    fn missed(&self, channel: Channel) {
        metrics::gap(channel.topic);
        tracing::warn!(topic = channel.topic.as_str(), "notifications were lost on their way");
        self.resync(channel, ResyncCause::Gap);
    }

    /// Tells those who watch anything on a channel to read again.
    fn resync(&self, channel: Channel, cause: ResyncCause) {
        let resync = Resync::of(cause);
        self.listener.hub.resync_if(channel.topic, |id| channel.carries(id), resync);
    }
}

fn wall_clock() -> Timestamp {
    Timestamp::new(OffsetDateTime::from(SystemTime::now()))
}

#[cfg(test)]
mod tests;
