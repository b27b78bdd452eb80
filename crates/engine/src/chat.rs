//! Chats: the one place that changes them, and the runner that takes their runs.

use std::sync::Arc;

use async_trait::async_trait;
use musterbeat_core::chat::{ANSWER_MESSAGES_MAX, Applied, Event, NewChat};
use musterbeat_core::id::{ChatId, RunId};
use musterbeat_core::message::{Message, NewMessage};
use musterbeat_core::port::{
    ApplyError, By, ChatRunner, ChatStore, ChatTurn, Publish, RunContext, Runner, StoreError,
    Topic, TurnEnd,
};
use musterbeat_core::run::{Outcome, Run, RunKind, RunStatus, StopCause, Token};
use tokio::sync::Semaphore;

use crate::panic::caught;
use crate::retry::Retry;

/// Changes chats, and publishes each change after its commit. Clones share the ports.
#[derive(Clone)]
pub struct Chats {
    store: Arc<dyn ChatStore>,
    publish: Arc<dyn Publish>,
}

impl Chats {
    /// Changes the chats of `store`.
    pub fn new(store: Arc<dyn ChatStore>, publish: Arc<dyn Publish>) -> Self {
        Self { store, publish }
    }

    /// Creates a chat and wakes a worker for it; see [`ChatStore::create`].
    pub async fn create(&self, chat: NewChat) -> Result<Applied, ApplyError> {
        let applied = self.store.create(chat).await?;
        self.changed(&applied);
        Ok(applied)
    }

    /// Applies an event to a chat; see [`ChatStore::apply`].
    pub async fn apply(&self, chat: ChatId, by: By, event: Event) -> Result<Applied, ApplyError> {
        let applied = self.store.apply(chat, by, event).await?;
        self.changed(&applied);
        Ok(applied)
    }

    /// Sends an owner's write again until it is answered, which is harmless: it names its step.
    ///
    /// Before each attempt it asks whether the run is still the owner's.
    async fn settle(
        &self,
        chat: ChatId,
        token: Token,
        event: Event,
        context: &dyn RunContext,
    ) -> Result<Applied, ApplyError> {
        let mut retry = Retry::new(context);
        loop {
            if !context.stop_cause().is_none_or(StopCause::allows_writes) {
                return Err(ApplyError::Fenced);
            }
            match self.apply(chat, By::Owner(token), event.clone()).await {
                Err(ApplyError::Store(error)) => retry.wait(error).await?,
                answered => return answered,
            }
        }
    }

    fn changed(&self, applied: &Applied) {
        self.publish.publish(Topic::Chat, applied.chat.uuid());
        // Whatever the event: a run that others held locked may have been passed over.
        if applied.status == RunStatus::Pending {
            self.publish.publish(Topic::Pending, RunId::from(applied.chat).uuid());
        }
    }
}

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
}

impl ChatRuns {
    /// Answers `chats` with `runner`.
    pub fn new(chats: Chats, runner: Arc<dyn ChatRunner>) -> Self {
        Self { chats, runner, prompts: Semaphore::new(PROMPTS_AT_ONCE) }
    }

    /// Answers one turn; `None` when the run is to go back to the others.
    async fn turn(
        &self,
        run: &Run,
        chat: ChatId,
        context: &Arc<dyn RunContext>,
    ) -> Result<Option<Event>, StoreError> {
        if run.stop {
            // Claimed only to finish an interrupt: nothing of an answer is left.
            return Ok(Some(Event::FinishTurn { answer: vec![], draining: context.is_draining() }));
        }
        let turn = self.prepared(run, chat, &**context).await?;
        let model = turn.model.clone();
        let ended = caught(self.runner.turn(turn, Arc::clone(context))).await;
        Ok(match ended {
            Ok(TurnEnd::Answer(answer)) if answer.len() > ANSWER_MESSAGES_MAX => {
                let error = format!(
                    "the answer has {} messages, at most {ANSWER_MESSAGES_MAX} are allowed",
                    answer.len()
                );
                Some(Event::FinishError { error })
            }
            Ok(TurnEnd::Answer(answer)) => {
                Some(Event::FinishTurn { answer, draining: context.is_draining() })
            }
            Ok(TurnEnd::Failed(error)) | Err(error) => Some(Event::FinishError { error }),
            Ok(TurnEnd::Stopped(partial)) => match context.stop_cause() {
                Some(StopCause::Interrupted) => {
                    let answer = partial.map(|content| NewMessage::answer(content, model));
                    let answer = answer.into_iter().collect();
                    Some(Event::FinishTurn { answer, draining: context.is_draining() })
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
        let prompt = self.prompt(chat, context).await?;
        let model = prompt.iter().rev().find_map(|message| message.model.clone());
        Ok(ChatTurn { chat, owner: run.owner, model, prompt })
    }

    async fn prompt(
        &self,
        chat: ChatId,
        context: &dyn RunContext,
    ) -> Result<Vec<Message>, StoreError> {
        let mut retry = Retry::new(context);
        loop {
            // Not held while it waits to try again: others may have more luck.
            let permit = self.prompts.acquire().await.expect("nobody closes the semaphore");
            let read = self.chats.store.prompt(chat).await;
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

    fn changed(&self, run: RunId) {
        self.chats.publish.publish(Topic::Chat, run.uuid());
    }

    async fn run(&self, run: Run, context: Arc<dyn RunContext>) -> Outcome {
        let chat = ChatId::new(run.id.uuid());
        // The claim moved the chat's version.
        self.chats.publish.publish(Topic::Chat, chat.uuid());
        let mut token = run.token;
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
            let mut settled = self.chats.settle(chat, token, event, &*context).await;
            if let Err(error @ (ApplyError::Store(_) | ApplyError::Refused(_))) = settled {
                let Some(event) = unless_passing(chat, error) else { return Outcome::GivenBack };
                settled = self.chats.settle(chat, token, event, &*context).await;
            }
            match settled {
                Ok(applied) if applied.status.is_owned() => {
                    token.step = applied.step;
                    context.begin(token.step);
                }
                // Or somebody else owns the run: its end is theirs to write.
                Ok(_) | Err(ApplyError::Fenced | ApplyError::NotFound) => return Outcome::Settled,
                Err(error) => return Outcome::Failed(error.to_string()),
            }
        }
    }
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

#[cfg(test)]
mod tests;
