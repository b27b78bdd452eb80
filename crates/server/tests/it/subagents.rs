//! Chats that spawn others and wait for them, with the whole server at work.

use std::num::NonZeroU32;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::join_all;
use musterbeat_core::chat::Title;
use musterbeat_core::id::ChatId;
use musterbeat_core::message::{Content, NewMessage};
use musterbeat_core::port::{
    AwaitError, ChatContext, ChatRunner, ChatTurn, KinError, NewChild, TurnEnd,
};
use musterbeat_server::settings::Settings;
use musterbeat_testkit::{TestDatabase, eventually};
use serde_json::Value;
use tokio::sync::watch;
use uuid::Uuid;

use crate::client::{Client, PATIENCE, Running};

/// Children of each root.
const CHILDREN: u128 = 2;

/// A root spawns children, waits for each, and says what they said; a child says its title.
struct Delegating {
    /// Children rest while it is false.
    open: watch::Receiver<bool>,
}

#[async_trait]
impl ChatRunner for Delegating {
    async fn turn(&self, turn: ChatTurn, context: Arc<dyn ChatContext>) -> TurnEnd {
        if turn.depth > 0 {
            let mut open = self.open.clone();
            return tokio::select! {
                biased;
                _ = context.stopped() => TurnEnd::Stopped(vec![]),
                _ = open.wait_for(|open| *open) => answer(&turn.prompt[0].content.to_text()),
            };
        }
        match delegated(turn.chat, &*context).await {
            Ok(reports) => answer(&reports.join(", ")),
            Err(end) => end,
        }
    }
}

async fn delegated(root: ChatId, context: &dyn ChatContext) -> Result<Vec<String>, TurnEnd> {
    for number in 1..=CHILDREN {
        let child = NewChild {
            id: child(root, number),
            title: Title::new("child").unwrap(),
            content: Content::text(format!("report {number}")).unwrap(),
        };
        match context.spawn(child).await {
            Ok(()) => {}
            Err(KinError::Stopped(_)) => return Err(TurnEnd::Stopped(vec![])),
            Err(error) => return Err(TurnEnd::Failed(error.to_string())),
        }
    }
    let mut reports = vec![];
    for number in 1..=CHILDREN {
        match context.await_chat(child(root, number), None).await {
            Ok(report) if report.is_at_rest() => reports.push(report.text.unwrap_or_default()),
            Ok(_) => return Err(TurnEnd::Failed("a child takes too long".to_owned())),
            Err(AwaitError::Stopped(_)) => return Err(TurnEnd::Stopped(vec![])),
            Err(error) => return Err(TurnEnd::Failed(error.to_string())),
        }
    }
    Ok(reports)
}

/// Returns the same id for the same wish, whoever owns the root.
fn child(root: ChatId, number: u128) -> ChatId {
    ChatId::new(Uuid::from_u128(root.uuid().as_u128().wrapping_add(number)))
}

fn answer(text: &str) -> TurnEnd {
    TurnEnd::Answer(vec![NewMessage::answer(Content::produced(text), None)])
}

async fn start(
    database: &TestDatabase,
    open: &watch::Sender<bool>,
    change: impl FnOnce(&mut Settings),
) -> Running {
    let runner = Arc::new(Delegating { open: open.subscribe() });
    Running::start_answering(database.url(), runner, |settings| {
        settings.dev = true;
        change(settings);
    })
    .await
}

/// Waits until a root has answered; its time is far below that of any wait.
async fn reported(client: &Client, root: &str) {
    client.chat_in(root, "waiting").await;
    let history = client.history(root).await;
    assert_eq!(history, ["user: go", "assistant: report 1, report 2"]);
}

async fn children(client: &Client, root: &str) -> Vec<Value> {
    let page = client.get_json(&format!("/api/v1/chats/{root}/children")).await;
    page["chats"].as_array().unwrap().clone()
}

#[tokio::test]
async fn parents_that_wait_starve_nobody_though_there_is_room_for_one_only() {
    let one = NonZeroU32::new(1);
    for capped in [false, true] {
        let database = TestDatabase::create().await.unwrap();
        let (open, _) = watch::channel(true);
        let running = start(&database, &open, |settings| {
            if capped {
                (settings.owner_running_max, settings.running_max) = (one, one);
            } else {
                settings.capacity = one.unwrap();
            }
        })
        .await;
        let root = running.client.create_chat("go").await;
        reported(&running.client, &root).await;
        running.stop().await;
    }
}

/// Many times as many parents as there are places for those that wait, and all of them come first.
#[tokio::test]
async fn parents_that_wait_leave_places_to_their_children() {
    let database = TestDatabase::create().await.unwrap();
    let (open, _) = watch::channel(true);
    let two = NonZeroU32::new(2).unwrap();
    let running = start(&database, &open, |settings| {
        settings.capacity = two;
        // All roots are asked for again and again.
        (settings.rate_per_second, settings.rate_burst) = (NonZeroU32::MAX, NonZeroU32::MAX);
    })
    .await;
    let client = &running.client;
    let roots = join_all((0..80).map(|_| client.create_chat("go"))).await;
    for root in &roots {
        reported(client, root).await;
    }
    running.stop().await;
}

/// Its owner has gone while it waited, and so have those of its children.
#[tokio::test]
async fn parent_that_is_taken_over_waits_for_the_same_children() {
    let database = TestDatabase::create().await.unwrap();
    let (open, _) = watch::channel(false);
    let first = start(&database, &open, |settings| settings.drain_timeout = <_>::default()).await;
    let root = first.client.create_chat("go").await;
    eventually(PATIENCE, "both children run", async || {
        let children = children(&first.client, &root).await;
        children.len() == 2 && children.iter().all(|child| child["status"] == "running")
    })
    .await;
    first.stop().await;
    let second = start(&database, &open, |_| {}).await;
    open.send_replace(true);
    reported(&second.client, &root).await;
    assert_eq!(children(&second.client, &root).await.len(), 2);
    second.stop().await;
}
