//! A program with everything that it starts: a process group, of which nothing is left behind.
//!
//! Runners of chats, provisioners, agents and the tools of models all start programs of others,
//! and none of them may outlive what it was started for.

use std::io;
use std::process::ExitStatus;

use nix::sys::signal::killpg;
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::signal::unix::{self, SignalKind};

pub use nix::sys::signal::Signal;

/// A running program, the leader of a process group of its own; dropping it kills the group.
///
/// What moves itself into another group or session gets away.
pub struct Group {
    /// INVARIANT: not reaped while `is_reaped` is false. Until then the system gives the leader's
    /// number to nobody else, so a signal to the group reaches no stranger.
    leader: Child,
    number: Pid,
    is_reaped: bool,
    children: unix::Signal,
}

impl Group {
    /// Starts a program, as the leader of a group of its own; it needs a runtime of tokio.
    ///
    /// # Errors
    /// Those of the start; nothing runs then.
    pub fn start(command: &mut Command) -> io::Result<Self> {
        // Before the start, so that no end is missed.
        let children = unix::signal(SignalKind::child())?;
        let leader = command.process_group(0).kill_on_drop(true).spawn()?;
        let number = leader.id().expect("a program that was not reaped has its number");
        Ok(Self { leader, number: Pid::from_raw(number.cast_signed()), is_reaped: false, children })
    }

    /// Returns the leader, for its streams.
    pub fn leader(&mut self) -> &mut Child {
        &mut self.leader
    }

    /// Says whether the leader was reaped, after which the group is gone.
    pub fn is_reaped(&self) -> bool {
        self.is_reaped
    }

    /// Signals every process of the group; after [`reap`](Self::reap) nothing happens.
    pub fn signal(&self, signal: Signal) {
        if !self.is_reaped {
            // It fails when all have ended, or when all are others' (setuid): nothing to be done.
            let _ = killpg(self.number, signal);
        }
    }

    /// Waits until the leader has ended. Dropping the future loses nothing.
    pub async fn leader_ended(&mut self) {
        while !self.is_reaped && self.leader_runs() {
            // Some child of this process has ended. A runtime that ends reports none any more.
            if self.children.recv().await.is_none() {
                return;
            }
        }
    }

    /// Looks whether the leader runs, and leaves it to be reaped.
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
    fn leader_runs(&self) -> bool {
        use nix::errno::Errno;
        use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};

        let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        let state = waitid(Id::Pid(self.number), look);
        matches!(state, Ok(WaitStatus::StillAlive) | Err(Errno::EINTR))
    }

    /// Looks whether the leader runs; without `waitid` that reaps it, so the group goes with it.
    #[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
    fn leader_runs(&mut self) -> bool {
        if matches!(self.leader.try_wait(), Ok(None)) {
            return true;
        }
        self.signal(Signal::SIGKILL);
        self.is_reaped = true;
        false
    }

    /// Kills what is left of the group, and waits for the leader's status.
    ///
    /// A leader that has ended keeps its status. A second call returns the same.
    ///
    /// # Errors
    /// Those of the wait; the group was killed all the same.
    pub async fn reap(&mut self) -> io::Result<ExitStatus> {
        self.signal(Signal::SIGKILL);
        let status = self.leader.wait().await;
        self.is_reaped = true;
        status
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::SIGKILL);
    }
}
