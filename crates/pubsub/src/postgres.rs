//! The transport over PostgreSQL's `LISTEN` and `NOTIFY`.
//!
//! Two tasks and two connections serve a whole process, however much it watches and publishes:
//! the publisher gathers what changed while its last statement is on its way, and the listener
//! hands on what others tell. What may have been lost ends in a [`Resync`], never in silence:
//! when the connection was made anew, when a publisher's sequence has a hole, and when nothing
//! arrives though something must.
//!
//! [`Resync`]: musterbeat_core::port::Resync

mod desk;
mod listener;
mod publisher;
mod session;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use musterbeat_core::port::{
    Interest, Notice, Publish, PublishError, Topic, Watch, WatchError, Watcher,
};
use sqlx::PgConnection;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::timeout;
use uuid::Uuid;

use crate::channel::Channel;
use crate::codec::Policy;
use crate::hub::{Hub, HubWatcher};
use crate::metrics;
use crate::outbox::Outbox;
use crate::pulse::PulseTimes;
use desk::Desk;
use listener::Listener;
use publisher::Publisher;
use session::Session;

/// How a transport behaves.
#[derive(Clone, Debug)]
pub struct PgTransportOptions {
    /// Silence after which the listening connection is asked for a sign of life; half of it at
    /// least, by jitter. One heartbeat serves all processes of a database.
    pub silence: Duration,
    /// How long the sign may take, and every other answer on that connection.
    ///
    /// A connection that is cut without a sign is noticed within both times together.
    pub probe_timeout: Duration,
    /// Shortest time between two statements that publish. The first after a pause goes at once.
    ///
    /// Up to PostgreSQL 18 each one wakes every listening session of the database.
    pub min_interval: Duration,
    /// How finely ids are named.
    pub policy: Policy,
}

impl PgTransportOptions {
    /// A silent cut is noticed within 15 s, and a statement each 5 ms at most publishes.
    pub const DEFAULT: Self = Self {
        silence: Duration::from_secs(10),
        probe_timeout: Duration::from_secs(5),
        min_interval: Duration::from_millis(5),
        policy: Policy::DEFAULT,
    };
}

