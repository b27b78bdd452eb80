use std::sync::Arc;

use async_trait::async_trait;

use crate::build::{Build, Provisioned};
use crate::run::StopCause;

/// Carries out builds.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait Provisioner: Send + Sync {
    /// Carries out one build, until it is done or asked to stop.
    ///
    /// It should return soon after [`BuildContext::stopped`] does. After the death of its process
    /// another calls this again for the same build, which must come to the same: what was done
    /// already is found done.
    async fn provision(
        &self,
        build: &Build,
        context: Arc<dyn BuildContext>,
    ) -> Result<Provisioned, ProvisionError>;
}

/// What a provisioner is given to meet the world with; implemented by the engine.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait BuildContext: Send + Sync {
    /// Waits until the build should stop, and says why; returns at once when it already should.
    async fn stopped(&self) -> StopCause;

    /// Keeps a line of the build's log; never waits.
    ///
    /// Lines are bounded in number and length by whoever keeps them, and cut there.
    fn log(&self, line: &str);
}

/// A build did not come to its end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProvisionError {
    /// What is asked for is not valid; asked again, it fails again.
    #[error("the build is not valid: {0}")]
    Invalid(String),
    /// It failed; another attempt may not.
    #[error("the build failed: {0}")]
    Failed(String),
    /// It was asked to stop.
    #[error("the build was stopped")]
    Stopped,
}
