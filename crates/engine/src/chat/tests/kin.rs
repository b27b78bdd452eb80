//! What a chat at work does with its descendants.

use futures_util::FutureExt;
use musterbeat_core::chat::{Chat, Origin, Refused, SubagentLimits, Title, WhenBusy};
use musterbeat_core::lineage::Lineage;
use musterbeat_core::port::{
    ChatContext, FamilyFilter, Halt, Kin, KinError, MockChatReader, NewChild,
};
use tokio::time::Instant;

use super::*;
use crate::chat::context::TurnContext;

const PARENT: ChatId = ChatId::new(Uuid::from_u128(1));
const CHILD: ChatId = ChatId::new(Uuid::from_u128(2));
const STRANGER: ChatId = ChatId::new(Uuid::from_u128(3));
const OWNER: OwnerId = OwnerId::new(Uuid::from_u128(9));

/// What storage was asked, and how often it fails first.
#[derive(Clone, Default)]
struct Asked {
    lines: Arc<Mutex<Vec<String>>>,
    failures: Arc<Mutex<VecDeque<StoreError>>>,
    created: Arc<Mutex<Option<NewChat>>>,
    published: Arc<Mutex<Vec<(Topic, u128)>>>,
}

impl Asked {
    fn failing(failures: impl IntoIterator<Item = StoreError>) -> Self {
        let failures = Arc::new(Mutex::new(failures.into_iter().collect()));
        Self { failures, ..Self::default() }
    }

    fn note(&self, line: String) -> Result<(), StoreError> {
        self.lines.lock().unwrap().push(line);
        self.failures.lock().unwrap().pop_front().map_or(Ok(()), Err)
    }

    fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }

    /// Returns the context of a run of the parent that has to stop for `stop`, if for anything.
    fn context(&self, stop: Option<StopCause>) -> TurnContext {
        self.context_of(context(stop))
    }

    fn context_of(&self, run: MockRunContext) -> TurnContext {
        let mut publish = MockPublish::new();
        let published = Arc::clone(&self.published);
        publish.expect_publish().returning(move |topic, id| {
            published.lock().unwrap().push((topic, id.as_u128()));
        });
        let chats = Chats::new(ChatPorts {
            store: Arc::new(self.store()),
            reader: Arc::new(self.reader()),
            publish: Arc::new(publish),
            watch: Arc::new(MockWatch::new()),
        });
        let token = Token { worker: WorkerId::new(Uuid::nil()), fence: Fence(1), step: Step(0) };
        let (id, kind) = (RunId::from(PARENT), RunKind::CHAT);
        let parent = Run { id, kind, owner: OWNER, token, stop: false, attempts: 0 };
        TurnContext::new(&parent, chats, Arc::new(run))
    }

    fn store(&self) -> MockChatStore {
        let mut store = MockChatStore::new();
        let this = self.clone();
        store.expect_ancestors().returning(move |chat| {
            let ancestors = if chat == CHILD { vec![PARENT] } else { vec![] };
            this.note(format!("ancestors of {}", chat.uuid().as_u128()))?;
            Ok(Lineage { chat, ancestors })
        });
        let this = self.clone();
        store.expect_create().returning(move |chat, reach| {
            assert_eq!(reach, Reach::Of(OWNER));
            *this.created.lock().unwrap() = Some(chat.clone());
            this.note(format!("create {}", chat.id.uuid().as_u128()))?;
            if chat.title.as_str() == "one too many" {
                return Err(ApplyError::Refused(Refused::TooManySubagents { at_work_max: 2 }));
            }
            Ok(applied(chat.id, RunStatus::Pending, false))
        });
        let this = self.clone();
        store.expect_apply().returning(move |chat, by, event| {
            assert_eq!(by, By::Ancestor);
            this.note(format!("{} {}", event.as_str(), chat.uuid().as_u128()))?;
            Ok(applied(chat, RunStatus::Running, matches!(event, Event::Send { .. })))
        });
        store
    }

    fn reader(&self) -> MockChatReader {
        let mut reader = MockChatReader::new();
        let this = self.clone();
        reader.expect_family().returning(move |filter: FamilyFilter| {
            assert_eq!((filter.of, filter.reach), (PARENT, Reach::Of(OWNER)));
            assert_eq!((filter.kin, filter.after), (Kin::Children, None));
            this.note(format!("{} children", filter.limit.rows()))?;
            Ok(Some(vec![shown(CHILD)]))
        });
        reader
    }
}

