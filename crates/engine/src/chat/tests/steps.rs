//! Steps in the midst of a turn.

use futures_util::FutureExt;
use musterbeat_core::chat::Refused;
use musterbeat_core::port::{ChatContext, ChatRunner, ChatTurn, StepError};

use super::*;

/// How a runner of these tests takes its steps before it answers.
enum Steps {
    /// This many messages, and then one.
    Two(usize),
    /// One whose future it drops at once.
    Dropped,
}

struct Stepping {
    steps: Steps,
    errors: Arc<Mutex<Vec<String>>>,
}

#[async_trait]
impl ChatRunner for Stepping {
    async fn turn(&self, _turn: ChatTurn, context: Arc<dyn ChatContext>) -> TurnEnd {
        let counts = match self.steps {
            Steps::Two(first) => vec![first, 1],
            Steps::Dropped => {
                assert!(context.step(messages(3)).now_or_never().is_none());
                vec![]
            }
        };
        for count in counts {
            if let Err(error) = context.step(messages(count)).await {
                self.errors.lock().unwrap().push(named(&error));
            }
        }
        answer("done")
    }
}

fn messages(count: usize) -> Vec<NewMessage> {
    vec![NewMessage::answer(Content::produced("x"), None); count]
}

fn named(error: &StepError) -> String {
    match error {
        StepError::Fenced => "fenced".to_owned(),
        error => error.to_string(),
    }
}

async fn work_in(store: &Store, steps: Steps) -> (Outcome, Vec<String>) {
    let errors = Arc::default();
    let runner = Stepping { steps, errors: Arc::clone(&errors) };
    let outcome = run_with(store, false, context(None), Arc::new(runner)).await;
    let errors = errors.lock().unwrap().clone();
    (outcome, errors)
}

#[tokio::test(start_paused = true)]
async fn each_step_is_a_write_of_its_own() {
    let running = || Ok(RunStatus::Running);
    let store = Store::answering([running(), running(), Ok(RunStatus::Waiting)]);
    assert_eq!(work_in(&store, Steps::Two(2)).await, (Outcome::Settled, vec![]));
    assert_eq!(store.writes(), ["step 0: step of 2", "step 1: step of 1", "step 2: answer done"]);
}

#[tokio::test(start_paused = true)]
async fn step_whose_answer_is_lost_is_sent_again() {
    let lost = Err(ApplyError::Store(unavailable()));
    let running = || Ok(RunStatus::Running);
    let store = Store::answering([lost, running(), running(), Ok(RunStatus::Waiting)]);
    assert_eq!(work_in(&store, Steps::Two(2)).await, (Outcome::Settled, vec![]));
    assert_eq!(store.writes()[..2], ["step 0: step of 2", "step 0: step of 2"]);
}

/// Nobody would know which step comes next, and the answer would be taken for the lost step.
#[tokio::test(start_paused = true)]
async fn step_whose_future_is_dropped_is_finished_before_the_next_write() {
    let store = Store::answering([Ok(RunStatus::Running), Ok(RunStatus::Waiting)]);
    assert_eq!(work_in(&store, Steps::Dropped).await, (Outcome::Settled, vec![]));
    assert_eq!(store.writes(), ["step 0: step of 3", "step 1: answer done"]);
}

#[tokio::test(start_paused = true)]
async fn refused_step_leaves_the_turn_its_step() {
    let refused = Err(ApplyError::Refused(Refused::CallOpen));
    let store = Store::answering([refused, Ok(RunStatus::Running), Ok(RunStatus::Waiting)]);
    let (outcome, errors) = work_in(&store, Steps::Two(2)).await;
    assert_eq!(outcome, Outcome::Settled);
    assert_eq!(errors, ["a call of a tool is open; answer it first"]);
    assert_eq!(store.writes(), ["step 0: step of 2", "step 0: step of 1", "step 1: answer done"]);
}

#[tokio::test(start_paused = true)]
async fn step_of_too_many_messages_is_not_sent() {
    let store = Store::answering([Ok(RunStatus::Running), Ok(RunStatus::Waiting)]);
    let (_, errors) = work_in(&store, Steps::Two(ANSWER_MESSAGES_MAX + 1)).await;
    assert_eq!(errors, ["a step has 257 messages, at most 256 are allowed"]);
    assert_eq!(store.writes(), ["step 0: step of 1", "step 1: answer done"]);
}

#[tokio::test(start_paused = true)]
async fn step_of_an_owner_that_was_replaced_is_told_so() {
    let fenced = || Err(ApplyError::Fenced);
    let store = Store::answering([fenced(), fenced(), fenced()]);
    let (outcome, errors) = work_in(&store, Steps::Two(1)).await;
    assert_eq!((outcome, errors), (Outcome::Settled, vec!["fenced".to_owned(); 2]));
}
