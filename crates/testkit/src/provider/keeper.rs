//! A thread that outlives the tests' runtimes and owns a server.
//!
//! A server in a static outlives the runtime of the test that started it, and an embedded one dies
//! with the thread that spawned it. So a thread of its own starts it, waits, and stops it.

use std::sync::mpsc;
use std::thread::{self, JoinHandle};

use anyhow::{Context, Result};
use tokio::sync::oneshot;

use super::{Running, say};

/// What a provider found.
pub(super) enum Found {
    Running(Box<dyn Running>),
    Absent(String),
}

/// What a provider found, with a running server in the hands of its keeper.
pub(super) enum Kept {
    Running { keeper: Keeper, url: String, origin: String },
    Absent(String),
}

/// The owner of a server; dropping it stops the server.
#[derive(Debug)]
pub(super) struct Keeper {
    /// Closed to stop.
    alive: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

type Answer = Result<Result<(String, String), String>>;

impl Keeper {
    /// Starts a server on a thread of its own.
    pub(super) async fn start<F>(find: F) -> Result<Kept>
    where
        F: FnOnce() -> Result<Found> + Send + 'static,
    {
        let (answer, answered) = oneshot::channel();
        let (alive, ended) = mpsc::channel();
        let thread = thread::Builder::new()
            .name("testkit-server".to_owned())
            .spawn(move || keep(find, answer, &ended))
            .context("no thread for the test server: raise the limit of processes")?;
        let keeper = Self { alive: Some(alive), thread: Some(thread) };
        let found = answered.await.context("the thread of the test server panicked")??;
        Ok(match found {
            Ok((url, origin)) => Kept::Running { keeper, url, origin },
            Err(why) => Kept::Absent(why),
        })
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.alive.take();
        if let Some(thread) = self.thread.take() {
            // It has said what went wrong.
            let _ = thread.join();
        }
    }
}

fn keep<F>(find: F, answer: oneshot::Sender<Answer>, ended: &mpsc::Receiver<()>)
where
    F: FnOnce() -> Result<Found>,
{
    let (server, found) = match find() {
        Err(error) => (None, Err(error)),
        Ok(Found::Absent(why)) => (None, Ok(Err(why))),
        Ok(Found::Running(server)) => {
            let found = (server.url(), server.origin());
            (Some(server), Ok(Ok(found)))
        }
    };
    // Whoever asked may be gone; then the channel is closed too.
    let _ = answer.send(found);
    let Some(server) = server else { return };
    let _ = ended.recv();
    if let Err(error) = server.stop() {
        say(&format!("the test server did not stop in good order: {error:#}"));
    }
}
