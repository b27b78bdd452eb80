//! Builds and what they meet.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use musterbeat_core::build::{Build, Transition};
use musterbeat_core::id::{BuildId, OwnerId, WorkspaceId};
use musterbeat_core::port::BuildContext;
use musterbeat_core::run::StopCause;
use tokio::sync::watch;
use uuid::Uuid;

/// Returns a build of the one workspace of a test, a prebuild.
pub(crate) fn build(transition: Transition) -> Build {
    Build {
        id: BuildId::new(Uuid::from_u128(1)),
        workspace: WorkspaceId::new(Uuid::from_u128(2)),
        transition,
        name: "prebuild-7".to_owned(),
        owner: None,
        source: "rust".to_owned(),
        parameters: BTreeMap::from([("size".to_owned(), "\"large\"".to_owned())]),
    }
}

/// Returns the same build for the one owner of a test.
pub(crate) fn owned(transition: Transition, name: &str) -> Build {
    let owner = Some(OwnerId::new(Uuid::from_u128(3)));
    Build { name: name.to_owned(), owner, ..build(transition) }
}

/// Keeps the log, and stops the build when a line of it is as asked.
pub(crate) struct World {
    stop_at: Option<&'static str>,
    stop: watch::Sender<bool>,
    lines: Mutex<Vec<String>>,
}

impl World {
    /// Never stops the build.
    pub(crate) fn new() -> Arc<Self> {
        Self::that_stops_at(None)
    }

    /// Stops the build at its first line that begins with `line`.
    pub(crate) fn that_stops_at(line: impl Into<Option<&'static str>>) -> Arc<Self> {
        let stop = watch::Sender::new(false);
        Arc::new(Self { stop_at: line.into(), stop, lines: Mutex::default() })
    }

    /// Stops the build.
    pub(crate) fn stop(&self) {
        self.stop.send_replace(true);
    }

    /// Returns the log so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.lock().unwrap().clone()
    }
}

#[async_trait]
impl BuildContext for World {
    async fn stopped(&self) -> StopCause {
        let asked = self.stop.subscribe().wait_for(|stop| *stop).await.is_ok();
        assert!(asked, "the sender lives as long as this");
        StopCause::Interrupted
    }

    fn log(&self, line: &str) {
        self.lines.lock().unwrap().push(line.to_owned());
        if self.stop_at.is_some_and(|begin| line.starts_with(begin)) {
            self.stop();
        }
    }
}
