//! Waiting for a chat, and for a descendant.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt;
use musterbeat_core::chat::Report;
use musterbeat_core::lineage::Lineage;
use musterbeat_core::port::{
    AwaitError, ChatContext, Notice, Resync, ResyncCause, Waiter, Waiting,
};
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
    store.expect_report().returning(move |chat, _, _| {
        let mut reports = reports.lock().unwrap();
        let status = reports.pop_front().unwrap();
        if reports.is_empty() {
            reports.push_back(status);
        }
        let error = (status == RunStatus::Error).then(|| "no model".to_owned());
        Ok(Some(Report { chat, status, error, version: Version(3), text: None }))
    });
    chats_on(store, notices)
}

fn chats_on(store: MockChatStore, notices: usize) -> Chats {
    let mut watch = MockWatch::new();
    watch.expect_watch().returning(move |_, _| Ok(Box::new(Noticing(notices))));
    Chats::new(ChatPorts {
        store: Arc::new(store),
        reader: Arc::new(MockChatReader::new()),
        publish: Arc::new(MockPublish::new()),
        watch: Arc::new(watch),
    })
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
    let mut run = MockRunContext::new();
    run.expect_stopped().return_const(StopCause::Interrupted);
    let context = parent(chats(vec![RunStatus::Running], 0), run);
    let stopped = context.await_chat(CHILD, None).await.unwrap_err();
    assert_eq!(stopped.to_string(), "the wait was stopped: interrupted");
}

/// Its place is for others only while it does nothing.
#[tokio::test(start_paused = true)]
async fn run_counts_as_waiting_from_the_first_look_that_finds_work_to_the_end() {
    let run = Counting::default();
    let context = parent(chats(vec![RunStatus::Running, RunStatus::Waiting], 0), run.clone());
    {
        let mut wait = context.await_chat(CHILD, None);
        assert!((&mut wait).now_or_never().is_none());
        assert_eq!(run.waits(), 1);
        let report = wait.await.unwrap();
        assert!(report.is_at_rest());
    }
    assert_eq!(run.waits(), 0);
    // One that is dropped, as when a tool's time is over, is counted no longer.
    let context = parent(chats(vec![RunStatus::Running], 0), run.clone());
    assert!(context.await_chat(CHILD, None).now_or_never().is_none());
    assert_eq!(run.waits(), 0);
}

#[tokio::test(start_paused = true)]
async fn run_that_finds_its_descendant_at_rest_is_never_counted() {
    let mut run = MockRunContext::new();
    run.expect_waiting().never();
    let chats = chats(vec![RunStatus::Error], 0);
    let token = Token { worker: WorkerId::new(Uuid::nil()), fence: Fence(1), step: Step(0) };
    let waiter = Waiter { run: PARENT.into(), token };
    let report = chats.wait_in_run(waiter, &run, CHILD, None).await.unwrap();
    assert_eq!((report.status, report.error.as_deref()), (RunStatus::Error, Some("no model")));
}

/// A run outlives what its lease outlives, and a wait is most of its life.
#[tokio::test(start_paused = true)]
async fn storage_that_is_away_for_a_while_ends_no_wait_of_a_run() {
    let mut store = MockChatStore::new();
    let asked = AtomicUsize::new(0);
    store.expect_ancestors().returning(move |chat| match asked.fetch_add(1, Ordering::Relaxed) {
        0..5 => Err(unavailable()),
        _ => Ok(Lineage { chat, ancestors: vec![PARENT] }),
    });
    let looks = AtomicUsize::new(0);
    store.expect_report().returning(move |chat, _, waiter| {
        assert!(waiter.is_some(), "storage is told who waits");
        let status = match looks.fetch_add(1, Ordering::Relaxed) {
            0 => RunStatus::Pending,
            1..8 => return Err(unavailable()),
            _ => RunStatus::Waiting,
        };
        Ok(Some(Report { chat, status, error: None, version: Version(3), text: None }))
    });
    let context = parent(chats_on(store, 0), Counting::default());
    assert!(context.await_chat(CHILD, None).await.unwrap().is_at_rest());
}

/// Returns the context of a run of the parent.
fn parent(chats: Chats, run: impl RunContext + 'static) -> TurnContext {
    let token = Token { worker: WorkerId::new(Uuid::nil()), fence: Fence(1), step: Step(0) };
    let owner = OwnerId::new(Uuid::nil());
    let id = RunId::from(PARENT);
    let parent = Run { id, kind: RunKind::CHAT, owner, token, stop: false, attempts: 0 };
    TurnContext::new(&parent, chats, Arc::new(run))
}

/// A run that nobody stops, and whose waits are counted.
#[derive(Clone, Default)]
struct Counting(Arc<AtomicUsize>);

impl Counting {
    fn waits(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

#[async_trait]
impl RunContext for Counting {
    async fn stopped(&self) -> StopCause {
        std::future::pending().await
    }

    fn stop_cause(&self) -> Option<StopCause> {
        None
    }

    fn is_draining(&self) -> bool {
        false
    }

    fn ending(&self) {}

    fn begin(&self, _step: Step) {}

    fn part(&self, _part: Vec<u8>) {}

    fn waiting(&self) -> Waiting {
        self.0.fetch_add(1, Ordering::Relaxed);
        Waiting::new(Wait(self.clone()))
    }
}

struct Wait(Counting);

impl Drop for Wait {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::Relaxed);
    }
}
