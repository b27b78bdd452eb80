//! Asks hosts about what was leased.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::stream::{StreamExt, iter};
use musterbeat_core::port::{FetchError, GitHosts, GitProvider};
use musterbeat_core::refresh::{Answer, Group, HostLimit, Question, RefreshTimes, Refreshed, plan};
use tokio::time::{Instant, timeout};

use super::{RefreshOptions, StaleDiff, may_ask};
use crate::metrics::REFRESH_ANSWERS;
use crate::panic::caught;
use crate::shutdown::Shutdown;

/// What was found about a batch.
pub(super) struct Asked {
    /// What to write, a row for each that was leased.
    pub(super) refreshed: Vec<Refreshed>,
    /// Which hosts want to be left alone.
    pub(super) limits: Vec<HostLimit>,
    /// The last reason why something was not told.
    pub(super) error: Option<FetchError>,
}

/// A question on its way to a provider.
struct Errand {
    question: Question,
    provider: Result<Arc<dyn GitProvider>, FetchError>,
    /// For how long the host wants to be left alone, once it has said so.
    limit: Arc<OnceLock<Duration>>,
}

/// What came of an errand.
enum Outcome {
    Answered(Answer),
    /// The host wants to be left alone: nobody was asked.
    Skipped(Duration),
    /// There is no time to ask, or the process ends.
    Unasked,
}

/// Asks each question once, several at a time; never fails, and answers for each row.
pub(super) async fn ask(
    hosts: &dyn GitHosts,
    options: &RefreshOptions,
    leased: Vec<StaleDiff>,
    leased_at: Instant,
    shutdown: &Shutdown,
) -> Asked {
    let mut errands = Vec::new();
    let mut limits = Vec::new();
    for group in plan(leased) {
        let limit = Arc::new(OnceLock::new());
        errands.extend(opened(hosts, &group, &limit, options.answer_time).await);
        limits.push((group.owner, group.origin, limit));
    }
    let answers = iter(errands).map(|errand| async move {
        let outcome = run(&errand, options, leased_at, shutdown).await;
        (errand.question, outcome)
    });
    let mut answers = answers.buffer_unordered(options.concurrency.max(1));
    let mut asked = Asked { refreshed: vec![], limits: vec![], error: None };
    while let Some((question, outcome)) = answers.next().await {
        let judged = question.rows.iter().map(|row| judge(&options.times, row, &outcome));
        asked.refreshed.extend(judged);
        asked.error = outcome.error().or(asked.error);
    }
    asked.limits = limits
        .into_iter()
        .filter_map(|(owner, origin, limit)| {
            let wait = *limit.get()?;
            Some(HostLimit { owner, origin, wait })
        })
        .collect();
    asked
}

/// Finds out whom to ask, once for the group.
async fn opened(
    hosts: &dyn GitHosts,
    group: &Group,
    limit: &Arc<OnceLock<Duration>>,
    answer_time: Duration,
) -> Vec<Errand> {
    // Every row of one origin and owner has the same limit, which was stored before.
    let stored = group.questions.iter().flat_map(|question| &question.rows);
    if let Some(wait) = stored.filter_map(|row| row.limited).max() {
        let _ = limit.set(wait);
    }
    let open = timeout(answer_time, caught("the host", hosts.open(group.owner, &group.origin)));
    let provider = match open.await {
        Ok(Ok(provider)) => provider,
        Ok(Err(panic)) => Err(FetchError::Host(panic)),
        Err(_) => Err(FetchError::Transport("whom to ask was not found in time".to_owned())),
    };
    let errand = |question: &Question| Errand {
        question: question.clone(),
        provider: provider.clone(),
        limit: Arc::clone(limit),
    };
    group.questions.iter().map(errand).collect()
}

async fn run(
    errand: &Errand,
    options: &RefreshOptions,
    leased_at: Instant,
    shutdown: &Shutdown,
) -> Outcome {
    if let Some(wait) = errand.limit.get() {
        return Outcome::Skipped(*wait);
    }
    let provider = match &errand.provider {
        Ok(provider) => provider,
        Err(error) => return Outcome::Answered(Err(error.clone())),
    };
    if !may_ask(leased_at, options.answer_time) {
        return Outcome::Unasked;
    }
    let fetch = caught("the provider", provider.fetch(&errand.question.reference));
    let answer = tokio::select! {
        biased;
        // Others ask it again, at once.
        () = shutdown.requested() => return Outcome::Unasked,
        answer = timeout(options.answer_time, fetch) => answer,
    };
    let answer = match answer {
        Ok(Ok(answer)) => answer,
        Ok(Err(panic)) => Err(FetchError::Host(panic)),
        Err(_) => {
            let time = options.answer_time;
            Err(FetchError::Transport(format!("no answer within {time:?}")))
        }
    };
    metrics::counter!(REFRESH_ANSWERS.name, "outcome" => word(&answer)).increment(1);
    if let Some(wait) = options.times.limit(&answer, rand::random()) {
        let _ = errand.limit.set(wait);
    }
    Outcome::Answered(answer)
}

fn judge(times: &RefreshTimes, row: &StaleDiff, outcome: &Outcome) -> Refreshed {
    match outcome {
        Outcome::Answered(answer) => times.judge(row, answer, rand::random()),
        Outcome::Skipped(wait) => {
            let limited = Err(FetchError::RateLimited { wait: Some(*wait) });
            // Nobody was asked, so it is no failure of this row.
            Refreshed { failures: row.failures, ..times.judge(row, &limited, rand::random()) }
        }
        Outcome::Unasked => RefreshTimes::unasked(row),
    }
}

const fn word(answer: &Answer) -> &'static str {
    match answer {
        Ok(Some(_)) => "told",
        Ok(None) => "no_pull",
        Err(error) => error.as_str(),
    }
}

impl Outcome {
    fn error(&self) -> Option<FetchError> {
        match self {
            Self::Answered(answer) => answer.as_ref().err().cloned(),
            Self::Skipped(wait) => Some(FetchError::RateLimited { wait: Some(*wait) }),
            Self::Unasked => None,
        }
    }
}
