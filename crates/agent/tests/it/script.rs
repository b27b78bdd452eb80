//! A model that answers as its test wrote.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use musterbeat_agent::agent::{Agent, AgentOptions};
use musterbeat_agent::error::{ErrorKind, ModelError};
use musterbeat_agent::model::{Call, Chosen, Delta, End, Model, Request};
use musterbeat_agent::tool::{Conduct, Tool, ToolCall, ToolContext, ToolError, ToolSpec, Toolkit};
use musterbeat_core::message::{Model as ModelName, Part, Usage};
use musterbeat_core::model_config::ModelConfig;
use serde_json::{Value, json};
use tokio::sync::watch;

/// One answer of a scripted model.
pub(crate) enum Line {
    Delta(Delta),
    Fail(ErrorKind),
    /// Nothing more comes, ever.
    Silence,
    Panic,
}

/// A model that gives one scripted answer after the other.
pub(crate) struct Script {
    answers: Mutex<VecDeque<Vec<Line>>>,
    asked: Mutex<Vec<Request>>,
    /// How many answers were begun and are not ended or dropped.
    pub(crate) open: watch::Sender<usize>,
}

impl Script {
    pub(crate) fn new(answers: impl IntoIterator<Item = Vec<Line>>) -> Arc<Self> {
        Arc::new(Self {
            answers: Mutex::new(answers.into_iter().collect()),
            asked: Mutex::default(),
            open: watch::Sender::new(0),
        })
    }

    /// Returns what it was asked, as `role: parts` lines.
    pub(crate) fn asked(&self) -> Vec<Vec<String>> {
        let asked = self.asked.lock().unwrap();
        asked
            .iter()
            .map(|request| request.messages.iter().map(|said| line(said)).collect())
            .collect()
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.asked.lock().unwrap().clone()
    }
}

fn line(said: &musterbeat_agent::model::Said) -> String {
    let parts = said.content.parts().iter().map(shown);
    let role = serde_json::to_value(said.role).unwrap();
    format!("{}: {}", role.as_str().unwrap(), parts.collect::<Vec<_>>().join(" | "))
}

/// Shows a part in a few words; names of calls are left out, since they are drawn.
pub(crate) fn shown(part: &Part) -> String {
    match part {
        Part::Text { text } => text.clone(),
        Part::Reasoning { text, .. } => format!("({text})"),
        Part::ToolCall { name, input, .. } => format!("{name}{input}"),
        Part::ToolResult { output, is_error: false, .. } => format!("= {output}"),
        Part::ToolResult { output, is_error: true, .. } => format!("! {output}"),
        Part::Command { command } => format!("/{command:?}"),
        Part::Other(_) => "?".to_owned(),
    }
}

struct Open(watch::Sender<usize>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.send_modify(|open| *open -= 1);
    }
}

impl Model for Script {
    fn provider(&self) -> &'static str {
        "script"
    }

    fn ask(&self, request: Request) -> BoxStream<'static, Result<Delta, ModelError>> {
        self.asked.lock().unwrap().push(request);
        let answer = self.answers.lock().unwrap().pop_front().expect("the script has an answer");
        self.open.send_modify(|open| *open += 1);
        let open = Open(self.open.clone());
        let lines = stream::iter(answer).then(move |line| {
            let _open = &open;
            async move {
                match line {
                    Line::Delta(delta) => Ok(delta),
                    Line::Fail(kind) => Err(failure(kind)),
                    Line::Silence => std::future::pending().await,
                    Line::Panic => panic!("a fault of the test"),
                }
            }
        });
        lines.boxed()
    }
}

pub(crate) fn failure(kind: ErrorKind) -> ModelError {
    ModelError {
        kind,
        provider: "script".to_owned(),
        message: "it failed".to_owned(),
        status: None,
        retry_after: None,
    }
}

pub(crate) fn text(text: &str) -> Line {
    Line::Delta(Delta::Text(text.to_owned()))
}

pub(crate) fn call(name: &str, input: Value) -> Line {
    Line::Delta(Delta::Call(Call { name: name.to_owned(), input }))
}

pub(crate) fn end() -> Line {
    Line::Delta(Delta::End(End::default()))
}

/// Ends an answer whose prompt took so many tokens.
pub(crate) fn end_of(tokens: i64) -> Line {
    let usage = Usage { input_tokens: Some(tokens), output_tokens: Some(7), ..Usage::default() };
    Line::Delta(Delta::End(End { usage, ..End::default() }))
}

pub(crate) fn says(words: &str) -> Vec<Line> {
    vec![text(words), end()]
}

pub(crate) fn calls<const N: usize>(names: [&str; N]) -> Vec<Line> {
    names.into_iter().map(|name| call(name, json!({}))).chain([end()]).collect()
}

/// Returns an agent that asks `script`, and whose window holds 100 tokens.
pub(crate) fn agent(script: &Arc<Script>, tools: Vec<Arc<dyn Tool>>) -> Agent {
    agent_with(script, tools, AgentOptions::default())
}

pub(crate) fn agent_with(
    script: &Arc<Script>,
    tools: Vec<Arc<dyn Tool>>,
    options: AgentOptions,
) -> Agent {
    Agent::new(Arc::new(chosen(script)), vec![Arc::new(tools) as Arc<dyn Toolkit>], options)
}

/// Returns `script` as a model whose window holds 100 tokens.
pub(crate) fn chosen(script: &Arc<Script>) -> Chosen {
    let config = ModelConfig {
        context_limit: Some(100),
        ..ModelConfig::new(ModelName::new("scripted").unwrap(), "script", "scripted-1")
    };
    let model: Arc<dyn Model> = Arc::<Script>::clone(script);
    Chosen { model, config: Arc::new(config) }
}

type Work = Box<
    dyn Fn(
            ToolCall,
            ToolContext,
        ) -> futures_util::future::BoxFuture<'static, Result<String, ToolError>>
        + Send
        + Sync,
>;

/// A tool that does what its test wrote.
pub(crate) struct Doing {
    name: String,
    conduct: Conduct,
    work: Work,
}

/// Makes a tool of a function.
pub(crate) fn tool<F, Fut>(name: &str, work: F) -> Arc<dyn Tool>
where
    F: Fn(ToolCall, ToolContext) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<String, ToolError>> + Send + 'static,
{
    tool_with(name, Conduct::default(), work)
}

pub(crate) fn tool_with<F, Fut>(name: &str, conduct: Conduct, work: F) -> Arc<dyn Tool>
where
    F: Fn(ToolCall, ToolContext) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<String, ToolError>> + Send + 'static,
{
    let work: Work = Box::new(move |call, context| Box::pin(work(call, context)));
    Arc::new(Doing { name: name.to_owned(), conduct, work })
}

#[async_trait::async_trait]
impl Tool for Doing {
    fn spec(&self) -> ToolSpec {
        let input = json!({ "type": "object" });
        ToolSpec { name: self.name.clone(), description: "A tool.".to_owned(), input }
    }

    fn conduct(&self) -> Conduct {
        self.conduct
    }

    async fn call(&self, call: ToolCall, context: &ToolContext) -> Result<String, ToolError> {
        (self.work)(call, context.clone()).await
    }
}
