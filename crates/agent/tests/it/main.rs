//! Agents against scripted models, on a stage that stands in for the engine.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

mod calls;
mod compaction;
mod script;
mod stage;
mod subagents;
mod takeover;
mod turns;
