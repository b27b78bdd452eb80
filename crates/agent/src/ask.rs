//! One question to a model, asked again where that helps.

use std::time::{Duration, SystemTime};

use futures_util::StreamExt;
use musterbeat_core::port::RunContext;
use serde::Serialize;
use tokio::time::{Instant, sleep};

use crate::answer::Answer;
use crate::error::ModelError;
use crate::guard::{GuardTimes, guarded};
use crate::metrics::{self, AtWork, CallEnd, Work};
use crate::model::{Chosen, Request};
use crate::retry::{RetryNotice, RetryOptions};

/// How a model is asked.
#[derive(Clone, Copy)]
pub(crate) struct Manner<'a> {
    pub(crate) retry: &'a RetryOptions,
    pub(crate) guard: GuardTimes,
    /// Whether followers see the pieces of the answer.
    pub(crate) aloud: bool,
}

/// A question was not answered to its end.
pub(crate) enum Unanswered {
    /// The run has to stop; this is what had come by then.
    Stopped(Answer),
    /// The model failed, and it would not help to ask again.
    Failed(ModelError),
}

/// Asks until there is a whole answer, a failure that lasts, or the run has to stop.
///
/// Pieces are published as they come. Those of an attempt that failed are void: the notice of the
/// next attempt says so.
pub(crate) async fn ask(
    chosen: &Chosen,
    request: Request,
    manner: Manner<'_>,
    context: &dyn RunContext,
) -> Result<Answer, Unanswered> {
    let mut attempt = 0;
    loop {
        attempt += 1;
        let error = match attempt_once(chosen, request.clone(), manner, context).await {
            Ok(answer) => return Ok(answer),
            Err(Unanswered::Stopped(answer)) => return Err(Unanswered::Stopped(answer)),
            Err(Unanswered::Failed(error)) => error,
        };
        let Some(delay) = manner.retry.delay(attempt, &error, rand::random()) else {
            return Err(Unanswered::Failed(error));
        };
        metrics::model_retried(&error.provider, error.kind);
        context.part(encoded(&RetryNotice::new(attempt, delay, &error, SystemTime::now())));
        if stopped_within(delay, context).await {
            return Err(Unanswered::Stopped(Answer::default()));
        }
    }
}

async fn stopped_within(delay: Duration, context: &dyn RunContext) -> bool {
    tokio::select! {
        biased;
        _ = context.stopped() => true,
        () = sleep(delay) => false,
    }
}

async fn attempt_once(
    chosen: &Chosen,
    request: Request,
    manner: Manner<'_>,
    context: &dyn RunContext,
) -> Result<Answer, Unanswered> {
    let _at_work = AtWork::at(Work::Asking);
    let mut answer = Answer::default();
    // Before the side effect, which may cost money: a frozen process learns here that it has lost
    // its lease.
    if context.stop_cause().is_some() {
        return Err(Unanswered::Stopped(answer));
    }
    let (began, provider) = (Instant::now(), chosen.model.provider().to_owned());
    let mut deltas = guarded(chosen.model.ask(request), manner.guard, provider.clone());
    let mut first = true;
    loop {
        let delta = tokio::select! {
            biased;
            _ = context.stopped() => {
                metrics::model_called(&provider, CallEnd::Stopped);
                return Err(Unanswered::Stopped(answer));
            }
            delta = deltas.next() => delta,
        };
        let Some(delta) = delta else { break };
        let delta = delta.map_err(|error| {
            metrics::model_called(&provider, CallEnd::Failed(error.kind));
            Unanswered::Failed(error)
        })?;
        if std::mem::take(&mut first) {
            metrics::model_began(&provider, began.elapsed());
        }
        let seen = answer.add(delta);
        if let Some(part) = seen.filter(|_| manner.aloud) {
            context.part(encoded(&part));
        }
    }
    metrics::model_called(&provider, CallEnd::Answered);
    metrics::tokens_used(&provider, &answer.end.usage);
    Ok(answer)
}

/// Returns a part, or a notice among the parts, as followers are given it.
pub(crate) fn encoded(part: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(part).expect("parts and notices have no keys that JSON lacks")
}
