//! Sessions that listen, decode all that they hear, and say when they have heard everything.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use musterbeat_pubsub::codec::{self, Body, Fingerprints, original};
use sqlx::postgres::{PgListener, PgNotification};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;
use uuid::Uuid;

/// The channel of forms with one id a payload.
pub(super) const NAIVE_CHANNEL: &str = "bench_changed";

/// What the names of the channels of chats begin with, and how many there are.
const CHAT_CHANNEL: &str = "musterbeat_chat_";
const CHAT_CHANNELS: u8 = 16;

/// A message of the protocol around channel and payload: type, length, process, two zeros.
const ENVELOPE_BYTES: usize = 11;

/// Nothing here takes longer on a machine that can be measured on.
const PATIENCE: Duration = Duration::from_mins(5);

/// Sessions that all listen to the same channels, and wait for the same ids.
pub(super) struct Audience {
    ids: Arc<Vec<Uuid>>,
    heard: mpsc::UnboundedReceiver<Result<Heard>>,
    listeners: JoinSet<()>,
}

/// What one session heard of a round.
#[derive(Default)]
pub(super) struct Heard {
    pub(super) payloads: u64,
    /// Bytes of its connection.
    pub(super) bytes: u64,
    /// How often it waited for more.
    pub(super) wakes: u64,
    /// When it had decoded the last.
    at: Option<Instant>,
    ids: Vec<Uuid>,
    fingerprints: Vec<Fingerprints>,
}

impl Audience {
    /// Begins to listen on so many connections of their own.
    pub(super) async fn gather(url: &str, listeners: usize, ids: Arc<Vec<Uuid>>) -> Result<Self> {
        let (tell, heard) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        let chats: Vec<_> = (0..CHAT_CHANNELS).map(|at| format!("{CHAT_CHANNEL}{at}")).collect();
        for _ in 0..listeners {
            let failed = "a listener could not connect: `max_connections` must be 200 or more";
            let mut session = PgListener::connect(url).await.context(failed)?;
            session.eager_reconnect(false);
            let channels = chats.iter().map(String::as_str);
            let channels = channels.chain([NAIVE_CHANNEL, original::CHANNEL]);
            session.listen_all(channels).await.context(failed)?;
            tasks.spawn(listen(session, ids.len(), tell.clone()));
        }
        Ok(Self { ids, heard, listeners: tasks })
    }

    /// Waits until every session has heard of as many changes as there are.
    ///
    /// Returns what each heard, and when the last of them had decoded its last payload.
    pub(super) async fn heard(&mut self) -> Result<(Vec<Heard>, Instant)> {
        let mut all = Vec::new();
        while all.len() < self.listeners.len() {
            let heard = timeout(PATIENCE, self.heard.recv()).await;
            let heard = heard.context("a listener waits for ever")?;
            all.push(heard.context("the listeners have ended")??);
        }
        let last = all.iter().filter_map(|heard| heard.at).max();
        Ok((all, last.context("nobody listens")?))
    }

    /// Says which ids every session has heard of: the same for every arm that told all.
    pub(super) fn digest(&self, all: &[Heard]) -> Result<String> {
        for heard in all {
            let mut named = heard.ids.clone();
            named.sort_unstable();
            let has = |id: &Uuid| {
                named.binary_search(id).is_ok()
                    || heard.fingerprints.iter().any(|prints| prints.contains(*id))
            };
            let found = self.ids.iter().filter(|id| has(id)).count();
            let fingerprints: usize = heard.fingerprints.iter().map(Fingerprints::len).sum();
            // As many changes as there are were told: so nothing else was, and nothing twice.
            ensure!(
                found == self.ids.len() && named.len() + fingerprints == found,
                "a listener heard of {found} ids of {}",
                self.ids.len(),
            );
        }
        Ok(format!("{} ids at {} listeners", self.ids.len(), all.len()))
    }
}

async fn listen(mut session: PgListener, count: usize, tell: mpsc::UnboundedSender<Result<Heard>>) {
    loop {
        let heard = listen_once(&mut session, count).await;
        let failed = heard.is_err();
        // Nobody is there any more when the benchmark is over.
        if tell.send(heard).is_err() || failed {
            return;
        }
    }
}

/// Listens until so many changes were told.
async fn listen_once(session: &mut PgListener, count: usize) -> Result<Heard> {
    let mut heard = Heard::default();
    let mut told = 0;
    while told < count {
        let mut received = pin!(session.try_recv());
        let received = poll_fn(|context| {
            let polled = received.as_mut().poll(context);
            heard.wakes += u64::from(polled.is_pending());
            polled
        });
        let notification = received.await.context("a listener lost its connection")?;
        told += heard.take(&notification.context("a listener was ended")?)?;
    }
    ensure!(told == count, "{told} changes were told, of {count}");
    heard.at = Some(Instant::now());
    Ok(heard)
}

impl Heard {
    /// Decodes a payload; returns of how many changes it tells.
    fn take(&mut self, notification: &PgNotification) -> Result<usize> {
        let (channel, payload) = (notification.channel(), notification.payload());
        self.payloads += 1;
        self.bytes += (ENVELOPE_BYTES + channel.len() + payload.len()) as u64;
        let failed = "a payload could not be read";
        let ids = match channel {
            NAIVE_CHANNEL => vec![payload.parse().context(failed)?],
            original::CHANNEL => original::decode(payload).context(failed)?,
            _ => match codec::decode(payload).context(failed)?.body {
                Body::Ids(ids) => ids,
                Body::Fingerprints(prints) => {
                    let count = prints.len();
                    self.fingerprints.push(prints);
                    return Ok(count);
                }
                Body::Everything | Body::Heartbeat(_) => bail!("a payload names nothing"),
            },
        };
        self.ids.extend(&ids);
        Ok(ids.len())
    }
}
