//! Stands in for the engine: keeps what a turn stores and publishes, and stops it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use musterbeat_core::call::open_calls;
use musterbeat_core::chat::{Chat, Refused, Report, WhenBusy};
use musterbeat_core::id::{ChatId, MessageId, OwnerId, Step, Version};
use musterbeat_core::message::{Content, Message, NewMessage, Part, Role, Usage, Visibility};
use musterbeat_core::port::{
    AwaitError, ChatContext, ChatTurn, Halt, KinError, NewChild, RunContext, StepError, TurnEnd,
};
use musterbeat_core::run::{RunStatus, StopCause};
use musterbeat_core::timestamp::Timestamp;
use serde_json::Value;
use time::OffsetDateTime;
use tokio::sync::watch;
use uuid::Uuid;

use crate::script::shown;

/// One chat's history and its run.
pub(crate) struct Stage {
    history: Mutex<Vec<NewMessage>>,
    /// How many writes there were.
    steps: watch::Sender<usize>,
    refuse: Mutex<Option<StepError>>,
    parts: watch::Sender<Vec<Value>>,
    stop: watch::Sender<Option<StopCause>>,
    pub(crate) deeds: Mutex<Vec<String>>,
    pub(crate) report: Mutex<Option<Report>>,
}

pub(crate) fn chat() -> ChatId {
    ChatId::new(Uuid::from_u128(1))
}

pub(crate) fn said(role: Role, parts: Vec<Part>) -> NewMessage {
    let content = Content::produced_parts(parts).unwrap();
    NewMessage { role, ..NewMessage::answer(content, None) }
}

pub(crate) fn words(role: Role, text: &str) -> NewMessage {
    said(role, vec![Part::Text { text: text.to_owned() }])
}

impl Stage {
    /// A chat in which the user asked something.
    pub(crate) fn asked(question: &str) -> Arc<Self> {
        Self::with(vec![words(Role::User, question)])
    }

    pub(crate) fn with(history: Vec<NewMessage>) -> Arc<Self> {
        Arc::new(Self {
            history: Mutex::new(history),
            steps: watch::Sender::default(),
            refuse: Mutex::default(),
            parts: watch::Sender::default(),
            stop: watch::Sender::default(),
            deeds: Mutex::default(),
            report: Mutex::default(),
        })
    }

    pub(crate) fn stop(&self, cause: StopCause) {
        self.stop.send_replace(Some(cause));
    }

    /// Has the next write fail.
    pub(crate) fn refuse(&self, error: StepError) {
        *self.refuse.lock().unwrap() = Some(error);
    }

    pub(crate) fn turn(&self) -> ChatTurn {
        ChatTurn {
            chat: chat(),
            owner: OwnerId::new(Uuid::from_u128(2)),
            depth: 0,
            may_spawn: true,
            model: None,
            prompt: self.prompt(),
        }
    }

    /// Returns the history as storage shows it to a model.
    fn prompt(&self) -> Vec<Message> {
        let history = self.history.lock().unwrap();
        let boundary = history
            .iter()
            .rposition(|message| message.compressed && message.visibility == Visibility::Model);
        let seen = history.iter().enumerate().filter(|(place, message)| {
            let after = boundary.is_none_or(|boundary| *place > boundary);
            Some(*place) == boundary
                || (message.visibility != Visibility::User
                    && !message.compressed
                    && (message.role == Role::System || after))
        });
        seen.map(|(place, message)| stored(place, message)).collect()
    }

    /// Adds what the end of a turn stores, as the engine does.
    pub(crate) fn ended(&self, end: &TurnEnd) {
        let mut history = self.history.lock().unwrap();
        match end {
            TurnEnd::Answer(messages) | TurnEnd::Stopped(messages) => {
                history.extend(messages.clone());
            }
            TurnEnd::Failed(_) => {}
        }
    }

    /// Returns all that was stored, one message a line.
    pub(crate) fn history(&self) -> Vec<String> {
        self.history.lock().unwrap().iter().map(line).collect()
    }

    pub(crate) fn messages(&self) -> Vec<NewMessage> {
        self.history.lock().unwrap().clone()
    }

    pub(crate) fn steps(&self) -> usize {
        *self.steps.borrow()
    }

    /// Waits until there were so many writes.
    pub(crate) async fn stores(&self, steps: usize) {
        self.steps.subscribe().wait_for(|made| steps <= *made).await.unwrap();
    }

    /// Returns what followers saw, a part a line.
    pub(crate) fn seen(&self) -> Vec<String> {
        self.parts.borrow().iter().map(seen).collect()
    }

