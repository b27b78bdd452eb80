//! One run of a chat, with mocked storage and a mocked runner, under paused time.

mod at_work;
mod kin;
mod steps;
mod waiting;

use std::collections::VecDeque;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use musterbeat_core::id::{Fence, MessageId, OwnerId, Step, Version, WorkerId};
use musterbeat_core::message::{Content, Message, Model, Role, Usage, Visibility};
use musterbeat_core::port::{
    ChatRunner, MockChatReader, MockChatRunner, MockChatStore, MockPublish, MockRunContext,
    MockWatch, Prompt, Runner, TurnEnd,
};
use musterbeat_core::timestamp::Timestamp;
use uuid::Uuid;

use super::*;
use musterbeat_core::chat::ANSWER_MESSAGES_MAX;
use musterbeat_core::message::NewMessage;
use musterbeat_core::run::{Outcome, Run, RunKind};

/// What the store was asked to write, and what it answers, the oldest first.
#[derive(Clone, Default)]
struct Store {
    writes: Arc<Mutex<Vec<String>>>,
    answers: Arc<Mutex<VecDeque<Result<RunStatus, ApplyError>>>>,
}

impl Store {
    fn answering(answers: impl IntoIterator<Item = Result<RunStatus, ApplyError>>) -> Self {
        let answers = Arc::new(Mutex::new(answers.into_iter().collect()));
        Self { answers, ..Self::default() }
    }

    fn writes(&self) -> Vec<String> {
        self.writes.lock().unwrap().clone()
    }

    fn mock(&self) -> MockChatStore {
        let mut store = MockChatStore::new();
        store.expect_prompt().returning(|chat| {
            Ok(Prompt { messages: vec![question(chat)], depth: 3, may_spawn: true })
        });
        let this = self.clone();
        store.expect_apply().returning(move |chat, by, event| {
            let By::Owner(token) = by else { panic!("a run writes as its owner") };
            let step = token.step;
            this.writes.lock().unwrap().push(format!("step {step}: {}", described(&event)));
            let status = this.answers.lock().unwrap().pop_front().unwrap()?;
            let owner = OwnerId::new(Uuid::nil());
            let step = token.step.next();
            Ok(Applied {
                chat,
                owner,
                version: Version(9),
                status,
                step,
                queued: false,
                message: None,
                stops: false,
                family: vec![],
            })
        });
        store
    }
}

/// Has a run worked on by a runner that ends each turn as given.
async fn work(
    store: &Store,
    stop: bool,
    context: impl RunContext + 'static,
    ends: Vec<TurnEnd>,
) -> Outcome {
    let ends = Mutex::new(VecDeque::from(ends));
    let mut runner = MockChatRunner::new();
    runner
        .expect_turn()
        .returning(move |_, _| ends.lock().unwrap().pop_front().expect("no turn is left to fail"));
    run_with(store, stop, context, Arc::new(runner)).await
}

async fn run_with(
    store: &Store,
    stop: bool,
    context: impl RunContext + 'static,
    runner: Arc<dyn ChatRunner>,
) -> Outcome {
    worked(&runs(store, runner), stop, context).await
}

fn runs(store: &Store, runner: Arc<dyn ChatRunner>) -> ChatRuns {
    let mut publish = MockPublish::new();
    publish.expect_publish().return_const(());
    let chats = Chats::new(ChatPorts {
        store: Arc::new(store.mock()),
        reader: Arc::new(MockChatReader::new()),
        publish: Arc::new(publish),
        watch: Arc::new(MockWatch::new()),
    });
    ChatRuns::new(chats, runner)
}

async fn worked(runs: &ChatRuns, stop: bool, context: impl RunContext + 'static) -> Outcome {
    let token = Token { worker: WorkerId::new(Uuid::nil()), fence: Fence(1), step: Step(0) };
    let owner = OwnerId::new(Uuid::nil());
    let run =
        Run { id: RunId::new(Uuid::nil()), kind: RunKind::CHAT, owner, token, stop, attempts: 0 };
    runs.run(run, Arc::new(context)).await
}

#[tokio::test(start_paused = true)]
async fn turns_go_on_while_the_run_is_kept_each_under_its_step() {
    let store = Store::answering([Ok(RunStatus::Running), Ok(RunStatus::Waiting)]);
    let outcome = work(&store, false, context(None), vec![answer("one"), answer("two")]).await;
    assert_eq!(outcome, Outcome::Settled);
    assert_eq!(store.writes(), ["step 0: answer one", "step 1: answer two"]);
}

