//! Where values come from.

use std::collections::BTreeMap;

use async_trait::async_trait;
use musterbeat_core::metadata::{Key, VALUE_BYTES_MAX};
use serde::Serialize;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::duty::Duty;
use crate::explain::{cut, explained};
use crate::machine::{Known, Machine};
use crate::options::ReporterOptions;
use crate::script;

/// Scripts that run at once: a machine that is only watched is left alone.
const SCRIPTS_MAX: usize = 16;

/// Finds values.
#[async_trait]
pub(crate) trait Source: Send + Sync {
    /// Finds the value of a duty within its time, or says why not.
    ///
    /// Dropping the future ends what it started.
    async fn read(&self, duty: &Duty) -> Reading;
}

/// What was found; value and error have at most [`VALUE_BYTES_MAX`] bytes each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Reading {
    pub(crate) value: String,
    /// Why there is none, or what is wrong with it; empty when nothing is.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) error: String,
}

impl Reading {
    /// A value with which nothing is wrong, cut to what is allowed.
    pub(crate) fn of(value: impl Into<String>) -> Self {
        let mut value = value.into();
        cut(&mut value, VALUE_BYTES_MAX);
        Self { value, error: String::new() }
    }

    /// No value; the error is cut to what is allowed.
    pub(crate) fn failed(error: impl Into<String>) -> Self {
        Self::default().with_error(error)
    }

    /// Says what is wrong with the value.
    pub(crate) fn with_error(self, error: impl Into<String>) -> Self {
        let mut error = error.into();
        cut(&mut error, VALUE_BYTES_MAX);
        Self { error, ..self }
    }
}

/// The machine itself, and programs on it.
#[derive(Debug)]
pub(crate) struct LocalSource {
    machine: Machine,
    commands: BTreeMap<Key, String>,
    allow_scripts: bool,
    running: Semaphore,
}

impl LocalSource {
    pub(crate) fn new(options: &ReporterOptions) -> Self {
        Self {
            machine: Machine::new(options.disk.clone()),
            commands: options.commands.clone(),
            allow_scripts: options.allow_scripts,
            running: Semaphore::new(SCRIPTS_MAX),
        }
    }

    async fn run(&self, script: &str, duty: &Duty) -> Reading {
        // It is never closed. The wait does not count: a script has all its time.
        let _running = self.running.acquire().await;
        script::run(script, duty.time_max).await
    }

    async fn ask_machine(&self, duty: &Duty) -> Reading {
        let Some(known) = Known::by_key(duty.key.as_str()) else {
            let names = Known::names();
            return Reading::failed(format!(
                "this agent knows no {} by itself; it knows {names}, and runs commands that it \
                 was given",
                duty.key
            ));
        };
        match timeout(duty.time_max, self.machine.read(known)).await {
            Ok(Ok(value)) => Reading::of(value),
            Ok(Err(error)) => Reading::failed(explained(&error)),
            Err(_) => Reading::failed(format!("took longer than {:?}", duty.time_max)),
        }
    }
}

#[async_trait]
impl Source for LocalSource {
    async fn read(&self, duty: &Duty) -> Reading {
        match self.commands.get(&duty.key) {
            Some(command) => self.run(command, duty).await,
            None if duty.script.is_empty() => self.ask_machine(duty).await,
            None if self.allow_scripts => self.run(&duty.script, duty).await,
            None => Reading::failed("this agent runs no scripts; start it with --allow-scripts"),
        }
    }
}

#[cfg(test)]
mod tests;
