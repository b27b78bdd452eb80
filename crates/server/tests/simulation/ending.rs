//! How everything stands in the end, for those who read and for those who followed.

use std::collections::BTreeMap;
use std::time::Duration;

use musterbeat_core::chat::STOPPED_BY_ARCHIVING;
use musterbeat_core::message::{Content, Role};
use musterbeat_core::run::RunStatus;
use musterbeat_testkit::eventually;
use rand::rngs::StdRng;
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use crate::api::{Act, Api, Outcome, Request};
use crate::followers::Follower;
use crate::history::Change;
use crate::judge::Verdict;
use crate::model::{State, ensure};
use crate::script::Question;

/// How long chats may take to come to rest: the last ones may be backed off after several deaths.
const PATIENCE: Duration = Duration::from_mins(2);

/// A chat as its readers see it.
pub(crate) struct Shown {
    chat: Value,
    messages: BTreeMap<i64, Value>,
    queue: Value,
}

#[derive(Deserialize)]
struct ShownMessage {
    role: Role,
    content: Content,
}

#[derive(Deserialize)]
struct ShownQueued {
    id: i64,
    content: Content,
}

/// Waits until no chat has anything to do.
pub(crate) async fn rest(api: &Api, rng: &mut StdRng) {
    eventually(PATIENCE, "every chat is at rest", async || {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let busy = busy(api, rng).await;
        busy == Some(0)
    })
    .await;
}

/// Counts the chats that have something to do; none when they cannot be listed.
async fn busy(api: &Api, rng: &mut StdRng) -> Option<usize> {
    let mut path = "/chats?limit=200".to_owned();
    let mut busy = 0;
    loop {
        let page = api.read(rng, &path).await?;
        let works = |chat: &&Value| chat["status"] != "waiting" && chat["status"] != "error";
        busy += page["chats"].as_array()?.iter().filter(works).count();
        let Some(next) = page["next"].as_str() else { return Some(busy) };
        path = format!("/chats?limit=200&after={next}");
    }
}

/// Reads all of a chat, page by page.
pub(crate) async fn show(api: &Api, rng: &mut StdRng, chat: &str) -> Option<Shown> {
    let mut path = format!("/chats/{chat}/messages");
    let mut messages = BTreeMap::new();
    loop {
        let page = api.read(rng, &path).await?;
        for message in page["messages"].as_array()? {
            if message["deleted"] == false {
                messages.insert(message["id"].as_i64()?, message.clone());
            }
        }
        if page["more"] == false {
            break;
        }
        path = format!("/chats/{chat}/messages?after_version={}", page["version"]);
    }
    let queue = api.read(rng, &format!("/chats/{chat}/queue")).await?["queue"].clone();
    let chat = api.read(rng, &format!("/chats/{chat}")).await?;
    Some(Shown { chat, messages, queue })
}

impl Shown {
    /// Checks that readers see what the model has.
    ///
    /// # Errors
    /// Says what differs.
    pub(crate) fn equals(&self, verdict: &Verdict) -> Result<(), String> {
        let last = &verdict.last;
        let said = last.history.iter().map(|said| (said.id, said.role, said.content.clone()));
        let said: Vec<_> = said.collect();
        let shown = self.messages.iter().map(|(id, message)| {
            let message = ShownMessage::deserialize(message).expect("a message is whole");
            (*id, message.role, message.content)
        });
        let shown: Vec<_> = shown.collect();
        ensure!(shown == said, "the history is {shown:?}, not {said:?}");
        let queue = Vec::<ShownQueued>::deserialize(&self.queue).expect("a queue is whole");
        let queue: Vec<_> = queue.into_iter().map(|turn| (turn.id, turn.content)).collect();
        ensure!(queue == last.queue, "the queue is {queue:?}, not {:?}", last.queue);
        let chat = (&self.chat["status"], &self.chat["archived"], &self.chat["version"]);
        let same = *chat.0 == last.status.as_str()
            && *chat.1 == last.archived
            && chat.2.as_i64() == Some(last.version)
            && self.chat["error"].as_str() == last.error.as_deref();
        ensure!(same, "the chat is {}, not {last:?}", self.chat);
        ensure!(self.chat["title"].as_str() == verdict.title.as_deref(), "{}", self.chat);
        is_at_rest(&verdict.last)
    }