fn applied(chat: ChatId, status: RunStatus, queued: bool) -> Applied {
    Applied {
        chat,
        owner: OWNER,
        version: Version(1),
        status,
        step: Step(0),
        queued,
        message: None,
        stops: false,
        family: vec![],
    }
}

fn shown(id: ChatId) -> Chat {
    let at = Timestamp::from_micros(0).unwrap();
    Chat {
        id,
        owner: OWNER,
        parent: Some(PARENT),
        root: Some(PARENT),
        workspace: None,
        title: "child".to_owned(),
        model: None,
        archived: false,
        last_read: None,
        limits: SubagentLimits::default(),
        status: RunStatus::Running,
        error: None,
        version: Version(1),
        created_at: at,
        updated_at: at,
    }
}

fn child(title: &str) -> NewChild {
    NewChild { id: CHILD, title: Title::new(title).unwrap(), content: Content::text("do").unwrap() }
}

fn words() -> Content {
    Content::text("more").unwrap()
}

#[tokio::test(start_paused = true)]
async fn spawned_child_is_its_parents_and_a_worker_is_woken() {
    let asked = Asked::default();
    asked.context(None).spawn(child("child")).await.unwrap();
    let created = asked.created.lock().unwrap().clone().unwrap();
    assert_eq!((created.id, created.parent), (CHILD, Some(PARENT)));
    assert_eq!((created.owner, created.origin), (OWNER, Origin::Spawned));
    assert_eq!((created.workspace, created.turn.model), (None, None), "it inherits them");
    assert_eq!(created.turn.content.to_text(), "do");
    let published = asked.published.lock().unwrap();
    assert!(published.contains(&(Topic::Pending, 2)) && published.contains(&(Topic::Owner, 9)));
}

#[tokio::test(start_paused = true)]
async fn spawn_whose_answer_is_lost_is_sent_again_for_the_same_child() {
    let asked = Asked::failing([unavailable(), unavailable()]);
    asked.context(None).spawn(child("child")).await.unwrap();
    assert_eq!(asked.lines(), ["create 2"; 3]);
}

