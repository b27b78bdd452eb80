//! The calls of a step: all at once, each answered whatever becomes of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use musterbeat_core::message::Part;
use tokio::sync::Semaphore;
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::timeout;

use crate::metrics::{self, ToolOutcome};
use crate::tool::{Conduct, NAME_BYTES_MAX, Tool, ToolCall, ToolContext, ToolError, ToolSpec};

/// Calls of a step, at most: more are answered with an error, unmade.
const CALLS_MAX: usize = 64;

/// What the model is told of a call that must not be made twice, and whose worker died.
pub(crate) const OUTCOME_UNKNOWN: &str = "outcome unknown: the process died while this call was \
    under way; it may have taken effect, in part or in whole, and was not made again";

/// What a call may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CallLimits {
    pub(crate) at_once: usize,
    pub(crate) timeout: Duration,
    pub(crate) output_bytes_max: usize,
}

/// How a call came out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CallResult {
    /// What the model is told.
    pub(crate) output: String,
    /// How it ended.
    pub(crate) outcome: ToolOutcome,
}

impl CallResult {
    pub(crate) fn failed(outcome: ToolOutcome, output: impl Into<String>) -> Self {
        Self { output: output.into(), outcome }
    }

    /// Returns the part that stores it.
    pub(crate) fn into_part(self, id: &str) -> Part {
        let is_error = self.outcome != ToolOutcome::Ok;
        Part::ToolResult { id: id.to_owned(), output: self.output, is_error }
    }
}

/// The tools of a turn, by name.
pub(crate) struct Toolbox(BTreeMap<String, (Arc<dyn Tool>, ToolSpec)>);

impl Toolbox {
    /// Takes tools; of two with one name the first counts, and one that has no name is left out.
    pub(crate) fn new(tools: Vec<Arc<dyn Tool>>) -> Self {
        let mut named = BTreeMap::new();
        for tool in tools {
            let spec = tool.spec();
            if is_name(&spec.name) {
                named.entry(spec.name.clone()).or_insert((tool, spec));
            } else {
                tracing::warn!(tool.name = spec.name, "a tool's name is none, it is left out");
            }
        }
        Self(named)
    }

    /// Returns what the model is told of them.
    pub(crate) fn specs(&self) -> Arc<[ToolSpec]> {
        self.0.values().map(|(_, spec)| spec.clone()).collect()
    }

    /// Returns what holds of a call; an unknown tool's are made as any others, to fail.
    pub(crate) fn conduct(&self, call: &ToolCall) -> Conduct {
        self.0.get(&call.name).map(|(tool, _)| tool.conduct()).unwrap_or_default()
    }

    /// Says why none of `calls` may be made, `None` when they may.
    pub(crate) fn conflict(&self, calls: &[ToolCall]) -> Option<String> {
        let alone = calls.iter().find(|call| self.conduct(call).exclusive)?;
        let why = "must be the only call of its step: none of these calls was made, make it alone";
        (calls.len() > 1).then(|| format!("{} {why}", alone.name))
    }
}

/// Says whether providers take `name` as a tool's.
fn is_name(name: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    !name.is_empty() && name.len() <= NAME_BYTES_MAX && name.chars().all(fits)
}

/// Calls under way; dropping it ends them.
pub(crate) struct Running {
    tasks: JoinSet<CallResult>,
    places: BTreeMap<Id, usize>,
    /// Those that were answered without being made.
    refused: Vec<(usize, CallResult)>,
}

impl Running {
    /// Begins `calls`, bounded in how many are made at once.
    pub(crate) fn begin(
        toolbox: &Toolbox,
        calls: &[ToolCall],
        context: &ToolContext,
        limits: CallLimits,
    ) -> Self {
        let conflict = toolbox.conflict(calls);
        let slots = Arc::new(Semaphore::new(limits.at_once));
        let mut running = Self { tasks: JoinSet::new(), places: BTreeMap::new(), refused: vec![] };
        for (place, call) in calls.iter().enumerate() {
            match tool_of(toolbox, call, place, conflict.as_deref()) {
                Ok(tool) => {
                    let call = made(tool, call.clone(), context.clone(), limits);
                    let (slots, run) = (Arc::clone(&slots), Arc::clone(&context.run));
                    let task = running.tasks.spawn(async move {
                        let _slot = slots.acquire_owned().await;
                        if run.stop_cause().is_some() {
                            // Nothing begins in a run that has ended; whoever waits sees the same.
                            return std::future::pending().await;
                        }
                        call.await
                    });
                    running.places.insert(task.id(), place);
                }
                Err(refused) => running.refused.push((place, refused)),
            }
        }
        running
    }

