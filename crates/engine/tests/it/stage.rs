//! What a turn needs around it, and waits for states.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use musterbeat_core::chat::{Chat, Report, WhenBusy};
use musterbeat_core::id::{ChatId, MessageId, OwnerId, Step, Version};
use musterbeat_core::message::{Content, Message, Model, NewMessage, Role, Usage, Visibility};
use musterbeat_core::port::{
    AwaitError, ChatContext, ChatTurn, Halt, KinError, NewChild, RunContext, StepError,
};
use musterbeat_core::run::StopCause;
use musterbeat_core::timestamp::Timestamp;
use musterbeat_engine::command::{Command, CommandLimits};
use nix::errno::Errno;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

/// Longest wait for a state; only a test that fails takes it.
pub(crate) const WAIT_MAX: Duration = Duration::from_mins(1);

/// Limits that no test meets unless it sets them.
pub(crate) fn limits() -> CommandLimits {
    CommandLimits { time_max: WAIT_MAX, ..CommandLimits::default() }
}

/// Answers with a script of the shell.
pub(crate) fn shell(script: &str, limits: CommandLimits) -> Command {
    let args = vec!["-c".to_owned(), script.to_owned()];
    Command { program: PathBuf::from("/bin/sh"), args, limits }
}

/// Returns a turn that asks `question`.
pub(crate) fn turn(question: &str) -> ChatTurn {
    let chat = ChatId::new(Uuid::from_u128(1));
    let message = Message {
        id: MessageId(7),
        chat_id: chat,
        version: Version(1),
        role: Role::User,
        content: Content::produced(question),
        visibility: Visibility::Both,
        compressed: false,
        deleted: false,
        model: None,
        created_by: None,
        usage: Usage::default(),
        created_at: Timestamp::from_micros(0).unwrap(),
    };
    ChatTurn {
        chat,
        owner: OwnerId::new(Uuid::from_u128(2)),
        depth: 0,
        may_spawn: true,
        model: Some(Model::new("small").unwrap()),
        prompt: vec![message],
    }
}

/// Stands in for the engine: collects parts, and stops the turn when the test wants it.
#[derive(Debug, Default)]
pub(crate) struct Stage {
    parts: Mutex<Vec<String>>,
    published: watch::Sender<usize>,
    stop: watch::Sender<Option<StopCause>>,
}

impl Stage {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn stop(&self, cause: StopCause) {
        self.stop.send_replace(Some(cause));
    }

    /// Returns the text of the parts published so far.
    pub(crate) fn texts(&self) -> Vec<String> {
        let parts = self.parts.lock().unwrap();
        parts
            .iter()
            .map(|part| {
                let part: serde_json::Value = serde_json::from_str(part).unwrap();
                assert_eq!(part["type"], "text");
                part["text"].as_str().unwrap().to_owned()
            })
            .collect()
    }

    /// Waits until at least `count` parts were published, and returns their text.
    pub(crate) async fn texts_of(&self, count: usize) -> Vec<String> {
        let mut published = self.published.subscribe();
        let come = published.wait_for(|published| *published >= count);
        timeout(WAIT_MAX, come).await.expect("the parts did not come").unwrap();
        self.texts()
    }
}

#[async_trait]
impl RunContext for Stage {
    async fn stopped(&self) -> StopCause {
        let mut stop = self.stop.subscribe();
        let cause = *stop.wait_for(Option::is_some).await.unwrap();
        cause.unwrap()
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
        self.parts.lock().unwrap().push(String::from_utf8(part).unwrap());
        self.published.send_modify(|published| *published += 1);
    }
}

/// Waits until the process is gone; one that only its parent can still see counts as gone.
pub(crate) async fn gone(pid: &str) {
    let ended = async {
        while runs(pid) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(WAIT_MAX, ended).await.unwrap_or_else(|_| panic!("process {pid} is still there"));
}

/// Says whether a process runs.
pub(crate) fn runs(pid: &str) -> bool {
    let is_zombie = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit(") ").next().is_some_and(|state| state.starts_with('Z'))
    };
    exists(pid) && !is_zombie()
}

/// Says whether a process is known to the system, be it a zombie.
pub(crate) fn exists(pid: &str) -> bool {
    kill(Pid::from_raw(pid.parse().unwrap()), None) != Err(Errno::ESRCH)
}

#[async_trait]
impl ChatContext for Stage {
    async fn step(&self, _messages: Vec<NewMessage>) -> Result<(), StepError> {
        panic!("no program takes steps")
    }

    async fn await_chat(
        &self,
        _descendant: ChatId,
        _timeout: Option<Duration>,
    ) -> Result<Report, AwaitError> {
        panic!("no program waits for chats")
    }

    async fn spawn(&self, _child: NewChild) -> Result<(), KinError> {
        panic!("no program has children")
    }

    async fn send(
        &self,
        _descendant: ChatId,
        _content: Content,
        _when_busy: WhenBusy,
    ) -> Result<bool, KinError> {
        panic!("no program has children")
    }

    async fn halt(&self, _descendant: ChatId, _halt: Halt) -> Result<(), KinError> {
        panic!("no program has children")
    }

    async fn children(&self) -> Result<Vec<Chat>, KinError> {
        panic!("no program has children")
    }
}
