//! Users who do anything at any time, what was done least before all.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::api::{Act, Answer, Api, Outcome, Request, held, micros};
use crate::followers::Followers;
use crate::script::Question;

/// Chats that users speak in at a time.
const CHATS: usize = 10;

/// Things done in one chat, after which it is left alone: histories stay short.
const ACTS_OF_A_CHAT: u32 = 60;

/// Things done in a row in one chat, at most.
const ACTS_IN_A_ROW: u32 = 6;

/// Questions of a crowd to each chat.
const SENDS_OF_A_CROWD: usize = 3;

/// A chat that users speak in.
struct Active {
    chat: String,
    acts: u32,
    left: CancellationToken,
}

/// What users share.
pub(crate) struct Town {
    api: Api,
    followers: Followers,
    active: Mutex<Vec<Active>>,
    done: Mutex<BTreeMap<Act, u64>>,
    questions: AtomicU64,
}

/// What a user sees of a chat before they act.
struct Look {
    chat: Value,
    queue: Vec<i64>,
}

impl Town {
    pub(crate) fn new(api: Api, followers: Followers) -> Arc<Self> {
        Arc::new(Self {
            api,
            followers,
            active: Mutex::default(),
            done: Mutex::default(),
            questions: AtomicU64::new(1),
        })
    }

    /// Acts until the end.
    pub(crate) async fn live(self: Arc<Self>, mut rng: StdRng, end: CancellationToken) {
        while !end.is_cancelled() {
            let chosen = {
                let active = held(&self.active);
                let place = rng.random_range(0..CHATS);
                active.get(place).map(|active| active.chat.clone())
            };
            match chosen {
                // One at a time for each that is missing, about.
                None if rng.random_bool(0.2) => self.create(&mut rng, None).await,
                None => {}
                Some(chat) => self.visit(&mut rng, &chat, &end).await,
            }
            sleep(Duration::from_millis(rng.random_range(0..300))).await;
        }
    }

    /// Does some things in a row in one chat.
    async fn visit(&self, rng: &mut StdRng, chat: &str, end: &CancellationToken) {
        for _ in 0..rng.random_range(1..=ACTS_IN_A_ROW) {
            if end.is_cancelled() {
                return;
            }
            let Some(look) = self.look(rng, chat).await else { return };
            let act = self.choose(rng, &look);
            self.act(rng, chat, act, &look).await;
        }
        self.leave(chat);
    }

    /// Sends to every chat, so that some of their queues have a next turn.
    pub(crate) async fn crowd(self: Arc<Self>, mut rng: StdRng) {
        let chats: Vec<String> =
            held(&self.active).iter().map(|active| active.chat.clone()).collect();
        let sends = chats.iter().cycle().take(SENDS_OF_A_CROWD * chats.len()).map(|chat| {
            let (town, mut rng) = (&self, StdRng::seed_from_u64(rng.random()));
            async move {
                let look = Look { chat: Value::Null, queue: vec![] };
                town.act(&mut rng, chat, Act::SendQueue, &look).await;
            }
        });
        join_all(sends).await;
    }

    /// Leaves a chat alone that has seen enough.
    fn leave(&self, chat: &str) {
        let mut active = held(&self.active);
        active.retain(|active| {
            let stays = active.chat != chat || active.acts < ACTS_OF_A_CHAT;
            if !stays {
                active.left.cancel();
            }
            stays
        });
    }

    async fn look(&self, rng: &mut StdRng, chat: &str) -> Option<Look> {
        let found = self.api.read(rng, &format!("/chats/{chat}")).await?;
        // Nothing is ever queued there.
        if found["status"] == "waiting" {
            return Some(Look { chat: found, queue: vec![] });
        }
        let queue = self.api.read(rng, &format!("/chats/{chat}/queue")).await?;
        let ids = queue["queue"].as_array()?.iter().filter_map(|turn| turn["id"].as_i64());
        Some(Look { chat: found, queue: ids.collect() })
    }

    /// Chooses among what the chat allows, or seldom among everything.
    fn choose(&self, rng: &mut StdRng, look: &Look) -> Act {
        let allowed = if rng.random_bool(0.1) { Act::ALL.to_vec() } else { look.allows() };
        let done = held(&self.done);
        let weight = |act: &Act| {
            let times = done.get(act).map_or(0, |times| u32::try_from(*times).unwrap());
            let often = match act {
                // Turns, without which there is nothing to do.
                Act::SendQueue => 8.0,
                Act::Create | Act::Title => 0.5,
                Act::Edit | Act::Archive => 0.7,
                _ => 1.0,
            };
            often / f64::from(3 + times)
        };
        let mut point = rng.random::<f64>() * allowed.iter().map(weight).sum::<f64>();
        let chosen = allowed.iter().find(|act| {
            point -= weight(act);
            point <= 0.0
        });
        *chosen.unwrap_or(&Act::SendQueue)
    }