    /// Checks that a client saw all of it, each part once, and shows it as it is.
    ///
    /// # Errors
    /// Says what is missing, twice or wrong.
    pub(crate) fn was_followed_by(&self, follower: &Follower) -> Result<(), String> {
        ensure!(follower.wrongs.is_empty(), "{:?}", follower.wrongs);
        for (id, message) in &self.messages {
            let version = message["version"].as_i64().expect("a message has a version");
            let taken = follower.taken.get(&(*id, version)).copied().unwrap_or(0);
            ensure!(taken == 1, "message {id} as of {version} came {taken} times");
        }
        ensure!(follower.view == self.messages, "it shows {:?}", follower.view);
        ensure!(follower.queue == self.queue, "it shows the queue {}", follower.queue);
        ensure!(follower.status == self.chat["status"], "it shows {}", follower.status);
        let version = self.chat["version"].as_i64();
        ensure!(follower.cursor == version, "it is at {:?} of {version:?}", follower.cursor);
        Ok(())
    }
}

/// Checks that a chat has nothing to do, and has a reason for it.
fn is_at_rest(last: &State) -> Result<(), String> {
    ensure!(last.facts(None).open.is_empty(), "a call is open: {last:?}");
    match last.status {
        RunStatus::Waiting => {
            ensure!(last.queue.is_empty(), "it waits with a queue: {last:?}");
            last.ends_turn()
        }
        RunStatus::Error => {
            let error = last.error.clone().unwrap_or_default();
            let asked = last.history.iter().rfind(|said| said.role == Role::User);
            let asked = asked.and_then(|said| Question::parse(&said.content.to_text()));
            let failed = asked.is_some_and(|asked| asked.fails && asked.error() == error);
            // Its queue may have been cleared since.
            let archived = error == STOPPED_BY_ARCHIVING;
            ensure!(failed || archived || last.is_poisoned(), "it ended in {error:?}");
            Ok(())
        }
        _ => Err(format!("it is stuck: {last:?}")),
    }
}

/// Returns each chat that somebody was told of and nobody finds.
pub(crate) fn lost_chats(log: &[Request], found: &BTreeMap<Uuid, Vec<Change>>) -> Vec<String> {
    let created = log.iter().filter(|request| {
        request.act == Act::Create && matches!(request.outcome, Outcome::Accepted(_))
    });
    let lost = created.filter(|request| {
        request.chat.parse().map_or(true, |chat: Uuid| !found.contains_key(&chat))
    });
    lost.map(|request| format!("it was lost: {request:?}")).collect()
}

/// Checks that a title is one that may have been the last.
///
/// # Errors
/// Names the title, and the one that came after it.
pub(crate) fn title_is_allowed(title: &str, chat: &str, log: &[Request]) -> Result<(), String> {
    let titles = log.iter().filter(|request| request.act == Act::Title && request.chat == chat);
    let accepted: Vec<&Request> =
        titles.clone().filter(|request| matches!(request.outcome, Outcome::Accepted(_))).collect();
    let Some(set) = titles.into_iter().find(|request| request.text.as_deref() == Some(title))
    else {
        ensure!(accepted.is_empty(), "{title:?} was never set, but {accepted:?}");
        return Ok(());
    };
    match set.outcome {
        Outcome::Unknown => Ok(()),
        Outcome::Refused(_) => Err(format!("a refused title was set: {set:?}")),
        Outcome::Accepted(_) => {
            let later = accepted.iter().find(|request| set.answered < request.sent);
            ensure!(later.is_none(), "{set:?}, but later {later:?}");
            Ok(())
        }
    }
}