    /// Waits for the next result, with the place of its call; `None` when all have come.
    ///
    /// Nothing is lost when the future is dropped.
    pub(crate) async fn next(&mut self) -> Option<(usize, CallResult)> {
        if let Some(refused) = self.refused.pop() {
            return Some(refused);
        }
        let (id, result) = match self.tasks.join_next_with_id().await? {
            Ok((id, result)) => (id, result),
            Err(error) => (error.id(), panicked(error)),
        };
        Some((self.places[&id], result))
    }
}

fn tool_of(
    toolbox: &Toolbox,
    call: &ToolCall,
    place: usize,
    conflict: Option<&str>,
) -> Result<Arc<dyn Tool>, CallResult> {
    if let Some(conflict) = conflict {
        return Err(CallResult::failed(ToolOutcome::Error, conflict));
    }
    if place >= CALLS_MAX {
        let why = format!("a step has at most {CALLS_MAX} calls: this one was not made");
        return Err(CallResult::failed(ToolOutcome::Error, why));
    }
    let Some((tool, _)) = toolbox.0.get(&call.name) else {
        let why = format!("there is no tool {:?}", call.name);
        return Err(CallResult::failed(ToolOutcome::Unknown, why));
    };
    if !call.input.is_object() {
        let why = "the input is no JSON object: this call was not made";
        return Err(CallResult::failed(ToolOutcome::Error, why));
    }
    Ok(Arc::clone(tool))
}

async fn made(
    tool: Arc<dyn Tool>,
    call: ToolCall,
    context: ToolContext,
    limits: CallLimits,
) -> CallResult {
    let time = tool.conduct().timeout.unwrap_or(limits.timeout);
    match timeout(time, tool.call(call, &context)).await {
        Ok(Ok(output)) => fitting(output, ToolOutcome::Ok, limits.output_bytes_max),
        Ok(Err(ToolError(error))) => {
            let error = if error.is_empty() { "the tool failed".to_owned() } else { error };
            fitting(error, ToolOutcome::Error, limits.output_bytes_max)
        }
        Err(_) => {
            let why = format!("the tool took longer than {time:?} and was stopped");
            CallResult::failed(ToolOutcome::Timeout, why)
        }
    }
}

/// Returns an output that may be stored with its outcome, or how it begins and why it may not.
fn fitting(output: String, outcome: ToolOutcome, bytes_max: usize) -> CallResult {
    let bytes = bytes_as_json(&output);
    metrics::tool_said(bytes);
    if bytes <= bytes_max {
        return CallResult { output, outcome };
    }
    // Each byte may take six when it is escaped.
    let begin = &output[..output.floor_char_boundary(bytes_max / 12)];
    let why = format!(
        "the output has {bytes} bytes, at most {bytes_max} are allowed: ask for less of it. It \
         begins:\n{begin}"
    );
    CallResult::failed(ToolOutcome::Oversize, why)
}

/// Counts what a text takes as JSON, without its quotes.
fn bytes_as_json(text: &str) -> usize {
    let escaped = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        // NUL is stored as U+FFFD, three bytes.
        0x00..0x20 => 6,
        _ => 1,
    };
    text.bytes().map(escaped).sum()
}

fn panicked(error: JoinError) -> CallResult {
    let what = error.try_into_panic().map_or_else(
        |_| "was cancelled".to_owned(),
        |panic| {
            let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| panic.downcast_ref::<String>().cloned());
            format!("panicked: {}", text.unwrap_or_default())
        },
    );
    CallResult::failed(ToolOutcome::Panic, format!("the tool {what}"))
}
