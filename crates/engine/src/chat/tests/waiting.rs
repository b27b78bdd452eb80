//! Waiting for a chat, and for a descendant.

use musterbeat_core::chat::Report;
use musterbeat_core::lineage::Lineage;
use musterbeat_core::port::{ChatContext, Notice, Resync, ResyncCause};
use tokio::time::Instant;

use super::*;
use crate::chat::context::TurnContext;

const PARENT: ChatId = ChatId::new(Uuid::from_u128(1));
const CHILD: ChatId = ChatId::new(Uuid::from_u128(2));

/// Chats of which the child stands as `reports` say, one a look, the last for ever.
fn chats(reports: Vec<RunStatus>, notices: usize) -> Chats {
    let mut store = MockChatStore::new();
    store.expect_ancestors().returning(|chat| {
        let ancestors = if chat == CHILD { vec![PARENT] } else { vec![] };
        Ok(Lineage { chat, ancestors })
    });
    let reports = Mutex::new(VecDeque::from(reports));
    store.expect_report().returning(move |chat, _| {
        let mut reports = reports.lock().unwrap();
        let status = reports.pop_front().unwrap();
        if reports.is_empty() {
            reports.push_back(status);
        }
        let error = (status == RunStatus::Error).then(|| "no model".to_owned());
        Ok(Some(Report { chat, status, error, version: Version(3), text: None }))
    });
    let mut watch = MockWatch::new();
    watch.expect_watch().returning(move |_, _| Ok(Box::new(Noticing(notices))));
    let ports = ChatPorts {
        store: Arc::new(store),
        publish: Arc::new(MockPublish::new()),
        watch: Arc::new(watch),
    };
    Chats::new(ports)
}

/// Gives so many notices at once, and none after.
struct Noticing(usize);

#[async_trait]
impl musterbeat_core::port::Watcher for Noticing {
    async fn recv(&mut self) -> Notice {
        if self.0 == 0 {
            std::future::pending::<()>().await;
        }
        self.0 -= 1;
        Notice::Resync(Resync::of(ResyncCause::Reconnect))
    }
}

async fn waited(chats: &Chats, timeout: Option<Duration>) -> (RunStatus, Duration) {
    let began = Instant::now();
    let report = chats.wait_for_descendant(PARENT, CHILD, timeout).await.unwrap();
    (report.status, began.elapsed())
}

#[tokio::test(start_paused = true)]
async fn only_descendants_are_waited_for() {
    let chats = chats(vec![RunStatus::Waiting], 0);
    for (ancestor, descendant) in [(CHILD, PARENT), (CHILD, CHILD)] {
        let refused = chats.wait_for_descendant(ancestor, descendant, None).await.unwrap_err();
        assert!(matches!(refused, AwaitError::NotADescendant(chat) if chat == descendant));
    }
}

#[tokio::test(start_paused = true)]
async fn chat_at_rest_is_reported_at_once() {
    for status in [RunStatus::Waiting, RunStatus::Error] {
        assert_eq!(waited(&chats(vec![status], 0), None).await, (status, Duration::ZERO));
    }
}

#[tokio::test(start_paused = true)]
async fn end_is_noticed_at_once() {
    let chats = chats(vec![RunStatus::Running, RunStatus::Running, RunStatus::Waiting], 2);
    assert_eq!(waited(&chats, None).await, (RunStatus::Waiting, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn end_without_a_notice_is_found_by_a_look() {
    let chats = chats(vec![RunStatus::Running, RunStatus::Waiting], 0);
    let (status, waited) = waited(&chats, None).await;
    assert_eq!(status, RunStatus::Waiting);
    assert!((2_500..=5_001).contains(&waited.as_millis()), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn time_that_is_over_is_no_error() {
    let minute = Duration::from_mins(1);
    let (status, took) = waited(&chats(vec![RunStatus::Running], 0), Some(minute)).await;
    assert_eq!((status, took.as_secs()), (RunStatus::Running, 60));
}

#[tokio::test(start_paused = true)]
async fn no_time_means_the_default() {
    for none in [None, Some(Duration::ZERO)] {
        let (_, took) = waited(&chats(vec![RunStatus::Running], 0), none).await;
        assert_eq!(took.as_secs(), 300);
    }
}

#[tokio::test(start_paused = true)]
async fn parent_that_is_stopped_waits_no_longer() {
    let chats = chats(vec![RunStatus::Running], 0);
    let mut run = MockRunContext::new();
    run.expect_stopped().return_const(StopCause::Interrupted);
    let token = Token { worker: WorkerId::new(Uuid::nil()), fence: Fence(1), step: Step(0) };
    let owner = OwnerId::new(Uuid::nil());
    let id = RunId::from(PARENT);
    let parent = Run { id, kind: RunKind::CHAT, owner, token, stop: false, attempts: 0 };
    let context = TurnContext::new(&parent, chats, Arc::new(run));
    let stopped = context.await_chat(CHILD, None).await.unwrap_err();
    assert_eq!(stopped.to_string(), "the wait was stopped: interrupted");
}
