//! How an MCP server stands: whether it is connected, and when to try again.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use musterbeat_core::backoff::Backoff;
use serde::Serialize;
use tokio::time::Instant;

use crate::metrics;

/// Waits after failures: at once would hammer, and a minute is short beside an outage.
const BACKOFF: Backoff =
    Backoff { delay_first: Duration::from_secs(1), delay_max: Duration::from_mins(1) };

/// A connection that held so long begins a new row of failures when it breaks.
const SETTLED: Duration = Duration::from_mins(1);

/// Bytes of an error that is shown, at most.
const ERROR_BYTES_MAX: usize = 1024;

/// How an MCP server stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct McpHealth {
    /// What it is called.
    pub name: String,
    /// Whether it is connected.
    #[serde(flatten)]
    pub state: McpState,
    /// Calls of its tools since the start of the process.
    pub calls: u64,
    /// Those of them that got no answer; an error of a tool is one.
    pub failures: u64,
    /// Connections that were made since the start of the process.
    pub connections: u64,
    /// What is wrong with its list of tools, or with what `allow` says of it.
    pub notes: Vec<String>,
}

/// Whether an MCP server is connected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum McpState {
    /// No turn has asked for it.
    Idle,
    /// The last attempt to connect to it succeeded, and a shared connection holds.
    Connected {
        /// How many of its tools are offered.
        tools: usize,
        /// For how many seconds that has been so.
        for_seconds: u64,
    },
    /// It is away; turns go on without it.
    Failed {
        /// Why. It bears no secret.
        error: String,
        /// In how many seconds a turn tries again.
        retry_in_seconds: u64,
    },
}

/// What is known of a server.
#[derive(Debug)]
pub(super) struct Standing {
    server: String,
    told: Mutex<Told>,
    calls: AtomicU64,
    failures: AtomicU64,
}

#[derive(Debug)]
struct Told {
    state: State,
    /// Failures in a row; a connection that breaks soon after it was made is one of them.
    in_row: u32,
    connections: u64,
    notes: Vec<String>,
}

#[derive(Debug)]
enum State {
    Idle,
    Connected { tools: usize, since: Instant },
    Failed { error: String, retry_at: Instant },
}

impl Told {
    /// Counts a failure; returns how many there were in a row.
    fn next_in_row(&mut self) -> u32 {
        let is_settled =
            matches!(self.state, State::Connected { since, .. } if SETTLED <= since.elapsed());
        self.in_row = if is_settled { 1 } else { self.in_row.saturating_add(1) };
        self.in_row
    }
}

impl Standing {
    /// Knows nothing of the server `server` yet.
    pub(super) fn new(server: String) -> Self {
        metrics::mcp_stands(&server, None);
        let told = Told { state: State::Idle, in_row: 0, connections: 0, notes: Vec::new() };
        let (calls, failures) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { server, told: Mutex::new(told), calls, failures }
    }

    /// Says whether it is time to connect.
    pub(super) fn may_try(&self) -> bool {
        match self.told().state {
            State::Idle | State::Connected { .. } => true,
            State::Failed { retry_at, .. } => retry_at <= Instant::now(),
        }
    }

    /// Notes a connection and the list of tools that came with it.
    pub(super) fn connected(&self, tools: usize, notes: &[String]) {
        let mut told = self.told();
        told.connections += 1;
        metrics::mcp_connection_made(&self.server);
        if !matches!(told.state, State::Connected { .. }) {
            tracing::info!(mcp.server = self.server, tools, "an MCP server is connected");
            told.state = State::Connected { tools, since: Instant::now() };
        }
        drop(told);
        self.listed(tools, notes);
    }

    /// Notes a new list of tools.
    pub(super) fn listed(&self, tools: usize, notes: &[String]) {
        let mut told = self.told();
        if let State::Connected { tools: before, .. } = &mut told.state {
            *before = tools;
            metrics::mcp_stands(&self.server, Some(tools));
        }
        // A connection for each turn brings the same list each time.
        if told.notes != notes {
            for note in notes {
                tracing::warn!(
                    mcp.server = self.server,
                    note,
                    "not all is well with the tools of an MCP server"
                );
            }
            told.notes = notes.to_vec();
        }
    }

    /// Notes that no connection could be made.
    pub(super) fn failed(&self, error: String) {
        let mut told = self.told();
        if let State::Failed { retry_at, .. } = told.state
            && Instant::now() < retry_at
        {
            // Several turns tried at once, each for itself: that is one failure.
            return;
        }
        let in_row = told.next_in_row();
        self.fail(&mut told, error, BACKOFF.delay(in_row, rand::random()));
    }

    /// Notes that a connection broke; the first one that does is replaced at once.
    pub(super) fn lost(&self, error: String) {
        let mut told = self.told();
        if !matches!(told.state, State::Connected { .. }) {
            return;
        }
        let delay = match told.next_in_row() {
            1 => Duration::ZERO,
            in_row => BACKOFF.delay(in_row - 1, rand::random()),
        };
        self.fail(&mut told, error, delay);
    }

    /// Returns why the server is away.
    pub(super) fn error(&self) -> String {
        match &self.told().state {
            State::Failed { error, .. } => error.clone(),
            State::Idle | State::Connected { .. } => "it was not reached in time".to_owned(),
        }
    }