#[tokio::test(start_paused = true)]
async fn limit_and_failure_for_good_are_told_at_once() {
    let asked = Asked::default();
    let refused = asked.context(None).spawn(child("one too many")).await.unwrap_err();
    assert!(matches!(refused, KinError::Refused(Refused::TooManySubagents { at_work_max: 2 })));
    let asked = Asked::failing([broken()]);
    let failed = asked.context(None).spawn(child("child")).await.unwrap_err();
    assert!(matches!(failed, KinError::Store(StoreError::Broken { .. })));
    assert_eq!(asked.lines().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn chat_that_has_to_stop_asks_for_nothing() {
    for cause in [StopCause::Interrupted, StopCause::Shutdown, StopCause::Lost, StopCause::Fenced] {
        let asked = Asked::default();
        let context = asked.context(Some(cause));
        let ended = [
            context.spawn(child("child")).await.unwrap_err(),
            context.send(CHILD, words(), WhenBusy::Queue).await.unwrap_err(),
            context.halt(CHILD, Halt::Turn).await.unwrap_err(),
            context.halt(CHILD, Halt::Everything).await.unwrap_err(),
            context.children().await.unwrap_err(),
        ];
        for error in ended {
            assert!(matches!(error, KinError::Stopped(stopped) if stopped == cause), "{error}");
        }
        assert!(asked.lines().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn only_descendants_are_written_to_and_stopped() {
    let asked = Asked::default();
    let context = asked.context(None);
    for other in [STRANGER, PARENT] {
        let errors = [
            context.send(other, words(), WhenBusy::Interrupt).await.unwrap_err(),
            context.halt(other, Halt::Everything).await.unwrap_err(),
        ];
        for error in errors {
            assert!(matches!(error, KinError::NotADescendant(chat) if chat == other), "{error}");
        }
    }
    assert!(asked.lines().iter().all(|line| line.starts_with("ancestors")));
}

#[tokio::test(start_paused = true)]
async fn turn_is_sent_to_a_descendant_as_wished() {
    let asked = Asked::default();
    let context = asked.context(None);
    assert!(context.send(CHILD, words(), WhenBusy::Queue).await.unwrap());
    assert!(context.send(CHILD, words(), WhenBusy::Interrupt).await.unwrap());
    let lines = asked.lines();
    assert_eq!(lines, ["ancestors of 2", "send 2", "ancestors of 2", "send_interrupt 2"]);
}

/// It may have been stored, and a child that is asked twice works twice.
#[tokio::test(start_paused = true)]
async fn turn_of_unknown_outcome_is_not_sent_again() {
    let asked = Asked::default();
    let context = asked.context(None);
    // The lineage is read again, which changes nothing.
    *asked.failures.lock().unwrap() = [unavailable()].into();
    context.send(CHILD, words(), WhenBusy::Queue).await.unwrap();
    assert_eq!(asked.lines(), ["ancestors of 2", "ancestors of 2", "send 2"]);

    let asked = Asked::default();
    let mut run = MockRunContext::new();
    let (failures, lines) = (Arc::clone(&asked.failures), Arc::clone(&asked.lines));
    run.expect_stop_cause().returning(move || {
        if lines.lock().unwrap().len() == 1 {
            failures.lock().unwrap().push_back(unavailable());
        }
        None
    });
    let failed = asked.context_of(run).send(CHILD, words(), WhenBusy::Queue).await.unwrap_err();
    assert!(matches!(failed, KinError::Store(StoreError::Unavailable { .. })), "{failed}");
    assert_eq!(asked.lines(), ["ancestors of 2", "send 2"]);
}

#[tokio::test(start_paused = true)]
async fn turn_alone_or_everything_is_stopped() {
    let asked = Asked::default();
    asked.context(None).halt(CHILD, Halt::Turn).await.unwrap();
    assert_eq!(asked.lines(), ["ancestors of 2", "interrupt 2"]);
    let asked = Asked::failing([unavailable(), unavailable()]);
    asked.context(None).halt(CHILD, Halt::Everything).await.unwrap();
    let [first, again] = ["ancestors of 2"; 2];
    assert_eq!(asked.lines()[..3], [first, again, "ancestors of 2"]);
    assert_eq!(asked.lines()[3..], ["clear_queue 2", "interrupt 2"]);
}

#[tokio::test(start_paused = true)]
async fn children_are_shown_as_many_as_are_allowed() {
    let asked = Asked::failing([unavailable()]);
    let children = asked.context(None).children().await.unwrap();
    assert_eq!(children, [shown(CHILD)]);
    assert_eq!(asked.lines(), ["200 children"; 2]);
}

/// As with an owner's own writes, the lease says how long it is worth it.
#[tokio::test(start_paused = true)]
async fn storage_that_stays_away_is_asked_until_the_run_has_to_stop() {
    let asked = Asked::failing((0..1_000).map(|_| unavailable()));
    let mut run = MockRunContext::new();
    let began = Instant::now();
    run.expect_stop_cause()
        .returning(move || (60 <= began.elapsed().as_secs()).then_some(StopCause::Fenced));
    let ended = asked.context_of(run).spawn(child("child")).await.unwrap_err();
    assert!(matches!(ended, KinError::Store(_) | KinError::Stopped(StopCause::Fenced)), "{ended}");
    assert!((60..=62).contains(&began.elapsed().as_secs()));
    assert!(asked.lines().len() > 20, "it goes on asking");
}

/// What a tool drops in the midst, as when its time is over, leaves the context usable.
#[tokio::test(start_paused = true)]
async fn spawn_that_is_dropped_may_be_repeated() {
    let asked = Asked::failing([unavailable()]);
    let context = asked.context(None);
    assert!(context.spawn(child("child")).now_or_never().is_none(), "it pauses");
    context.spawn(child("child")).await.unwrap();
    assert_eq!(asked.lines(), ["create 2"; 2]);
}
