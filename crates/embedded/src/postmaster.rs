//! A server process that is ours.

use std::io;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc;
use std::thread;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::command::die_with_parent;
use crate::error::StopError;
use crate::shutdown::shut_down;

/// A server process that is ours: it ends when this is dropped, or when we are killed.
#[derive(Debug)]
pub(crate) struct Postmaster {
    child: Child,
    /// Ends the keeper thread when dropped; last, because the kernel then signals the server.
    _keeper: mpsc::Sender<()>,
}

impl Postmaster {
    /// Spawns the server from a thread that stays as long as the server is kept.
    ///
    /// The kernel takes the end of the spawning *thread* for the death of the parent, and our
    /// caller's thread may be one of a pool that shrinks.
    pub(crate) fn spawn(mut command: Command) -> io::Result<Self> {
        let (keeper, released) = mpsc::channel();
        let (send, spawned) = mpsc::channel();
        thread::Builder::new().name("postgres-keeper".to_owned()).spawn(move || {
            die_with_parent(&mut command, Signal::SIGINT);
            let answered = send.send(command.spawn());
            // The command holds the log open, which only the server needs.
            drop(command);
            if answered.is_ok() {
                // Never sent anything: returns when the other end is dropped.
                let _ = released.recv();
            }
        })?;
        let child = spawned.recv().map_err(io::Error::other)??;
        Ok(Self { child, _keeper: keeper })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Returns how the server ended, `None` while it runs.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        // An error means that it is no child of ours, which cannot be.
        self.child.try_wait().ok().flatten()
    }

    /// Ends the server and waits for its end.
    pub(crate) fn stop(&mut self) -> Result<(), StopError> {
        let pid = self.id();
        // The number stays the server's until `ended` has seen the end of it.
        if shut_down(Pid::from_raw(pid.cast_signed()), || self.ended().is_some()) {
            Ok(())
        } else {
            Err(StopError::StillRunning { pid })
        }
    }
}

impl Drop for Postmaster {
    fn drop(&mut self) {
        // Who wants to know calls `stop`.
        let _ = self.stop();
    }
}
