//! The metrics of this crate.
//!
//! Providers and servers of tools are those of the operator's settings. Models and tools are no
//! labels: users choose the names of the ones, and servers of tools those of the others.

use std::time::Duration;

use metrics::{counter, gauge, histogram};
use musterbeat_core::message::Usage;
use musterbeat_core::metric::{Kind, Metric, Unit};

use crate::error::ErrorKind;

/// How often models were asked.
const CALLS: Metric = counted(
    "musterbeat_model_calls_total",
    &["provider", "outcome"],
    "Calls of models: answered, stopped, or the kind of the error.",
);

/// How often they were asked again.
const RETRIES: Metric = counted(
    "musterbeat_model_retries_total",
    &["provider", "kind"],
    "Calls of models that are made again, by the error of the one before.",
);

/// How fast they began.
const FIRST_TOKEN_SECONDS: Metric = Metric {
    name: "musterbeat_model_first_token_seconds",
    kind: Kind::Histogram,
    unit: Unit::Seconds,
    labels: &["provider"],
    help: "Time from asking a model to the first piece of its answer.",
};

/// What they read and wrote.
const TOKENS: Metric = counted(
    "musterbeat_model_tokens_total",
    &["provider", "direction"],
    "Tokens as providers count them: input, output, and of these cached and reasoning.",
);

/// What they were given to read.
const PROMPT_BYTES: Metric =
    sized("musterbeat_agent_prompt_bytes", "Bytes of the prompt that a model is asked with.");

/// How many steps turns took.
const STEPS: Metric =
    counted("musterbeat_agent_steps_total", &[], "Steps of turns: an answer and its calls.");

/// How turns ended.
const TURNS: Metric = counted(
    "musterbeat_agent_turns_total",
    &["outcome"],
    "Turns that ended: answered, failed or stopped.",
);

/// What turns are at.
const TURNS_AT_WORK: Metric = Metric {
    name: "musterbeat_agent_turns_at_work",
    kind: Kind::Gauge,
    unit: Unit::Count,
    labels: &["state"],
    help: "Turns at work: asking a model, running tools, or waiting to ask again.",
};

/// What came of the calls of tools.
const TOOL_CALLS: Metric = counted(
    "musterbeat_tool_calls_total",
    &["outcome"],
    "Calls of tools: ok, error, panic, unknown, timeout, oversize, interrupted or outcome_unknown.",
);

/// What tools said.
const TOOL_RESULT_BYTES: Metric =
    sized("musterbeat_tool_result_bytes", "Bytes of what a tool said, before it is cut.");

/// How often histories were summarised.
const COMPACTIONS: Metric = counted(
    "musterbeat_agent_compactions_total",
    &["result"],
    "Histories that were to be summarised: success, error or timeout.",
);

/// How often tools of MCP servers were called.
const MCP_CALLS: Metric = counted(
    "musterbeat_mcp_calls_total",
    &["server"],
    "Calls of the tools of MCP servers, those that failed too.",
);

/// How often that failed.
const MCP_CALL_FAILURES: Metric = counted(
    "musterbeat_mcp_call_failures_total",
    &["server"],
    "Calls of the tools of MCP servers that got no answer; an error of a tool is one.",
);

/// How often a connection to them was made.
const MCP_CONNECTIONS: Metric = counted(
    "musterbeat_mcp_connections_total",
    &["server"],
    "Connections to MCP servers that were made.",
);

/// Whether they are there.
const MCP_CONNECTED: Metric = standing(
    "musterbeat_mcp_connected",
    "Whether an MCP server is connected: 1, or 0 while it is away or nobody has asked for it.",
);

/// What they offer.
const MCP_TOOLS: Metric =
    standing("musterbeat_mcp_tools", "Tools that an MCP server offers; 0 while it is away.");

/// Every metric of this crate.
pub const METRICS: &[Metric] = &[
    CALLS,
    RETRIES,
    FIRST_TOKEN_SECONDS,
    TOKENS,
    PROMPT_BYTES,
    STEPS,
    TURNS,
    TURNS_AT_WORK,
    TOOL_CALLS,
    TOOL_RESULT_BYTES,
    COMPACTIONS,
    MCP_CALLS,
    MCP_CALL_FAILURES,
    MCP_CONNECTIONS,
    MCP_CONNECTED,
    MCP_TOOLS,
];

const fn counted(
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Metric {
    Metric { name, kind: Kind::Counter, unit: Unit::Count, labels, help }
}

const fn sized(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Histogram, unit: Unit::Bytes, labels: &[], help }
}

const fn standing(name: &'static str, help: &'static str) -> Metric {
    Metric { name, kind: Kind::Gauge, unit: Unit::Count, labels: &["server"], help }
}

/// How a call of a model ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum CallEnd {
    Answered,
    Stopped,
    Failed(ErrorKind),
}

pub(crate) fn model_called(provider: &str, end: CallEnd) {
    let outcome = match end {
        CallEnd::Answered => "answered",
        CallEnd::Stopped => "stopped",
        CallEnd::Failed(kind) => kind.as_str(),
    };
    counter!(CALLS.name, "provider" => provider.to_owned(), "outcome" => outcome).increment(1);
}