#[tokio::test(start_paused = true)]
async fn write_whose_answer_is_lost_is_sent_again_under_the_same_step() {
    let lost = || Err(ApplyError::Store(unavailable()));
    let store = Store::answering([lost(), lost(), Ok(RunStatus::Waiting)]);
    let outcome = work(&store, false, context(None), vec![answer("one")]).await;
    assert_eq!(outcome, Outcome::Settled);
    assert_eq!(store.writes(), ["step 0: answer one"; 3]);
}

/// Storage that is only slow costs no turn: the run is kept for as long as its lease.
#[tokio::test(start_paused = true)]
async fn storage_that_stays_away_is_asked_until_the_lease_has_passed() {
    let store = Store::answering((0..1_000).map(|_| Err(ApplyError::Store(unavailable()))));
    let began = tokio::time::Instant::now();
    let mut context = MockRunContext::new();
    context.expect_is_draining().return_const(false);
    context.expect_ending().return_const(());
    let lapses = move || (began.elapsed() >= Duration::from_mins(1)).then_some(StopCause::Fenced);
    context.expect_stop_cause().returning(lapses);
    let outcome = work(&store, false, context, vec![answer("one")]).await;
    assert_eq!(outcome, Outcome::GivenBack);
    assert!(store.writes().len() > 30, "it goes on asking");
    assert!(began.elapsed() <= Duration::from_secs(62), "and ends with its lease");
}

/// What storage refuses it would refuse again, and a model would be asked each time.
#[tokio::test(start_paused = true)]
async fn answer_that_storage_refuses_ends_the_turn_in_error() {
    let store = Store::answering([Err(ApplyError::Store(broken())), Ok(RunStatus::Error)]);
    let outcome = work(&store, false, context(None), vec![answer("one")]).await;
    assert_eq!(outcome, Outcome::Settled);
    let error = "step 0: error the turn was not stored: failed to play";
    assert_eq!(store.writes(), ["step 0: answer one", error]);
}