impl Default for PgTransportOptions {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// The URL of a database could not be read.
#[derive(Debug, thiserror::Error)]
#[error("the database URL is not valid; expected postgres://USER:PASSWORD@HOST:PORT/DATABASE")]
pub struct UrlError(#[source] sqlx::Error);

/// Carries notices between all processes that use one database; cloning it is cheap and shares it.
///
/// Watchers of this process are told when [`publish`](Publish::publish) is called, those of others
/// when the database has passed it on. Dropping the last clone ends both tasks and with them what
/// was not published yet; [`close`](Self::close) publishes it first.
#[derive(Clone, Debug)]
pub struct PgTransport(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    hub: Hub,
    desk: Arc<Desk>,
    outbox: Arc<Outbox>,
    policy: Policy,
    tasks: Mutex<JoinSet<()>>,
}

impl PgTransport {
    /// Starts a transport on the database at `url`, within a runtime.
    ///
    /// It connects in the background and again whenever it must, so a database that is away
    /// is no error here. A URL that leads through a pooler in transaction mode carries nothing
    /// to this process: [`is_confirmed`](Watch::is_confirmed) stays false.
    ///
    /// # Errors
    /// Refuses what is no URL of PostgreSQL.
    pub fn start(url: &str, options: &PgTransportOptions) -> Result<Self, UrlError> {
        let session = Session::new(url).map_err(UrlError)?;
        let (hub, desk) = (Hub::default(), Arc::new(Desk::default()));
        let outbox = Arc::new(Outbox::new(options.min_interval));
        // Zero stands for no publisher in particular.
        let epoch = rand::random::<u64>().max(1);
        let publisher = Publisher {
            session: session.clone(),
            outbox: Arc::clone(&outbox),
            epoch,
            policy: options.policy,
            sequences: BTreeMap::new(),
            heartbeats: 0,
        };
        let listener = Listener {
            session,
            hub: hub.clone(),
            desk: Arc::clone(&desk),
            outbox: Arc::clone(&outbox),
            epoch,
            times: PulseTimes { silence: options.silence, answer: options.probe_timeout },
            channels: Channel::by_name(),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(publisher.run());
        tasks.spawn(async move { listener.run().await });
        let policy = options.policy;
        Ok(Self(Arc::new(Shared { hub, desk, outbox, policy, tasks: Mutex::new(tasks) })))
    }

    /// Tells that `ids` changed, as a part of the transaction that `conn` is in.
    ///
    /// Nothing is told when it is rolled back, and a crash between commit and notice cannot lose
    /// the notice. The price: PostgreSQL lets one transaction that notifies commit at a time.
    /// Where a flush to disk takes 5 ms that is under 200 commits a second for the whole server,
    /// measured at a thirty-first of what commits without it reach. So
    /// [`publish`](Publish::publish) after the commit is the rule.
    ///
    /// # Errors
    /// Passes on the database's; the transaction is then of no more use.
    pub async fn publish_in(
        &self,
        conn: &mut PgConnection,
        topic: Topic,
        ids: &[Uuid],
    ) -> sqlx::Result<()> {
        publisher::publish_in(conn, topic, ids, self.0.policy).await
    }

    /// Publishes what is marked, within `patience`, and ends; watchers get nothing any more.
    ///
    /// A second call does nothing.
    ///
    /// # Errors
    /// Says that some of it could not be published.
    pub async fn close(&self, patience: Duration) -> Result<(), PublishError> {
        let mut tasks = self.0.tasks.lock().await;
        if tasks.is_empty() {
            return Ok(());
        }
        let flushed = timeout(patience, self.flush()).await;
        tasks.shutdown().await;
        // The listener says so itself, unless it was ended before it began.
        self.0.desk.end();
        flushed.unwrap_or_else(|silence| Err(PublishError(Box::new(silence))))
    }

    /// Returns how many watch `topic` in this process.
    pub fn watchers(&self, topic: Topic) -> usize {
        self.0.hub.watchers(topic)
    }
}

#[async_trait]
impl Publish for PgTransport {
    fn publish(&self, topic: Topic, id: Uuid) {
        metrics::published(topic, 1);
        self.0.hub.changed(topic, std::iter::once(id));
        self.0.outbox.mark(topic, &[id]);
    }

    fn publish_all(&self, topic: Topic, ids: &[Uuid]) {
        metrics::published(topic, ids.len());
        self.0.hub.changed(topic, ids.iter().copied());
        self.0.outbox.mark(topic, ids);
    }

    async fn flush(&self) -> Result<(), PublishError> {
        let made = self.0.outbox.made();
        let mut progress = self.0.outbox.progress();
        let failures = progress.borrow().failures;
        let settled = progress
            .wait_for(|progress| made <= progress.acknowledged || failures < progress.failures)
            .await
            .map_err(|ended| PublishError(Box::new(ended)))?;
        if made <= settled.acknowledged {
            Ok(())
        } else {
            Err(PublishError(settled.error.clone().into()))
        }
    }
}

#[async_trait]
impl Watch for PgTransport {
    async fn watch(
        &self,
        topic: Topic,
        interest: Interest,
    ) -> Result<Box<dyn Watcher>, WatchError> {
        let channels = Channel::of_interest(topic, &interest);
        // First the hub: what arrives from the moment of listening on is marked.
        let inner = self.0.hub.watch(topic, interest);
        self.0.desk.add(&channels);
        let watcher = PgWatcher { inner, desk: Arc::clone(&self.0.desk) };
        self.0.desk.served(&channels).await;
        Ok(Box::new(watcher))
    }

    fn is_confirmed(&self) -> bool {
        self.0.desk.is_confirmed()
    }
}

/// One who watches; dropping it ends the watch and its cost.
#[derive(Debug)]
struct PgWatcher {
    inner: HubWatcher,
    desk: Arc<Desk>,
}

#[async_trait]
impl Watcher for PgWatcher {
    async fn recv(&mut self) -> Notice {
        self.inner.recv().await
    }
}

impl Drop for PgWatcher {
    fn drop(&mut self) {
        let (topic, interest) = self.inner.watched();
        self.desk.remove(&Channel::of_interest(topic, interest));
    }
}
