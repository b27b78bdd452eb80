//! The runner of chats: turn by turn it asks for an answer and stores it.

use std::sync::Arc;

use async_trait::async_trait;
use musterbeat_core::chat::{ANSWER_MESSAGES_MAX, Event};
use musterbeat_core::id::{ChatId, OwnerId, RunId};
use musterbeat_core::message::NewMessage;
use musterbeat_core::port::{
    ApplyError, ChatContext, ChatRunner, ChatTurn, Prompt, RunContext, Runner, StoreError, TurnEnd,
};
use musterbeat_core::run::{Outcome, Run, RunKind, StopCause};
use tokio::sync::Semaphore;

use super::Chats;
use super::context::TurnContext;
use crate::activity::ActivityTracker;
use crate::panic::caught;
use crate::retry::Retry;

/// Prompts read at once.
///
/// Each claim starts a hundred turns, and the next one must not wait behind their prompts: so
/// these leave most of the connections to others.
const PROMPTS_AT_ONCE: usize = 4;

/// Takes the runs of chats: turn by turn it asks a [`ChatRunner`] and stores its answer.
pub struct ChatRuns {
    chats: Chats,
    runner: Arc<dyn ChatRunner>,
    prompts: Semaphore,
    activity: Option<ActivityTracker>,
}

impl ChatRuns {
    /// Answers `chats` with `runner`.
    pub fn new(chats: Chats, runner: Arc<dyn ChatRunner>) -> Self {
        Self { chats, runner, prompts: Semaphore::new(PROMPTS_AT_ONCE), activity: None }
    }

    /// Has `activity` learn which chats are at work, for the sake of their workspaces.
    #[must_use]
    pub fn with_activity(self, activity: ActivityTracker) -> Self {
        Self { activity: Some(activity), ..self }
    }

    /// Answers one turn; `None` when the run is to go back to the others.
    async fn turn(
        &self,
        run: &Run,
        chat: ChatId,
        context: &Arc<TurnContext>,
    ) -> Result<Option<Event>, StoreError> {
        if run.stop {
            // Claimed only to finish an interrupt: nothing of an answer is left.
            return Ok(Some(Event::FinishInterrupt { partial: vec![] }));
        }
        let turn = self.prepared(run, chat, &**context).await?;
        let shared: Arc<dyn ChatContext> = Arc::clone(context) as _;
        let ended = caught("the runner", self.runner.turn(turn, shared)).await;
        Ok(match ended {
            Ok(TurnEnd::Answer(answer)) => {
                let draining = context.is_draining();
                Some(bounded(answer, |answer| Event::FinishTurn { answer, draining }))
            }
            Ok(TurnEnd::Failed(error)) | Err(error) => Some(Event::FinishError { error }),
            Ok(TurnEnd::Stopped(partial)) => match context.stop_cause() {
                Some(StopCause::Interrupted) => {
                    Some(bounded(partial, |partial| Event::FinishInterrupt { partial }))
                }
                Some(_) => None,
                None => {
                    let error = "the runner stopped without being asked to".to_owned();
                    Some(Event::FinishError { error })
                }
            },
        })
    }

    async fn prepared(
        &self,
        run: &Run,
        chat: ChatId,
        context: &dyn RunContext,
    ) -> Result<ChatTurn, StoreError> {
        let Prompt { messages: prompt, depth, may_spawn } = self.prompt(chat, context).await?;
        let model = prompt.iter().rev().find_map(|message| message.model.clone());
        Ok(ChatTurn { chat, owner: run.owner, depth, may_spawn, model, prompt })
    }

    async fn prompt(&self, chat: ChatId, context: &dyn RunContext) -> Result<Prompt, StoreError> {
        let mut retry = Retry::new(context);
        loop {
            // Not held while it waits to try again: others may have more luck.
            let permit = self.prompts.acquire().await.expect("nobody closes the semaphore");
            let read = self.chats.ports.store.prompt(chat).await;
            drop(permit);
            match read {
                Ok(prompt) => return Ok(prompt),
                Err(error) => retry.wait(error).await?,
            }
        }
    }
}

#[async_trait]
impl Runner for ChatRuns {
    fn kind(&self) -> RunKind {
        RunKind::CHAT
    }

    fn changed(&self, run: RunId, owner: OwnerId) {
        self.chats.moved(run, owner);
    }

    async fn run(&self, run: Run, context: Arc<dyn RunContext>) -> Outcome {
        let chat = ChatId::new(run.id.uuid());
        let _at_work = self.activity.as_ref().map(|activity| activity.chat_works(chat));
        // The claim moved the chat's version.
        self.chats.moved(run.id, run.owner);
        let context = Arc::new(TurnContext::new(&run, self.chats.clone(), context));
        loop {
            let event = match self.turn(&run, chat, &context).await {
                Ok(Some(event)) => event,
                Ok(None) => return Outcome::GivenBack,
                Err(error) => match unless_passing(chat, error.into()) {
                    Some(event) => event,
                    None => return Outcome::GivenBack,
                },
            };
            context.ending();
            let token = context.token().await;
            let mut settled = self.chats.settle(chat, token, event, &*context).await;
            if let Err(error @ (ApplyError::Store(_) | ApplyError::Refused(_))) = settled {
                let Some(event) = unless_passing(chat, error) else { return Outcome::GivenBack };
                settled = self.chats.settle(chat, token, event, &*context).await;
            }
            match settled {
                Ok(applied) if applied.status.is_owned() => context.turned(applied.step).await,
                // Or somebody else owns the run: its end is theirs to write.
                Ok(_) | Err(ApplyError::Fenced | ApplyError::NotFound) => return Outcome::Settled,
                Err(error) => return Outcome::Failed(error.to_string()),
            }
        }
    }
}

/// Returns what ends a turn with `messages`, or fails it when there are too many.
fn bounded(messages: Vec<NewMessage>, event: impl FnOnce(Vec<NewMessage>) -> Event) -> Event {
    if messages.len() <= ANSWER_MESSAGES_MAX {
        return event(messages);
    }
    let count = messages.len();
    let error =
        format!("the answer has {count} messages, at most {ANSWER_MESSAGES_MAX} are allowed");
    Event::FinishError { error }
}

/// Says what becomes of a turn that storage did not take; `None` when another worker may try.
///
/// What storage refuses, it would refuse again: the turn ends, or it would be asked for ever.
fn unless_passing(chat: ChatId, error: ApplyError) -> Option<Event> {
    tracing::warn!(
        chat.id = %chat,
        error = &error as &dyn std::error::Error,
        "a turn could not be read or stored"
    );
    match error {
        ApplyError::Store(StoreError::Unavailable { .. }) => None,
        error => Some(Event::FinishError { error: format!("the turn was not stored: {error}") }),
    }
}