#[tokio::test(start_paused = true)]
async fn chat_that_storage_cannot_change_at_all_fails_its_run() {
    let refused = || Err(ApplyError::Store(broken()));
    let store = Store::answering([refused(), refused()]);
    let outcome = work(&store, false, context(None), vec![answer("one")]).await;
    assert_eq!(outcome, Outcome::Failed("failed to play".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn answer_of_too_many_messages_is_an_error() {
    let store = Store::answering([Ok(RunStatus::Error)]);
    let message = NewMessage::answer(Content::produced("x"), None);
    let many = TurnEnd::Answer(vec![message; ANSWER_MESSAGES_MAX + 1]);
    work(&store, false, context(None), vec![many]).await;
    assert_eq!(
        store.writes(),
        ["step 0: error the answer has 257 messages, at most 256 are allowed"]
    );
}

/// It would wait for ever for the reason why it was stopped.
#[tokio::test(start_paused = true)]
async fn runner_that_stops_unasked_fails_its_turn() {
    let store = Store::answering([Ok(RunStatus::Error)]);
    let outcome = work(&store, false, Unasked, vec![TurnEnd::Stopped(vec![])]).await;
    assert_eq!(outcome, Outcome::Settled);
    assert_eq!(store.writes(), ["step 0: error the runner stopped without being asked to"]);
}

#[tokio::test(start_paused = true)]
async fn owner_that_was_replaced_writes_no_more() {
    let store = Store::answering([Err(ApplyError::Fenced)]);
    let outcome = work(&store, false, context(None), vec![answer("one")]).await;
    assert_eq!(outcome, Outcome::Settled);
    assert_eq!(store.writes().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn panic_of_a_chat_runner_is_an_error_of_its_chat() {
    let store = Store::answering([Ok(RunStatus::Error)]);
    let outcome = work(&store, false, context(None), vec![]).await;
    assert_eq!(outcome, Outcome::Settled);
    assert_eq!(store.writes(), ["step 0: error the runner panicked: no turn is left to fail"]);
}

/// The model is told where it stands, or it would offer what is refused.
#[tokio::test(start_paused = true)]
async fn turn_tells_how_deep_its_chat_is_and_whether_it_may_spawn() {
    let store = Store::answering([Ok(RunStatus::Waiting)]);
    let mut runner = MockChatRunner::new();
    runner.expect_turn().once().returning(|turn, _| {
        assert_eq!((turn.depth, turn.may_spawn), (3, true));
        assert_eq!(turn.model, Model::new("any").ok());
        answer("deep")
    });
    run_with(&store, false, context(None), Arc::new(runner)).await;
    assert_eq!(store.writes(), ["step 0: answer deep"]);
}

#[tokio::test(start_paused = true)]
async fn interrupted_turn_keeps_what_was_said() {
    let store = Store::answering([Ok(RunStatus::Waiting)]);
    let partial = TurnEnd::Stopped(vec![NewMessage::answer(Content::produced("half"), None)]);
    let interrupted = context(Some(StopCause::Interrupted));
    assert_eq!(work(&store, false, interrupted, vec![partial]).await, Outcome::Settled);
    assert_eq!(store.writes(), ["step 0: interrupted at half"]);
}

#[tokio::test(start_paused = true)]
async fn interrupted_turn_keeps_all_its_messages_up_to_a_bound() {
    let said = || NewMessage::answer(Content::produced("x"), None);
    let calls_and_results = vec![said(), NewMessage { role: Role::Tool, ..said() }];
    for (partial, expected) in [
        (calls_and_results, "step 0: interrupted at x of 2"),
        (
            vec![said(); ANSWER_MESSAGES_MAX + 1],
            "step 0: error the answer has 257 messages, at most 256 are allowed",
        ),
    ] {
        let store = Store::answering([Ok(RunStatus::Waiting)]);
        let interrupted = context(Some(StopCause::Interrupted));
        work(&store, false, interrupted, vec![TurnEnd::Stopped(partial)]).await;
        assert_eq!(store.writes(), [expected]);
    }
    // Nobody is told that a turn failed which another worker takes up.
    let store = Store::default();
    let partial = TurnEnd::Stopped(vec![said(); ANSWER_MESSAGES_MAX + 1]);
    let outcome = work(&store, false, context(Some(StopCause::Shutdown)), vec![partial]).await;
    assert_eq!(outcome, Outcome::GivenBack);
    assert!(store.writes().is_empty());
}

/// The lease passed while the model was at work: the answer is not even sent.
#[tokio::test(start_paused = true)]
async fn turn_that_outlived_its_lease_writes_nothing() {
    for cause in [StopCause::Fenced, StopCause::Lost] {
        let store = Store::default();
        work(&store, false, context(Some(cause)), vec![answer("one")]).await;
        assert!(store.writes().is_empty());
    }
}

/// Shutdown is never mistaken for an interrupt: the next worker answers the whole turn.
#[tokio::test(start_paused = true)]
async fn turn_stopped_by_shutdown_is_left_to_the_next_worker() {
    let store = Store::default();
    let partial = TurnEnd::Stopped(vec![NewMessage::answer(Content::produced("half"), None)]);
    let outcome = work(&store, false, context(Some(StopCause::Shutdown)), vec![partial]).await;
    assert_eq!(outcome, Outcome::GivenBack);
    assert!(store.writes().is_empty());
}

#[tokio::test(start_paused = true)]
async fn run_claimed_to_finish_an_interrupt_answers_nothing() {
    let store = Store::answering([Ok(RunStatus::Waiting)]);
    let outcome = work(&store, true, context(Some(StopCause::Interrupted)), vec![]).await;
    assert_eq!(outcome, Outcome::Settled);
    assert_eq!(store.writes(), ["step 0: interrupted"]);
}

/// The context of a run that nobody stops.
struct Unasked;

#[async_trait]
impl RunContext for Unasked {
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
}

fn context(stopped: Option<StopCause>) -> MockRunContext {
    let mut context = MockRunContext::new();
    context.expect_is_draining().return_const(false);
    context.expect_ending().return_const(());
    context.expect_begin().return_const(());
    context.expect_stop_cause().return_const(stopped);
    context
}

fn answer(text: &str) -> TurnEnd {
    TurnEnd::Answer(vec![NewMessage::answer(Content::produced(text), None)])
}

fn described(event: &Event) -> String {
    match event {
        Event::FinishTurn { answer, .. } => match answer.first() {
            Some(message) => format!("answer {}", message.content.to_text()),
            None => "answer nothing".to_owned(),
        },
        Event::FinishError { error } => format!("error {error}"),
        Event::FinishInterrupt { partial } => match partial.first() {
            Some(message) if partial.len() == 1 => {
                format!("interrupted at {}", message.content.to_text())
            }
            Some(message) => {
                format!("interrupted at {} of {}", message.content.to_text(), partial.len())
            }
            None => "interrupted".to_owned(),
        },
        Event::Step(messages) => format!("step of {}", messages.len()),
        event => panic!("no owner's event: {event:?}"),
    }
}

fn question(chat: ChatId) -> Message {
    Message {
        id: MessageId(1),
        chat_id: chat,
        version: Version(1),
        role: Role::User,
        content: Content::produced("why?"),
        visibility: Visibility::Both,
        compressed: false,
        deleted: false,
        model: Model::new("any").ok(),
        created_by: None,
        usage: Usage::default(),
        created_at: Timestamp::from_micros(0).unwrap(),
    }
}

fn unavailable() -> StoreError {
    StoreError::Unavailable { operation: "play", source: "the database is away".into() }
}

fn broken() -> StoreError {
    StoreError::Broken { operation: "play", source: "it cannot be stored".into() }
}
