//! Clients that follow chats, lose their connections, and go on elsewhere.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use eventsource_stream::{Event, Eventsource};
use futures_util::StreamExt;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use reqwest::Method;
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::api::{Api, held};

/// Clients of each chat.
const FOLLOWERS: usize = 2;

/// How long a client waits for the last word of a chat.
const PATIENCE: Duration = Duration::from_mins(1);

/// How likely a connection is lost after an event.
const LOSS: f64 = 0.05;

/// All who follow.
#[derive(Clone)]
pub(crate) struct Followers {
    api: Api,
    end: CancellationToken,
    tasks: Arc<Mutex<JoinSet<Follower>>>,
}

/// One client.
#[derive(Debug, Default)]
pub(crate) struct Follower {
    pub(crate) chat: String,
    /// The last id that it saw.
    pub(crate) cursor: Option<i64>,
    /// The history as it shows it.
    pub(crate) view: BTreeMap<i64, Value>,
    pub(crate) queue: Value,
    pub(crate) status: Value,
    /// The version that it has of each message, shown or deleted.
    versions: BTreeMap<i64, i64>,
    /// How often it took each version of each message, after it had dropped what was not newer.
    pub(crate) taken: BTreeMap<(i64, i64), u32>,
    pub(crate) dropped: u64,
    pub(crate) resumed: u64,
    /// What no server may send.
    pub(crate) wrongs: Vec<String>,
}

impl Followers {
    pub(crate) fn new(api: Api) -> Self {
        Self { api, end: CancellationToken::new(), tasks: Arc::default() }
    }

    /// Has a chat followed, closely until `left`, and once more at the end.
    pub(crate) fn follow(&self, rng: &mut StdRng, chat: &str, left: &CancellationToken) {
        for _ in 0..FOLLOWERS {
            let rng = StdRng::seed_from_u64(rng.random());
            let follower = Follower { chat: chat.to_owned(), ..Follower::default() };
            let (api, end, left) = (self.api.clone(), self.end.clone(), left.clone());
            held(&self.tasks).spawn(follower.live(api, rng, left, end));
        }
    }

    /// Waits until everybody has seen the end of their chat.
    pub(crate) async fn ended(self) -> Vec<Follower> {
        self.end.cancel();
        let tasks = std::mem::take(&mut *held(&self.tasks));
        tasks.join_all().await
    }
}

impl Follower {
    async fn live(
        mut self,
        api: Api,
        mut rng: StdRng,
        left: CancellationToken,
        end: CancellationToken,
    ) -> Self {
        while !left.is_cancelled() && !end.is_cancelled() {
            let patience = Duration::from_millis(rng.random_range(200..8_000));
            self.connect(&api, &mut rng, "", patience).await;
            sleep(Duration::from_millis(rng.random_range(0..600))).await;
        }
        end.cancelled().await;
        let deadline = Instant::now() + PATIENCE;
        // It ends by itself when the chat has nothing to do, and everything was told.
        while !self.connect(&api, &mut rng, "?until=rest", Duration::from_secs(5)).await
            || !self.is_at_rest()
        {
            if deadline < Instant::now() {
                self.wrongs.push("the stream does not come to its end".to_owned());
                break;
            }
            sleep(Duration::from_millis(100)).await;
        }
        self
    }

    /// Follows for some time; says whether the server ended the stream in good order.
    async fn connect(
        &mut self,
        api: &Api,
        rng: &mut StdRng,
        until: &str,
        patience: Duration,
    ) -> bool {
        let path = format!("/chats/{}/events{until}", self.chat);
        let mut request = api.request(rng, Method::GET, &path);
        if let Some(cursor) = self.cursor {
            request = request.header("last-event-id", cursor.to_string());
        }
        let deadline = Instant::now() + patience;
        let Ok(Ok(response)) = timeout(patience, request.send()).await else { return false };
        if !response.status().is_success() {
            return false;
        }
        self.resumed += u64::from(self.cursor.is_some());
        let mut events = response.bytes_stream().eventsource();
        let mut connection = Connection { since: self.cursor, sent: BTreeSet::new() };
        loop {
            match timeout_at(deadline, events.next()).await {
                Ok(Some(Ok(event))) => {
                    self.see(&event, &mut connection);
                    // Cut off amid the events of one change, perhaps.
                    if until.is_empty() && rng.random_bool(LOSS) {
                        return false;
                    }
                }
                Ok(None) => return true,
                Ok(Some(Err(_))) | Err(_) => return false,
            }
        }
    }

    /// A stream may also end because its chat cannot be read for now.
    fn is_at_rest(&self) -> bool {
        ["waiting", "error"].iter().any(|status| self.status == *status)
    }

    fn see(&mut self, event: &Event, connection: &mut Connection) {
        let data: Value = serde_json::from_str(&event.data).unwrap_or_default();
        match event.event.as_str() {
            "snapshot" => {
                if connection.since.is_some() {
                    self.wrong("a snapshot to who has one");
                }
                self.view.clear();
                self.queue = data["queue"].clone();
                self.status = data["chat"]["status"].clone();
                for message in data["messages"].as_array().into_iter().flatten() {
                    self.take(message, connection, true);
                }
            }
            "message" => self.take(&data, connection, false),
            "queue" => self.queue = data["queue"].clone(),
            "status" => self.status = data["status"].clone(),
            // Nothing that was committed is ever forgotten here.
            "history_reset" => self.wrong("a history that went back"),
            "error" | "part" | "resync" | "ping" => {}
            other => self.wrong(&format!("an event {other}")),
        }
        if let Ok(id) = event.id.parse::<i64>() {
            if self.cursor.is_some_and(|cursor| id < cursor) {
                self.wrong(&format!("id {id} after {:?}", self.cursor));
            }
            self.cursor = Some(id);
        }
    }

    fn take(&mut self, message: &Value, connection: &mut Connection, snapshot: bool) {
        let (id, version) = (message["id"].as_i64().unwrap(), message["version"].as_i64().unwrap());
        if !connection.sent.insert((id, version)) {
            self.wrong(&format!("message {id} twice as of {version}"));
        }
        if connection.since.is_some_and(|since| version <= since) {
            self.wrong(&format!("message {id} as of {version} to who has {:?}", connection.since));
        }
        let newer = self.versions.get(&id).is_none_or(|held| *held < version);
        if newer {
            self.versions.insert(id, version);
            *self.taken.entry((id, version)).or_default() += 1;
        } else {
            self.dropped += 1;
        }
        if message["deleted"] == true {
            self.view.remove(&id);
        } else if newer || snapshot {
            self.view.insert(id, message.clone());
        }
    }

    fn wrong(&mut self, what: &str) {
        self.wrongs.push(format!("the stream sent {what}"));
    }
}

/// What was sent on one connection.
struct Connection {
    since: Option<i64>,
    sent: BTreeSet<(i64, i64)>,
}
