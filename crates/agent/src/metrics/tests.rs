use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use ::metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit as MetricUnit,
};

use super::*;

#[test]
fn each_is_recorded_as_it_was_declared() {
    let ledger = Ledger::default();
    ::metrics::with_local_recorder(&ledger, record_everything);
    expect_test::expect![[r#"
        agent_compactions_total{result="error"} 1
        agent_compactions_total{result="success"} 1
        agent_compactions_total{result="timeout"} 1
        agent_prompt_bytes{} 1024
        agent_steps_total{} 1
        agent_turns_at_work{state="tools"} 0
        agent_turns_total{outcome="answered"} 1
        agent_turns_total{outcome="failed"} 1
        agent_turns_total{outcome="stopped"} 1
        mcp_call_failures_total{server="files"} 1
        mcp_calls_total{server="files"} 1
        mcp_connected{server="files"} 1
        mcp_connected{server="issues"} 0
        mcp_connections_total{server="files"} 1
        mcp_tools{server="files"} 3
        mcp_tools{server="issues"} 0
        model_calls_total{provider="home",outcome="answered"} 1
        model_calls_total{provider="home",outcome="silence"} 1
        model_calls_total{provider="home",outcome="stopped"} 1
        model_first_token_seconds{provider="home"} 0.25
        model_retries_total{provider="home",kind="rate_limit"} 1
        model_tokens_total{provider="home",direction="cached"} 4
        model_tokens_total{provider="home",direction="input"} 200
        model_tokens_total{provider="home",direction="output"} 20
        tool_calls_total{outcome="error"} 1
        tool_calls_total{outcome="interrupted"} 1
        tool_calls_total{outcome="ok"} 1
        tool_calls_total{outcome="outcome_unknown"} 1
        tool_calls_total{outcome="oversize"} 1
        tool_calls_total{outcome="panic"} 1
        tool_calls_total{outcome="timeout"} 1
        tool_calls_total{outcome="unknown"} 1
        tool_result_bytes{} 4294967295
    "#]]
    .assert_eq(&ledger.text());
    for metric in METRICS {
        assert!(ledger.has(metric.name), "{} is never recorded", metric.name);
    }
}

#[test]
fn a_turn_is_at_one_thing_at_a_time() {
    let ledger = Ledger::default();
    ::metrics::with_local_recorder(&ledger, || {
        let mut at_work = AtWork::at(Work::Asking);
        let other = AtWork::at(Work::Asking);
        for work in [Work::Tools, Work::Waiting, Work::Asking, Work::Tools] {
            drop(std::mem::replace(&mut at_work, AtWork::at(work)));
        }
        assert_eq!(at_work.0, Work::Tools);
        expect_test::expect![[r#"
            agent_turns_at_work{state="asking"} 1
            agent_turns_at_work{state="tools"} 1
            agent_turns_at_work{state="waiting"} 0
        "#]]
        .assert_eq(&ledger.text());
        drop((at_work, other));
    });
    assert!(ledger.text().lines().all(|line| line.ends_with(" 0")), "{}", ledger.text());
}

/// Records each metric, in each of its outcomes.
fn record_everything() {
    for end in [CallEnd::Answered, CallEnd::Stopped, CallEnd::Failed(ErrorKind::Silence)] {
        model_called("home", end);
    }
    model_retried("home", ErrorKind::RateLimit);
    model_began("home", Duration::from_millis(250));
    tokens_used("home", &usage());
    tokens_used("home", &usage());
    prompt_made(1_024);
    step_made();
    for outcome in [TurnOutcome::Answered, TurnOutcome::Failed, TurnOutcome::Stopped] {
        turn_ended(outcome);
    }
    for outcome in [
        ToolOutcome::Ok,
        ToolOutcome::Error,
        ToolOutcome::Panic,
        ToolOutcome::Unknown,
        ToolOutcome::Timeout,
        ToolOutcome::Oversize,
        ToolOutcome::Interrupted,
        ToolOutcome::OutcomeUnknown,
    ] {
        tool_called(outcome);
    }
    tool_said(usize::MAX);
    for result in [Compaction::Success, Compaction::Error, Compaction::Timeout] {
        compacted(result);
    }
    let _at_work = AtWork::at(Work::Tools);
    mcp_called("files");
    mcp_call_failed("files");
    mcp_connection_made("files");
    mcp_stands("files", Some(3));
    mcp_stands("issues", None);
}

fn usage() -> Usage {
    Usage {
        input_tokens: Some(100),
        output_tokens: Some(10),
        cache_read_tokens: Some(2),
        reasoning_tokens: Some(-1),
        ..Usage::default()
    }
}

/// Sums what is recorded, and holds it against the declarations.
#[derive(Default)]
pub(crate) struct Ledger(Mutex<BTreeMap<String, Arc<Sum>>>);

impl Ledger {
    pub(crate) fn text(&self) -> String {
        let sums = self.0.lock().unwrap();
        let lines = sums.iter().map(|(name, sum)| format!("{name} {}\n", *sum.0.lock().unwrap()));
        lines.collect()
    }

    fn has(&self, name: &str) -> bool {
        let name = name.trim_start_matches("musterbeat_");
        self.0.lock().unwrap().keys().any(|key| key.starts_with(&format!("{name}{{")))
    }

    fn sum(&self, kind: Kind, key: &Key) -> Arc<Sum> {
        let metric = METRICS.iter().find(|metric| metric.name == key.name()).unwrap();
        assert_eq!(metric.kind, kind, "{}", metric.name);
        let labels: Vec<_> = key.labels().map(::metrics::Label::key).collect();
        assert_eq!(labels, metric.labels, "{}", metric.name);
        let labels = key.labels().map(|label| format!("{}={:?}", label.key(), label.value()));
        let labels = labels.collect::<Vec<_>>().join(",");
        let name = format!("{}{{{labels}}}", key.name().trim_start_matches("musterbeat_"));
        Arc::clone(self.0.lock().unwrap().entry(name).or_default())
    }
}

impl Recorder for Ledger {
    fn describe_counter(&self, _: KeyName, _: Option<MetricUnit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<MetricUnit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<MetricUnit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.sum(Kind::Counter, key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.sum(Kind::Gauge, key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.sum(Kind::Histogram, key))
    }
}

#[derive(Default)]
struct Sum(Mutex<f64>);

impl Sum {
    fn add(&self, value: f64) {
        *self.0.lock().unwrap() += value;
    }
}

impl CounterFn for Sum {
    fn increment(&self, value: u64) {
        self.add(u32::try_from(value).unwrap().into());
    }

    fn absolute(&self, _value: u64) {
        panic!("counters of this crate are incremented");
    }
}

impl GaugeFn for Sum {
    fn increment(&self, value: f64) {
        self.add(value);
    }

    fn decrement(&self, value: f64) {
        self.add(-value);
    }

    fn set(&self, value: f64) {
        *self.0.lock().unwrap() = value;
    }
}

impl HistogramFn for Sum {
    fn record(&self, value: f64) {
        self.add(value);
    }
}
