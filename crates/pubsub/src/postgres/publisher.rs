//! One task that tells PostgreSQL what changed, one statement at a time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use musterbeat_core::backoff::Backoff;
use musterbeat_core::port::Topic;
use sqlx::postgres::PgListener;
use sqlx::{PgConnection, PgExecutor};
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

use super::session::{Session, SessionError};
use crate::channel::{Channel, HEARTBEAT};
use crate::codec::{self, Header, Known, Policy};
use crate::metrics;
use crate::outbox::{Outbox, Taken, Told};

/// How long a statement may take before its connection is dropped.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

const BACKOFF: Backoff =
    Backoff { delay_first: Duration::from_millis(50), delay_max: Duration::from_secs(5) };

/// Payloads of one flush: all of them are told, or none.
///
/// One transaction wakes each listening session once, however many payloads it has.
const NOTIFY: &str = "
    select pg_notify(channel, payload)
    from unnest($1::text[], $2::text[]) as told (channel, payload)";

/// Takes marks and tells them, again and again until it is answered.
///
/// While a flush is on its way, what changes meanwhile gathers for the next.
#[derive(Debug)]
pub(super) struct Publisher {
    pub(super) session: Session,
    pub(super) outbox: Arc<Outbox>,
    pub(super) epoch: u64,
    pub(super) policy: Policy,
    /// The last sequence on each channel that was given out.
    pub(super) sequences: BTreeMap<Channel, u64>,
    pub(super) heartbeats: u64,
}

/// One flush on its way.
#[derive(Debug, Default)]
struct Flight {
    channels: Vec<String>,
    payloads: Vec<String>,
    ids: usize,
}

impl Publisher {
    /// Publishes for ever; ending it between two marks leaves nothing half told.
    pub(super) async fn run(mut self) {
        let mut conn = None;
        loop {
            let taken = self.outbox.take().await;
            let upto = taken.upto;
            let flight = self.pack(taken);
            self.deliver(&flight, &mut conn).await;
            self.outbox.acknowledge(upto);
        }
    }

    /// Makes payloads; a flight that is sent twice has the same ones, so it is recognised.
    fn pack(&mut self, taken: Taken) -> Flight {
        let mut flight = Flight::default();
        for (topic, told) in taken.topics {
            match told {
                Told::Ids(ids) => self.pack_ids(topic, &ids, &mut flight),
                Told::Everything => {
                    for channel in Channel::of_topic(topic) {
                        let pack = |header| vec![codec::everything(header)];
                        self.pack_on(channel, &mut flight, pack);
                    }
                }
            }
        }
        if let Some(heard) = taken.heartbeat {
            self.heartbeats += 1;
            let header = Header { epoch: self.epoch, sequence: self.heartbeats };
            let known: Vec<_> = self.known().chain(heard).collect();
            flight.channels.push(HEARTBEAT.to_owned());
            flight.payloads.push(codec::encode_heartbeat(header, &known));
        }
        flight
    }

    fn pack_ids(&mut self, topic: Topic, ids: &[Uuid], flight: &mut Flight) {
        flight.ids += ids.len();
        for (channel, ids) in by_channel(topic, ids) {
            let policy = self.policy;
            self.pack_on(channel, flight, |first| codec::encode(&ids, first, policy));
        }
    }

    /// Adds the payloads that `pack` makes, of which the first has the next sequence on `channel`.
    fn pack_on(
        &mut self,
        channel: Channel,
        flight: &mut Flight,
        pack: impl FnOnce(Header) -> Vec<String>,
    ) {
        let last = self.sequences.entry(channel).or_default();
        let payloads = pack(Header { epoch: self.epoch, sequence: *last + 1 });
        *last += payloads.len() as u64;
        flight.extend(channel, payloads);
    }

    fn known(&self) -> impl Iterator<Item = Known> {
        self.sequences.iter().map(|(channel, sequence)| Known {
            epoch: self.epoch,
            channel: channel.code(),
            sequence: *sequence,
        })
    }

    async fn deliver(&self, flight: &Flight, conn: &mut Option<PgListener>) {
        let mut failures = 0;
        loop {
            let began = Instant::now();
            let Err(error) = self.attempt(flight, conn).await else {
                metrics::told(flight.ids, &flight.payloads, began.elapsed());
                return;
            };
            failures += 1;
            metrics::not_told();
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "changes could not be published; it is tried again"
            );
            self.outbox.fail(with_causes(&error));
            if error.is_queue_full() {
                self.session.relieve_queue().await;
            }
            sleep(BACKOFF.delay(failures, rand::random())).await;
        }
    }

    async fn attempt(
        &self,
        flight: &Flight,
        place: &mut Option<PgListener>,
    ) -> Result<(), SessionError> {
        // Taken out, so that an attempt which is given up takes its connection with it.
        let mut conn = match place.take() {
            Some(conn) => conn,
            None => self.session.publisher().await?,
        };
        let answer = timeout(ANSWER_TIMEOUT, flight.tell(&mut conn)).await;
        let answer = answer.map_err(|_| SessionError::Silent)?.map_err(SessionError::Failed);
        if answer.as_ref().map_or_else(SessionError::is_queue_full, |()| true) {
            // Of somebody else, behind a pooler.
            while conn.next_buffered().is_some() {}
            *place = Some(conn);
        }
        answer
    }
}

impl Flight {
    fn extend(&mut self, channel: Channel, payloads: Vec<String>) {
        self.channels.extend(payloads.iter().map(|_| channel.name()));
        self.payloads.extend(payloads);
    }

    /// Tells all of it, or nothing.
    async fn tell(&self, conn: impl PgExecutor<'_>) -> sqlx::Result<()> {
        let notify = sqlx::query(NOTIFY).bind(&self.channels).bind(&self.payloads);
        notify.execute(conn).await.map(drop)
    }
}

/// Tells `ids` within the transaction that `conn` is in; see `PgTransport::publish_in`.
pub(super) async fn publish_in(
    conn: &mut PgConnection,
    topic: Topic,
    ids: &[Uuid],
    policy: Policy,
) -> sqlx::Result<()> {
    let mut flight = Flight::default();
    for (channel, ids) in by_channel(topic, ids) {
        // Without a place; the number is salt.
        let header = Header { epoch: 0, sequence: rand::random() };
        flight.extend(channel, codec::encode(&ids, header, policy));
    }
    flight.tell(conn).await
}

fn by_channel(topic: Topic, ids: &[Uuid]) -> BTreeMap<Channel, Vec<Uuid>> {
    let mut channels: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for id in ids {
        channels.entry(Channel::of(topic, *id)).or_default().push(*id);
    }
    channels
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