pub(crate) fn model_retried(provider: &str, kind: ErrorKind) {
    counter!(RETRIES.name, "provider" => provider.to_owned(), "kind" => kind.as_str()).increment(1);
}

pub(crate) fn model_began(provider: &str, after: Duration) {
    histogram!(FIRST_TOKEN_SECONDS.name, "provider" => provider.to_owned()).record(after);
}

pub(crate) fn tokens_used(provider: &str, usage: &Usage) {
    let directions = [
        ("input", usage.input_tokens),
        ("output", usage.output_tokens),
        ("cached", usage.cache_read_tokens),
        ("reasoning", usage.reasoning_tokens),
    ];
    for (direction, tokens) in directions {
        // A provider that counts below nothing counts nothing.
        if let Some(tokens) = tokens.and_then(|tokens| u64::try_from(tokens).ok()) {
            counter!(TOKENS.name, "provider" => provider.to_owned(), "direction" => direction)
                .increment(tokens);
        }
    }
}

pub(crate) fn prompt_made(bytes: usize) {
    histogram!(PROMPT_BYTES.name).record(bytes_value(bytes));
}

pub(crate) fn step_made() {
    counter!(STEPS.name).increment(1);
}

/// How a turn ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum TurnOutcome {
    Answered,
    Failed,
    Stopped,
}

pub(crate) fn turn_ended(outcome: TurnOutcome) {
    let outcome = match outcome {
        TurnOutcome::Answered => "answered",
        TurnOutcome::Failed => "failed",
        TurnOutcome::Stopped => "stopped",
    };
    counter!(TURNS.name, "outcome" => outcome).increment(1);
}

/// What a turn is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    Asking,
    Tools,
    Waiting,
}

impl Work {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Asking => "asking",
            Self::Tools => "tools",
            Self::Waiting => "waiting",
        }
    }
}

/// Counts a turn among those at work until it is dropped.
#[derive(Debug)]
pub(crate) struct AtWork(Work);

impl AtWork {
    pub(crate) fn at(work: Work) -> Self {
        gauge!(TURNS_AT_WORK.name, "state" => work.as_str()).increment(1);
        Self(work)
    }
}

impl Drop for AtWork {
    fn drop(&mut self) {
        gauge!(TURNS_AT_WORK.name, "state" => self.0.as_str()).decrement(1);
    }
}

/// What came of a call of a tool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ToolOutcome {
    Ok,
    Error,
    Panic,
    Unknown,
    Timeout,
    Oversize,
    Interrupted,
    OutcomeUnknown,
}

pub(crate) fn tool_called(outcome: ToolOutcome) {
    let outcome = match outcome {
        ToolOutcome::Ok => "ok",
        ToolOutcome::Error => "error",
        ToolOutcome::Panic => "panic",
        ToolOutcome::Unknown => "unknown",
        ToolOutcome::Timeout => "timeout",
        ToolOutcome::Oversize => "oversize",
        ToolOutcome::Interrupted => "interrupted",
        ToolOutcome::OutcomeUnknown => "outcome_unknown",
    };
    counter!(TOOL_CALLS.name, "outcome" => outcome).increment(1);
}

pub(crate) fn tool_said(bytes: usize) {
    histogram!(TOOL_RESULT_BYTES.name).record(bytes_value(bytes));
}

/// How an attempt to summarise a history ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Compaction {
    Success,
    Error,
    Timeout,
}

pub(crate) fn compacted(result: Compaction) {
    let result = match result {
        Compaction::Success => "success",
        Compaction::Error => "error",
        Compaction::Timeout => "timeout",
    };
    counter!(COMPACTIONS.name, "result" => result).increment(1);
}

pub(crate) fn mcp_called(server: &str) {
    counter!(MCP_CALLS.name, "server" => server.to_owned()).increment(1);
}

pub(crate) fn mcp_call_failed(server: &str) {
    counter!(MCP_CALL_FAILURES.name, "server" => server.to_owned()).increment(1);
}

pub(crate) fn mcp_connection_made(server: &str) {
    counter!(MCP_CONNECTIONS.name, "server" => server.to_owned()).increment(1);
}

/// Says how an MCP server stands: how many tools it offers, `None` while it is not connected.
pub(crate) fn mcp_stands(server: &str, tools: Option<usize>) {
    let offered = tools.map_or(0, |tools| u32::try_from(tools).unwrap_or(u32::MAX));
    gauge!(MCP_CONNECTED.name, "server" => server.to_owned()).set(u8::from(tools.is_some()));
    gauge!(MCP_TOOLS.name, "server" => server.to_owned()).set(offered);
}

fn bytes_value(bytes: usize) -> f64 {
    // Exact up to 4 GiB, and no prompt or result is larger.
    u32::try_from(bytes).unwrap_or(u32::MAX).into()
}

#[cfg(test)]
pub(crate) mod tests;