    /// Counts a call that is made.
    pub(super) fn count_call(&self) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        metrics::mcp_called(&self.server);
    }

    /// Counts a call that got no answer.
    pub(super) fn count_failure(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        metrics::mcp_call_failed(&self.server);
    }

    /// Returns how the server stands.
    pub(super) fn health(&self) -> McpHealth {
        let told = self.told();
        let state = match &told.state {
            State::Idle => McpState::Idle,
            State::Connected { tools, since } => {
                McpState::Connected { tools: *tools, for_seconds: since.elapsed().as_secs() }
            }
            State::Failed { error, retry_at } => {
                let wait = retry_at.saturating_duration_since(Instant::now());
                // Rounded up: at zero it is tried.
                let retry_in_seconds = wait.as_millis().div_ceil(1000).try_into().unwrap_or(0);
                McpState::Failed { error: error.clone(), retry_in_seconds }
            }
        };
        McpHealth {
            name: self.server.clone(),
            state,
            calls: self.calls.load(Ordering::Relaxed),
            failures: self.failures.load(Ordering::Relaxed),
            connections: told.connections,
            notes: told.notes.clone(),
        }
    }

    fn fail(&self, told: &mut Told, mut error: String, delay: Duration) {
        error.truncate(error.floor_char_boundary(ERROR_BYTES_MAX));
        if !matches!(told.state, State::Failed { .. }) {
            tracing::warn!(mcp.server = self.server, error, "an MCP server is away");
        }
        told.state = State::Failed { error, retry_at: Instant::now() + delay };
        metrics::mcp_stands(&self.server, None);
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use tokio::time::advance;

    use super::*;
    use crate::metrics::tests::Ledger;

    #[tokio::test(start_paused = true)]
    async fn failures_in_a_row_are_waited_out() {
        let standing = Standing::new("files".into());
        assert!(standing.may_try());
        for _ in 0..20 {
            standing.failed("refused".into());
            advance(BACKOFF.delay_max).await;
            assert!(standing.may_try(), "no wait is longer than its bound");
        }
        // Twenty waits that are all drawn as zero are out of the question.
        let waits = (0..20).filter(|_| {
            standing.failed("refused".into());
            !standing.may_try()
        });
        assert!(waits.count() > 0);
    }

    #[tokio::test(start_paused = true)]
    async fn first_break_is_mended_at_once_and_a_row_of_them_is_not() {
        let standing = Standing::new("files".into());
        standing.connected(1, &[]);
        standing.lost("gone".into());
        assert!(standing.may_try());
        standing.lost("gone".into());
        assert_eq!(standing.told().in_row, 1, "a connection is lost once");

        standing.connected(1, &[]);
        standing.lost("gone".into());
        assert_eq!(standing.told().in_row, 2);

        standing.connected(1, &[]);
        advance(SETTLED).await;
        standing.lost("gone".into());
        assert_eq!(standing.told().in_row, 1);
        assert!(standing.may_try());
    }

    #[tokio::test(start_paused = true)]
    async fn metrics_tell_what_health_does() {
        let ledger = Ledger::default();
        // Set for this thread only, on which all of this test runs.
        let _recorded = ::metrics::set_default_local_recorder(&ledger);
        let standing = Standing::new("files".into());
        standing.connected(3, &[]);
        standing.listed(4, &[]);
        standing.count_call();
        standing.count_call();
        standing.count_failure();
        let connected = ledger.text();
        standing.lost("gone".into());
        let lost = ledger.text();
        expect![[r#"
            mcp_call_failures_total{server="files"} 1
            mcp_calls_total{server="files"} 2
            mcp_connected{server="files"} 1
            mcp_connections_total{server="files"} 1
            mcp_tools{server="files"} 4
        "#]]
        .assert_eq(&connected);
        let changed: Vec<_> = lost.lines().filter(|line| !connected.contains(*line)).collect();
        let expected = [r#"mcp_connected{server="files"} 0"#, r#"mcp_tools{server="files"} 0"#];
        assert_eq!(changed, expected);
        // A list that comes late says nothing of a server that is away.
        standing.listed(4, &[]);
        assert_eq!(ledger.text(), lost);
    }

    #[tokio::test(start_paused = true)]
    async fn health_is_told_as_json() {
        let standing = Standing::new("files".into());
        let mut seen = Vec::new();
        let mut look = |standing: &Standing| {
            seen.push(serde_json::to_string(&standing.health()).unwrap());
        };
        look(&standing);
        standing.connected(3, &["`allow` names \"a\"".into()]);
        advance(Duration::from_millis(2500)).await;
        standing.count_call();
        look(&standing);
        standing.listed(4, &[]);
        look(&standing);
        standing.count_call();
        standing.count_failure();
        standing.lost("x".repeat(2000));
        standing.fail(&mut standing.told(), "gone".into(), Duration::from_millis(1500));
        look(&standing);
        expect![[r#"
            {"name":"files","state":"idle","calls":0,"failures":0,"connections":0,"notes":[]}
            {"name":"files","state":"connected","tools":3,"for_seconds":2,"calls":1,"failures":0,"connections":1,"notes":["`allow` names \"a\""]}
            {"name":"files","state":"connected","tools":4,"for_seconds":2,"calls":1,"failures":0,"connections":1,"notes":[]}
            {"name":"files","state":"failed","error":"gone","retry_in_seconds":2,"calls":2,"failures":1,"connections":1,"notes":[]}"#]]
        .assert_eq(&seen.join("\n"));
    }
}
