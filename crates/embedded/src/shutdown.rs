//! Ends a server, gently first.

use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait;

/// A fast shutdown writes a checkpoint, which takes its time on a busy disk.
const FAST_LIMIT: Duration = Duration::from_secs(30);

/// An immediate shutdown writes nothing, it only waits for its processes.
const IMMEDIATE_LIMIT: Duration = Duration::from_secs(10);

/// Asks the server `pid` for a fast shutdown, then for an immediate one.
///
/// `gone` tells whether it has ended and must not lose sight of it, because the number is free for
/// another process afterwards. Returns whether the server ended.
pub(crate) fn shut_down(pid: Pid, mut gone: impl FnMut() -> bool) -> bool {
    [(Signal::SIGINT, FAST_LIMIT), (Signal::SIGQUIT, IMMEDIATE_LIMIT)].into_iter().any(
        |(signal, limit)| {
            if gone() {
                return true;
            }
            // A server that cannot be signalled is one that does not go.
            let _ = kill(pid, signal);
            wait::until(limit, || gone().then_some(())).is_some()
        },
    )
}
