//! The runner that answers a chat's turns with a model and its tools.

use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use musterbeat_core::message::{Content, Role};
use musterbeat_core::port::{ChatContext, ChatRunner, ChatTurn, TurnEnd};

use crate::guard::GuardTimes;
use crate::model::{Models, Said};
use crate::retry::RetryOptions;
use crate::tool::Toolkit;
use crate::turn::Turn;

/// Steps of a turn, at most, by default: a model that takes more goes round in circles.
pub const STEPS_MAX: NonZeroU32 = NonZeroU32::new(1_200).unwrap();

/// Calls of tools that a turn makes at once, at most, by default.
pub const CALLS_AT_ONCE: NonZeroUsize = NonZeroUsize::new(16).unwrap();

/// Time that a call of a tool may take by default.
pub const CALL_TIMEOUT: Duration = Duration::from_mins(5);

/// Bytes of a tool's output, as JSON, at most, by default: some 16,000 tokens.
pub const OUTPUT_BYTES_MAX: usize = 64 * 1024;

/// Time that a summary may take by default.
pub const SUMMARY_TIMEOUT: Duration = Duration::from_mins(5);

/// Answers the turns of chats: asks a model, makes the calls that it wishes, and asks again.
///
/// The model that a turn names is asked, and may call the tools of all toolkits. Each step, an
/// answer with the results of its calls, is stored before the next begins.
pub struct Agent {
    models: Arc<dyn Models>,
    toolkits: Vec<Arc<dyn Toolkit>>,
    options: AgentOptions,
}

/// How an agent works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentOptions {
    /// What precedes every history, as a message of the system; it is not stored.
    pub instructions: Option<String>,
    /// Steps of a turn, at most; a turn that would take more ends in an error.
    pub steps_max: NonZeroU32,
    /// Calls of tools that a turn makes at once, at most; others of the step wait.
    pub calls_at_once: NonZeroUsize,
    /// Time that a call may take, where its tool names none.
    pub call_timeout: Duration,
    /// Bytes of a tool's output, as JSON, at most; more is an error for the model to read.
    pub output_bytes_max: usize,
    /// When a model that gave no answer is asked again.
    pub retry: RetryOptions,
    /// How long a model may be silent.
    pub guard: GuardTimes,
    /// Time that a summary may take, with all attempts.
    pub summary_timeout: Duration,
}

impl Default for AgentOptions {
    fn default() -> Self {
        Self {
            instructions: None,
            steps_max: STEPS_MAX,
            calls_at_once: CALLS_AT_ONCE,
            call_timeout: CALL_TIMEOUT,
            output_bytes_max: OUTPUT_BYTES_MAX,
            retry: RetryOptions::default(),
            guard: GuardTimes::default(),
            summary_timeout: SUMMARY_TIMEOUT,
        }
    }
}

impl Agent {
    /// Answers with `models`, which may call the tools of `toolkits`.
    ///
    /// Of two tools with one name the first counts.
    pub fn new(
        models: Arc<dyn Models>,
        toolkits: Vec<Arc<dyn Toolkit>>,
        options: AgentOptions,
    ) -> Self {
        Self { models, toolkits, options }
    }

    fn instructions(&self) -> Option<Said> {
        let text = self.options.instructions.as_deref()?;
        Some(Said { role: Role::System, content: Content::produced(text) })
    }
}

#[async_trait]
impl ChatRunner for Agent {
    async fn turn(&self, turn: ChatTurn, context: Arc<dyn ChatContext>) -> TurnEnd {
        let chosen = match self.models.choose(turn.model.as_ref()).await {
            Ok(chosen) => chosen,
            Err(error) => return TurnEnd::Failed(error.to_string()),
        };
        let opened = self.toolkits.iter().map(|kit| kit.open(&turn));
        let tools = futures_util::future::join_all(opened).await.into_iter().flatten();
        let turn =
            Turn::new(turn, self.instructions(), chosen, tools.collect(), &self.options, context);
        turn.run().await
    }
}
