//! Starts and stops servers on threads of their own.
//!
//! Both block, and Docker's way runs on a runtime of its own, which that of a test does not allow.
//! Who gives up waiting for a start, as Ctrl-C does, is free at once: nobody joins its thread,
//! which may be fetching for minutes.

use std::thread;

use anyhow::{Context, Result};
use tokio::sync::oneshot;

use super::{Running, say};

/// What a provider found.
pub(super) enum Found {
    Running(Kept),
    /// There is no such provider here, and why.
    Absent(String),
}

/// A running server; dropping this stops it and waits for its end.
#[derive(Debug)]
pub(super) struct Kept {
    /// For an administrator.
    pub(super) url: String,
    /// Where the server comes from.
    pub(super) origin: String,
    /// INVARIANT: there until the drop.
    server: Option<Box<dyn Running>>,
}

impl Kept {
    pub(super) fn new(server: impl Running + 'static) -> Self {
        Self { url: server.url(), origin: server.origin(), server: Some(Box::new(server)) }
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        let Some(server) = self.server.take() else { return };
        let stopping = thread::Builder::new().name("testkit-stop".to_owned()).spawn(|| {
            if let Err(error) = server.stop() {
                say(&format!("the test server did not stop in good order: {error:#}"));
            }
        });
        match stopping {
            // A thread that panicked has said why.
            Ok(thread) => drop(thread.join()),
            Err(error) => say(&format!("no thread to stop the test server: {error}")),
        }
    }
}

/// Lets `find` start a server; dropping this future abandons the start.
///
/// A server that comes after all finds nobody, and is stopped.
pub(super) async fn start<F>(find: F) -> Result<Found>
where
    F: FnOnce() -> Result<Found> + Send + 'static,
{
    let (answer, answered) = oneshot::channel();
    thread::Builder::new()
        .name("testkit-start".to_owned())
        .spawn(move || drop(answer.send(find())))
        .context("no thread for the test server: raise the limit of processes")?;
    answered.await.context("the thread of the test server panicked")?
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    /// Long enough for a busy machine; nothing waits for it to pass.
    const SOON: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn an_abandoned_start_holds_up_nobody_and_its_server_is_stopped() {
        let (go, told) = channel();
        let (stopped, stops) = channel();
        let slow = start(move || {
            told.recv()?;
            Ok(Found::Running(Kept::new(Fake { stopped })))
        });
        // Polled once, and dropped while it waits for a word that is not said before.
        assert!(timeout(Duration::ZERO, slow).await.is_err());
        go.send(()).unwrap();
        stops.recv_timeout(SOON).unwrap();
    }

    #[tokio::test]
    async fn a_server_is_kept_until_it_is_dropped() {
        let (stopped, stops) = channel();
        let found = start(|| Ok(Found::Running(Kept::new(Fake { stopped })))).await.unwrap();
        assert!(stops.try_recv().is_err());
        drop(found);
        stops.try_recv().unwrap();
    }

    #[derive(Debug)]
    struct Fake {
        stopped: Sender<()>,
    }

    impl Running for Fake {
        fn url(&self) -> String {
            String::new()
        }

        fn origin(&self) -> String {
            String::new()
        }

        fn stop(self: Box<Self>) -> Result<()> {
            Ok(self.stopped.send(())?)
        }
    }
}
