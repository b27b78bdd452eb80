//! The runner of builds: it has a [`Provisioner`] carry each out, keeps what it says, and writes
//! its end.

mod log;

use std::sync::Arc;

use async_trait::async_trait;
use musterbeat_core::build::{Build, Provisioned};
use musterbeat_core::id::{BuildId, RunId};
use musterbeat_core::port::{
    BuildContext, BuildStore, Ended, ProvisionError, Provisioner, Publish, RunContext, Runner,
    StoreError, Topic, WriteError,
};
use musterbeat_core::run::{Outcome, Run, RunKind, StopCause};
use tokio::time::Instant;

use self::log::Log;
use crate::metrics::{
    BUILD_SECONDS, BUILDS_ENDED, PREBUILD_REFILL_SECONDS, PREBUILDS_FAILED, REPLACEMENTS,
};
use crate::panic::caught;
use crate::retry::Retry;

pub use self::log::{LINE_BYTES_MAX, LINES_MAX, LOG_BYTES_MAX};

/// Takes the runs of builds.
pub struct BuildRuns {
    builds: Arc<dyn BuildStore>,
    provisioner: Arc<dyn Provisioner>,
    publish: Arc<dyn Publish>,
}

impl BuildRuns {
    /// Has the builds of `builds` carried out by `provisioner`.
    pub fn new(
        builds: Arc<dyn BuildStore>,
        provisioner: Arc<dyn Provisioner>,
        publish: Arc<dyn Publish>,
    ) -> Self {
        Self { builds, provisioner, publish }
    }

    async fn work(
        &self,
        build: BuildId,
        context: &dyn RunContext,
    ) -> Result<Option<Build>, StoreError> {
        let mut retry = Retry::new(context);
        loop {
            match self.builds.work(build).await {
                Err(error) => retry.wait(error).await?,
                work => return work,
            }
        }
    }

    /// Carries a build out; `None` when another worker is to go on with it.
    async fn provision(
        &self,
        run: &Run,
        build: &Build,
        context: &Arc<dyn RunContext>,
    ) -> Option<Result<Provisioned, ProvisionError>> {
        let log = Arc::new(Log::new(build.id, run.token, Arc::clone(context)));
        let shared: Arc<dyn BuildContext> = Arc::clone(&log) as _;
        let provision = caught("the provisioner", self.provisioner.provision(build, shared));
        let end = tokio::select! {
            end = provision => end,
            never = log.keep(&*self.builds) => match never {},
        };
        log.keep_rest(&*self.builds).await;
        match end {
            Err(panicked) => Some(Err(ProvisionError::Failed(panicked))),
            Ok(Err(ProvisionError::Stopped)) => match context.stop_cause() {
                Some(StopCause::Interrupted) => Some(Err(ProvisionError::Stopped)),
                Some(_) => None,
                None => {
                    let error = "the provisioner stopped without being asked to".to_owned();
                    Some(Err(ProvisionError::Failed(error)))
                }
            },
            Ok(end) => Some(end),
        }
    }

    /// Writes a build's end until storage answers, which is harmless: it names its step.
    async fn settle(
        &self,
        run: &Run,
        end: &Result<Provisioned, ProvisionError>,
        context: &dyn RunContext,
    ) -> Result<Ended, WriteError> {
        let mut retry = Retry::new(context);
        loop {
            if !context.stop_cause().is_none_or(StopCause::allows_writes) {
                return Err(WriteError::Fenced);
            }
            match self.builds.end(run, end).await {
                Err(WriteError::Store(error)) => retry.wait(error).await?,
                answered => return answered,
            }
        }
    }

    fn tell(&self, ended: &Ended, failed: bool) {
        let Some((preset, name)) = &ended.pool else { return };
        let labels =
            [("template_name", name.template.clone()), ("preset_name", name.preset.clone())];
        if failed {
            metrics::counter!(PREBUILDS_FAILED.name, &labels).increment(1);
        }
        if let Some(refilled) = ended.refilled {
            metrics::histogram!(PREBUILD_REFILL_SECONDS.name).record(refilled);
        }
        if ended.needs_look {
            self.publish.publish(Topic::Pool, preset.uuid());
        }
    }
}

#[async_trait]
impl Runner for BuildRuns {
    fn kind(&self) -> RunKind {
        RunKind::BUILD
    }

    async fn run(&self, run: Run, context: Arc<dyn RunContext>) -> Outcome {
        let id = BuildId::new(run.id.uuid());
        let began = Instant::now();
        let build = match self.work(id, &*context).await {
            Ok(Some(build)) => build,
            Ok(None) => return Outcome::Failed("there is no such build".to_owned()),
            Err(error) => return given_back(run.id, &error),
        };
        let end = if run.stop {
            Some(Err(ProvisionError::Stopped))
        } else {
            self.provision(&run, &build, &context).await
        };
        let Some(end) = end else { return Outcome::GivenBack };
        context.ending();
        match self.settle(&run, &end, &*context).await {
            Ok(ended) => {
                report(&build, &end, began);
                self.tell(&ended, end.is_err());
                Outcome::Settled
            }
            // Its end is somebody else's to write.
            Err(WriteError::Fenced) => Outcome::Settled,
            Err(WriteError::Store(error @ StoreError::Unavailable { .. })) => {
                given_back(run.id, &error)
            }
            Err(WriteError::Store(error)) => Outcome::Failed(error.to_string()),
        }
    }
}

fn given_back(run: RunId, error: &StoreError) -> Outcome {
    tracing::warn!(
        build.id = %run,
        error = error as &dyn std::error::Error,
        "a build could not be read or its end not be written; another worker may"
    );
    Outcome::GivenBack
}

/// Counts an end, and says what makes claims slow.
fn report(build: &Build, end: &Result<Provisioned, ProvisionError>, began: Instant) {
    let transition = build.transition.as_str();
    let outcome = if end.is_ok() { "succeeded" } else { "failed" };
    let labels = [("transition", transition), ("outcome", outcome)];
    metrics::counter!(BUILDS_ENDED.name, &labels).increment(1);
    metrics::histogram!(BUILD_SECONDS.name, "transition" => transition).record(began.elapsed());
    let Ok(provisioned) = end else { return };
    let replacements = provisioned.replacements.len();
    if replacements > 0 {
        metrics::counter!(REPLACEMENTS.name, "transition" => transition)
            .increment(replacements as u64);
        tracing::warn!(
            build.id = %build.id,
            workspace.id = %build.workspace,
            transition,
            replacements = ?provisioned.replacements,
            "a claim has to build something anew, and takes as long"
        );
    }
}

#[cfg(test)]
mod tests;