    pub(crate) fn parts(&self) -> Vec<Value> {
        self.parts.borrow().clone()
    }

    /// Waits until followers have seen `expected`.
    pub(crate) async fn sees(&self, expected: &str) {
        let mut parts = self.parts.subscribe();
        parts.wait_for(|parts| parts.iter().any(|part| seen(part) == expected)).await.unwrap();
    }

    /// Says which calls nobody has answered.
    pub(crate) fn open(&self) -> usize {
        let history = self.history.lock().unwrap();
        open_calls(history.iter().map(|message| &message.content)).len()
    }
}

fn seen(part: &Value) -> String {
    match serde_json::from_value(part.clone()).unwrap() {
        Part::Other(fields) => fields["type"].as_str().unwrap().to_owned(),
        part => shown(&part),
    }
}

/// Returns what messages say, one a line.
pub(crate) fn lines(messages: &[NewMessage]) -> Vec<String> {
    messages.iter().map(line).collect()
}

fn line(message: &NewMessage) -> String {
    let role = serde_json::to_value(message.role).unwrap();
    let parts: Vec<String> = message.content.parts().iter().map(shown).collect();
    format!("{}: {}", role.as_str().unwrap(), parts.join(" | "))
}

fn stored(place: usize, message: &NewMessage) -> Message {
    Message {
        id: MessageId(i64::try_from(place).unwrap()),
        chat_id: chat(),
        version: Version(1),
        role: message.role,
        content: message.content.clone(),
        visibility: message.visibility,
        compressed: message.compressed,
        deleted: false,
        model: message.model.clone(),
        created_by: None,
        usage: Usage::default(),
        created_at: Timestamp::new(OffsetDateTime::UNIX_EPOCH),
    }
}

pub(crate) fn report(status: RunStatus, error: Option<&str>, text: Option<&str>) -> Report {
    Report {
        chat: ChatId::new(Uuid::from_u128(7)),
        status,
        error: error.map(str::to_owned),
        version: Version(3),
        text: text.map(str::to_owned),
    }
}

#[async_trait]
impl RunContext for Stage {
    async fn stopped(&self) -> StopCause {
        let mut stop = self.stop.subscribe();
        stop.wait_for(Option::is_some).await.unwrap().unwrap()
    }

    fn stop_cause(&self) -> Option<StopCause> {
        *self.stop.borrow()
    }

    fn is_draining(&self) -> bool {
        false
    }

    fn ending(&self) {}

    fn begin(&self, _: Step) {}

    fn part(&self, part: Vec<u8>) {
        self.parts.send_modify(|parts| parts.push(serde_json::from_slice(&part).unwrap()));
    }
}

#[async_trait]
impl ChatContext for Stage {
    async fn step(&self, messages: Vec<NewMessage>) -> Result<(), StepError> {
        if let Some(error) = self.refuse.lock().unwrap().take() {
            return Err(error);
        }
        self.history.lock().unwrap().extend(messages);
        self.steps.send_modify(|steps| *steps += 1);
        Ok(())
    }

    async fn await_chat(
        &self,
        descendant: ChatId,
        timeout: Option<Duration>,
    ) -> Result<Report, AwaitError> {
        self.did(format!("wait {} {timeout:?}", short(descendant)));
        match self.report.lock().unwrap().clone() {
            Some(report) => Ok(report),
            None => Err(AwaitError::NotADescendant(descendant)),
        }
    }

    async fn spawn(&self, child: NewChild) -> Result<(), KinError> {
        let spawned = format!("spawn {:?} {:?}", child.title.as_str(), child.content.to_text());
        if child.title.as_str() == "too many" {
            return Err(KinError::Refused(Refused::ParentArchived));
        }
        self.did(format!("{spawned} {}", child.id.uuid()));
        Ok(())
    }

    async fn send(
        &self,
        descendant: ChatId,
        content: Content,
        when_busy: WhenBusy,
    ) -> Result<bool, KinError> {
        self.did(format!("send {} {:?} {when_busy:?}", short(descendant), content.to_text()));
        Ok(when_busy == WhenBusy::Queue)
    }

    async fn halt(&self, descendant: ChatId, halt: Halt) -> Result<(), KinError> {
        self.did(format!("halt {} {halt:?}", short(descendant)));
        Ok(())
    }

    async fn children(&self) -> Result<Vec<Chat>, KinError> {
        Ok(vec![])
    }
}

impl Stage {
    fn did(&self, deed: String) {
        self.deeds.lock().unwrap().push(deed);
    }
}

fn short(chat: ChatId) -> u128 {
    chat.uuid().as_u128()
}