    async fn act(&self, rng: &mut StdRng, chat: &str, act: Act, look: &Look) {
        let path = format!("/chats/{chat}");
        let named = match act {
            Act::Edit => self.message_of(rng, chat).await,
            Act::Promote | Act::DeleteQueued => any(rng, &look.queue),
            _ => None,
        };
        let about = |name: &str| named.map(|named| format!("{path}/{name}/{named}"));
        let text = match act {
            Act::SendQueue | Act::SendInterrupt | Act::Edit => Some(self.question(rng)),
            Act::Title => Some(format!("title {}", rng.random::<u32>())),
            _ => None,
        };
        let (method, path, mut body) = match act {
            Act::Create => return self.create(rng, Some(chat)).await,
            Act::SendQueue => (Method::POST, format!("{path}/messages"), json!({})),
            Act::SendInterrupt => {
                (Method::POST, format!("{path}/messages"), json!({ "when_busy": "interrupt" }))
            }
            Act::Edit => match about("messages") {
                Some(path) => (Method::PUT, path, json!({})),
                None => return,
            },
            Act::Interrupt => (Method::POST, format!("{path}/interrupt"), Value::Null),
            Act::Promote => match about("queue") {
                Some(path) => (Method::POST, format!("{path}/promote"), Value::Null),
                None => return,
            },
            Act::DeleteQueued => match about("queue") {
                Some(path) => (Method::DELETE, path, Value::Null),
                None => return,
            },
            Act::ClearQueue => (Method::DELETE, format!("{path}/queue"), Value::Null),
            Act::Archive | Act::Unarchive => {
                let root = look.root(rng, chat);
                return self.put_away(rng, &root, act).await;
            }
            Act::Title => (Method::PATCH, path, json!({ "title": text })),
        };
        if act != Act::Title
            && let Some(text) = &text
        {
            body["content"] = json!(text);
        }
        let request = Request { text, named, ..Request::of(act, chat) };
        self.carry_out(rng, method, &path, body, request).await;
    }

    async fn put_away(&self, rng: &mut StdRng, root: &str, act: Act) {
        let word = if act == Act::Archive { "archive" } else { "unarchive" };
        let path = format!("/chats/{root}/{word}");
        self.carry_out(rng, Method::POST, &path, Value::Null, Request::of(act, root)).await;
    }

    async fn carry_out(
        &self,
        rng: &mut StdRng,
        method: Method,
        path: &str,
        body: Value,
        request: Request,
    ) -> Option<Value> {
        let body = (!body.is_null()).then_some(body);
        let answer = self.api.call(rng, method, path, body.as_ref()).await;
        let mut request = Request { answered: micros(), ..request };
        let told = match answer {
            Answer::Unsent => return None,
            Answer::Done(told) => {
                request.outcome = Outcome::Accepted(told["version"].as_i64());
                *held(&self.done).entry(request.act).or_default() += 1;
                Some(told)
            }
            Answer::Refused(status) => {
                request.outcome = Outcome::Refused(status);
                None
            }
            Answer::Lost => None,
        };
        if request.act == Act::Create {
            let id = told.as_ref().and_then(|chat| chat["id"].as_str());
            id.unwrap_or_default().clone_into(&mut request.chat);
        } else if let Some(active) =
            held(&self.active).iter_mut().find(|active| active.chat == request.chat)
        {
            active.acts += 1;
        }
        self.api.record(request);
        told
    }

    /// Creates a chat, of `parent` if one is named, and has it followed.
    async fn create(&self, rng: &mut StdRng, parent: Option<&str>) {
        let text = self.question(rng);
        let body = json!({ "content": text, "parent_id": parent });
        let request = Request { text: Some(text), ..Request::of(Act::Create, "") };
        let Some(chat) = self.carry_out(rng, Method::POST, "/chats", body, request).await else {
            return;
        };
        let id = chat["id"].as_str().unwrap().to_owned();
        let left = CancellationToken::new();
        self.followers.follow(rng, &id, &left);
        held(&self.active).push(Active { chat: id, acts: 0, left });
    }

    /// Returns any of the last user's messages.
    async fn message_of(&self, rng: &mut StdRng, chat: &str) -> Option<i64> {
        let page = self.api.read(rng, &format!("/chats/{chat}/messages")).await?;
        let messages = page["messages"].as_array()?;
        let asked = messages.iter().filter(|message| message["role"] == "user");
        let ids: Vec<i64> = asked.filter_map(|message| message["id"].as_i64()).collect();
        any(rng, &ids[ids.len().saturating_sub(4)..])
    }

    fn question(&self, rng: &mut StdRng) -> String {
        let question = Question {
            number: self.questions.fetch_add(1, Ordering::Relaxed),
            calls: rng.random_bool(0.3),
            fails: rng.random_bool(0.15),
            words: rng.random_range(1..=12),
        };
        question.text()
    }
}

impl Look {
    fn allows(&self) -> Vec<Act> {
        use Act::{
            Archive, ClearQueue, Create, DeleteQueued, Edit, Interrupt, Promote, SendInterrupt,
            SendQueue, Title, Unarchive,
        };
        if self.chat["archived"] == true {
            return vec![Unarchive];
        }
        let mut acts = vec![Create, SendQueue, SendInterrupt, Edit, Archive, Title];
        if ["pending", "running"].iter().any(|status| self.chat["status"] == *status) {
            acts.push(Interrupt);
        }
        if !self.queue.is_empty() {
            acts.extend([Promote, DeleteQueued, ClearQueue]);
        }
        acts
    }

    /// Returns the root of the chat's family; seldom the chat itself, which is refused of a child.
    fn root(&self, rng: &mut StdRng, chat: &str) -> String {
        let root = self.chat["root_id"].as_str().filter(|_| !rng.random_bool(0.05));
        root.unwrap_or(chat).to_owned()
    }
}

impl Request {
    fn of(act: Act, chat: &str) -> Self {
        Self {
            act,
            chat: chat.to_owned(),
            text: None,
            named: None,
            sent: micros(),
            answered: 0,
            outcome: Outcome::Unknown,
        }
    }
}

fn any(rng: &mut StdRng, of: &[i64]) -> Option<i64> {
    (!of.is_empty()).then(|| of[rng.random_range(0..of.len())])
}
