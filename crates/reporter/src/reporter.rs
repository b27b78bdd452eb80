//! The loop between what is found and the server.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use musterbeat_core::id::AgentId;
use musterbeat_core::metadata::Key;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::backlog::{Backlog, Entry};
use crate::collect::Collectors;
use crate::duty::Duty;
use crate::http::HttpServer;
use crate::notes::Notes;
use crate::options::{REPORT_INTERVAL_MAX, ReporterError, ReporterOptions};
use crate::pace::{Pace, Step};
use crate::server::{CallError, Receipt, Server};
use crate::source::{LocalSource, Source};

/// Time from the end to the end of the last attempt: whoever stops a machine waits for it.
const END_TIME: Duration = Duration::from_secs(2);

/// How much of that a report gets that is under way: the rest is for what it does not hold.
const UNDER_WAY_TIME: Duration = Duration::from_secs(1);

/// Reports metadata of this machine.
pub struct Reporter {
    server: Arc<dyn Server>,
    collectors: Collectors,
    backlog: Arc<Backlog>,
    pace: Pace,
    agent: AgentId,
    has_token: bool,
    /// Keys for which the operator gave a command.
    commands: BTreeSet<Key>,
    /// By which the server names the definitions that are known.
    version: Option<i64>,
    notes: Notes,
}

impl Reporter {
    /// Prepares to report; nothing is sent.
    ///
    /// # Errors
    /// Names the option that cannot be used, and what to give instead.
    pub fn new(options: ReporterOptions) -> Result<Self, ReporterError> {
        let server = Arc::new(HttpServer::new(&options)?);
        let source = Arc::new(LocalSource::new(&options));
        Self::with_ports(options, server, source, rand::random())
    }

    /// Prepares to report from `source` to `server`; `seed` decides all that is random.
    fn with_ports(
        options: ReporterOptions,
        server: Arc<dyn Server>,
        source: Arc<dyn Source>,
        seed: u64,
    ) -> Result<Self, ReporterError> {
        if REPORT_INTERVAL_MAX < options.report_interval {
            return Err(ReporterError::ReportInterval(options.report_interval));
        }
        let mut rng = StdRng::seed_from_u64(seed);
        let mut fork = || StdRng::seed_from_u64(rng.random());
        let backlog = Arc::new(Backlog::default());
        Ok(Self {
            server,
            collectors: Collectors::new(source, Arc::clone(&backlog), fork()),
            backlog,
            pace: Pace::new(options.report_interval, Instant::now(), fork()),
            agent: options.agent,
            has_token: options.token.is_some(),
            commands: options.commands.into_keys().collect(),
            version: None,
            notes: Notes::default(),
        })
    }

    /// Reports until `end`, then once more what waits, within two seconds.
    ///
    /// Nothing that it started is left when it returns, or soon after the future is dropped.
    ///
    /// # Errors
    /// Says why the server will not hear from this agent any more, and what to do.
    pub async fn run(mut self, end: CancellationToken) -> Result<(), ReporterError> {
        let mut ended = None;
        let worked = {
            let mut work = pin!(self.work(&end));
            tokio::select! {
                worked = &mut work => worked,
                () = end.cancelled() => {
                    ended = Some(Instant::now());
                    work.await
                }
            }
        };
        self.collectors.end().await;
        if worked.is_ok() {
            self.bid_farewell(ended.unwrap_or_else(Instant::now) + END_TIME).await;
        }
        worked
    }

    async fn work(&mut self, end: &CancellationToken) -> Result<(), ReporterError> {
        loop {
            let step = tokio::select! {
                biased;
                () = end.cancelled() => return Ok(()),
                step = self.due() => step,
            };
            match step {
                Step::Look => self.look(end).await?,
                Step::Report => self.report(end).await?,
            }
        }
    }

    /// Waits until something is to be done.
    async fn due(&self) -> Step {
        loop {
            let (step, at) = self.pace.next(self.backlog.len() > 0);
            if at <= Instant::now() {
                return step;
            }
            tokio::select! {
                () = sleep_until(at) => {}
                () = self.backlog.rung() => {}
            }
        }
    }

    /// Reads what is to be reported.
    async fn look(&mut self, end: &CancellationToken) -> Result<(), ReporterError> {
        let told = tokio::select! {
            () = end.cancelled() => return Ok(()),
            told = self.server.definitions() => told,
        };
        match told {
            Ok(assignment) => {
                self.answered();
                self.pace.looked();
                if self.version == Some(assignment.version) {
                    return Ok(());
                }
                self.version = Some(assignment.version);
                self.warn_of_commands(&assignment.duties);
                tracing::info!(
                    agent.id = %self.agent,
                    definitions.version = assignment.version,
                    definitions.count = assignment.duties.len(),
                    "the server told what to report"
                );
                for key in self.collectors.redefine(assignment.duties).await {
                    self.notes.settle(key.as_str());
                }
                Ok(())
            }
            Err(error) => self.failed(error),
        }
    }

