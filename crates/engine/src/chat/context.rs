//! What a runner of chats meets the world with.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use musterbeat_core::chat::{ANSWER_MESSAGES_MAX, Chat, Event, Report, WhenBusy};
use musterbeat_core::id::{ChatId, OwnerId, Step};
use musterbeat_core::message::{Content, NewMessage};
use musterbeat_core::port::{
    ApplyError, AwaitError, ChatContext, Halt, KinError, NewChild, RunContext, StepError, Waiter,
    Waiting,
};
use musterbeat_core::run::{Run, StopCause, Token};
use tokio::sync::Mutex;

use super::Chats;
use super::kin::Parent;

/// One chat's run, as its runner sees it.
pub(super) struct TurnContext {
    chat: ChatId,
    owner: OwnerId,
    chats: Chats,
    run: Arc<dyn RunContext>,
    /// Names the ownership, and the first write.
    claimed: Token,
    /// Names the next write; held while a write is on its way.
    token: Arc<Mutex<Token>>,
}

impl TurnContext {
    pub(super) fn new(run: &Run, chats: Chats, context: Arc<dyn RunContext>) -> Self {
        let token = Arc::new(Mutex::new(run.token));
        let (chat, owner, claimed) = (ChatId::new(run.id.uuid()), run.owner, run.token);
        Self { chat, owner, chats, run: context, claimed, token }
    }

    fn parent(&self) -> Parent<'_> {
        Parent { chat: self.chat, owner: self.owner, chats: &self.chats, run: &*self.run }
    }

    /// Returns the name of the next write, once no other is on its way.
    pub(super) async fn token(&self) -> Token {
        *self.token.lock().await
    }

    /// Goes on after the owner's write that ended a turn and kept the run.
    pub(super) async fn turned(&self, step: Step) {
        self.token.lock().await.step = step;
        self.run.begin(step);
    }
}

#[async_trait]
impl ChatContext for TurnContext {
    async fn step(&self, messages: Vec<NewMessage>) -> Result<(), StepError> {
        if messages.len() > ANSWER_MESSAGES_MAX {
            return Err(StepError::TooMany { count: messages.len(), max: ANSWER_MESSAGES_MAX });
        }
        let mut token = Arc::clone(&self.token).lock_owned().await;
        let (chat, chats, run) = (self.chat, self.chats.clone(), Arc::clone(&self.run));
        // In a task of its own, which the next write waits for: if a dropped future ended it
        // halfway, nobody would know which step comes next.
        let written = tokio::spawn(async move {
            let event = Event::Step(messages);
            let applied = chats.settle(chat, *token, event, &*run).await?;
            token.step = applied.step;
            run.begin(applied.step);
            Ok(())
        });
        let written = written.await.unwrap_or(Err(ApplyError::Fenced));
        written.map_err(|error| match error {
            ApplyError::Refused(refused) => StepError::Refused(refused),
            ApplyError::Store(error) => StepError::Store(error),
            // A step puts no chat anywhere.
            ApplyError::Fenced | ApplyError::NotFound | ApplyError::NoWorkspace => {
                StepError::Fenced
            }
        })
    }

    async fn await_chat(
        &self,
        descendant: ChatId,
        timeout: Option<Duration>,
    ) -> Result<Report, AwaitError> {
        let waiter = Waiter { run: self.chat.into(), token: self.claimed };
        tokio::select! {
            biased;
            cause = self.run.stopped() => Err(AwaitError::Stopped(cause)),
            report = self.chats.wait_in_run(waiter, &*self.run, descendant, timeout) => report,
        }
    }

    async fn spawn(&self, child: NewChild) -> Result<(), KinError> {
        self.parent().spawn(child).await
    }

    async fn send(
        &self,
        descendant: ChatId,
        content: Content,
        when_busy: WhenBusy,
    ) -> Result<bool, KinError> {
        self.parent().send(descendant, content, when_busy).await
    }

    async fn halt(&self, descendant: ChatId, halt: Halt) -> Result<(), KinError> {
        self.parent().halt(descendant, halt).await
    }

    async fn children(&self) -> Result<Vec<Chat>, KinError> {
        self.parent().children().await
    }
}

#[async_trait]
impl RunContext for TurnContext {
    async fn stopped(&self) -> StopCause {
        self.run.stopped().await
    }

    fn stop_cause(&self) -> Option<StopCause> {
        self.run.stop_cause()
    }

    fn is_draining(&self) -> bool {
        self.run.is_draining()
    }

    fn ending(&self) {
        self.run.ending();
    }

    fn begin(&self, step: Step) {
        self.run.begin(step);
    }

    fn part(&self, part: Vec<u8>) {
        self.run.part(part);
    }

    fn waiting(&self) -> Waiting {
        self.run.waiting()
    }
}
