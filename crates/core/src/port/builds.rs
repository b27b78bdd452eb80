use std::time::Duration;

use async_trait::async_trait;

use super::{ProvisionError, Reach, StoreError, WriteError};
use crate::build::{Build, Provisioned};
use crate::id::{BuildId, PresetId};
use crate::prebuild::PoolName;
use crate::run::{Run, Token};
use crate::workspace::{BuildState, LogLine, LogPlace};

/// Keeps builds for those who carry them out, and for those who follow them.
#[cfg_attr(feature = "mock", mockall::automock)]
#[async_trait]
pub trait BuildStore: Send + Sync {
    /// Returns what a build is to do; `None` when it is not there.
    async fn work(&self, build: BuildId) -> Result<Option<Build>, StoreError>;

    /// Writes a build's end, with what it means to its workspace and preset.
    ///
    /// A build that was stopped has failed. Repeated, it changes nothing.
    async fn end(
        &self,
        run: &Run,
        end: &Result<Provisioned, ProvisionError>,
    ) -> Result<Ended, WriteError>;

    /// Adds lines to a build's log, the first of which is the `first`th of this ownership.
    ///
    /// Lines that are there already stay.
    async fn log(
        &self,
        build: BuildId,
        token: Token,
        first: u32,
        lines: &[String],
    ) -> Result<(), StoreError>;

    /// Returns a build; `None` when it is not there or out of reach.
    async fn state(&self, build: BuildId, reach: Reach) -> Result<Option<BuildState>, StoreError>;

    /// Returns lines of a build's log after a place, the first ones first; `None` without the build.
    async fn lines(
        &self,
        build: BuildId,
        reach: Reach,
        after: Option<LogPlace>,
    ) -> Result<Option<Vec<LogLine>>, StoreError>;
}

/// What the end of a build came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// The preset of a prebuild, and what it is called.
    pub pool: Option<(PresetId, PoolName)>,
    /// Whether that preset's pool should be looked at: it is full, or something failed.
    pub needs_look: bool,
    /// How long prebuilds of the preset were missing that had been claimed, when none is any more.
    pub refilled: Option<Duration>,
}