    /// Sends what waits.
    async fn report(&mut self, end: &CancellationToken) -> Result<(), ReporterError> {
        self.pace.reporting(Instant::now());
        let entries = self.backlog.take();
        let answer = tokio::select! {
            answer = self.server.report(&entries) => answer,
            // Not dropped at once: sent again beside it, a newer value might come first.
            () = end_of(end, UNDER_WAY_TIME) => {
                Err(CallError::Away { reason: "the end came first".to_owned(), wait: None })
            }
        };
        match answer {
            Ok(receipt) => self.receive(receipt, entries),
            Err(CallError::Refused(reason)) => {
                self.answered();
                tracing::warn!(
                    agent.id = %self.agent,
                    entries = entries.len(),
                    reason,
                    "a report was refused and is dropped"
                );
                Ok(())
            }
            Err(error) => {
                self.backlog.put_back(entries);
                self.failed(error)
            }
        }
    }

    /// Does what the answer to a report asks for.
    fn receive(&mut self, receipt: Receipt, entries: Vec<Entry>) -> Result<(), ReporterError> {
        let is_current = self.version == Some(receipt.definitions_version);
        if !is_current {
            self.pace.outdated();
        }
        let mut again = BTreeSet::new();
        let mut remarks = Vec::new();
        for refusal in receipt.refused {
            if refusal.retryable {
                again.insert(refusal.key);
            } else {
                remarks.push((refusal.key, format!("it was refused: {}", refusal.reason)));
            }
        }
        let changed = receipt.changed.into_iter();
        remarks.extend(changed.map(|it| (it.key, format!("it was changed: {}", it.reason))));
        let (again, done): (Vec<Entry>, Vec<Entry>) =
            entries.into_iter().partition(|entry| again.contains(entry.key.as_str()));
        // What is refused of other definitions is not news: they are read next.
        for entry in done.iter().filter(|_| is_current) {
            self.remark(&entry.key, &remarks);
        }
        if done.is_empty() {
            self.backlog.put_back(again);
            let reason = "it has no room for values".to_owned();
            return self.failed(CallError::Away { reason, wait: None });
        }
        self.answered();
        self.backlog.put_back(again);
        Ok(())
    }

    /// Logs what the server remarked on a key, once until that changes.
    fn remark(&mut self, key: &Key, remarks: &[(String, String)]) {
        let mut about = remarks.iter().filter(|(other, _)| other == key.as_str());
        let Some((_, remark)) = about.next() else {
            self.notes.settle(key.as_str());
            return;
        };
        if self.notes.is_news(key.as_str(), remark) {
            tracing::warn!(agent.id = %self.agent, %key, remark, "a value was not stored as it is");
        }
    }

    fn warn_of_commands(&self, duties: &[Duty]) {
        let is_defined = |key: &Key| duties.iter().any(|duty| duty.key == *key);
        for key in self.commands.iter().filter(|key| !is_defined(key)) {
            tracing::warn!(
                agent.id = %self.agent,
                %key,
                "a command was given for a key that the server does not define; it is not run"
            );
        }
    }

    fn answered(&mut self) {
        let failures = self.pace.answered(Instant::now());
        if failures > 0 {
            tracing::info!(agent.id = %self.agent, failures, "the server answers again");
        }
    }

    /// Waits longer after each failure that may pass, and returns the others.
    fn failed(&mut self, error: CallError) -> Result<(), ReporterError> {
        let (reason, wait) = match error {
            CallError::Away { reason, wait } => (reason, wait),
            // Asked again all the same: it takes another server, or a later one, to know the call.
            CallError::Refused(reason) => (reason, None),
            CallError::NotFound => return Err(ReporterError::AgentGone(self.agent)),
            CallError::Unauthorized if self.has_token => {
                return Err(ReporterError::TokenRefused(self.agent));
            }
            CallError::Unauthorized => return Err(ReporterError::TokenMissing(self.agent)),
        };
        let failures = self.pace.failed(wait, Instant::now());
        if failures == 1 {
            tracing::warn!(
                agent.id = %self.agent,
                reason,
                "a call to the server failed; the newest values wait until it answers"
            );
        } else {
            tracing::debug!(agent.id = %self.agent, failures, reason, "a call to the server failed again");
        }
        Ok(())
    }

    /// Sends what waits, once.
    async fn bid_farewell(&self, deadline: Instant) {
        let mut unsent = self.backlog.len();
        while unsent > 0 {
            let entries = self.backlog.take();
            let answer = timeout_at(deadline, self.server.report(&entries)).await;
            if !matches!(answer, Ok(Ok(_))) {
                break;
            }
            unsent = self.backlog.len();
        }
        if unsent > 0 {
            tracing::warn!(agent.id = %self.agent, unsent, "values were not sent before the end");
        }
    }
}

/// Waits until `grace` after the end.
async fn end_of(end: &CancellationToken, grace: Duration) {
    end.cancelled().await;
    sleep(grace).await;
}

#[cfg(test)]
mod tests;
