//! A small process that cleans up after this one, however this one ends.
//!
//! A server in a static is never dropped, and a killed process runs no destructor.
//! The heir waits at a pipe that only the death of its owner closes.

use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// A shell that waits to clean up; dropping it means that nothing is left to clean.
#[derive(Debug)]
pub(crate) struct Heir {
    child: Child,
}

impl Heir {
    /// Prepares to run `script`, with `args` as `$1` and so on, once this process has ended.
    ///
    /// `None` where there is no shell: then the next start sweeps.
    pub(crate) fn appoint(script: &str, args: &[&str]) -> Option<Self> {
        let child = Command::new("/bin/sh")
            .arg("-c")
            .arg(format!("read -r _; {script}"))
            .arg("testkit-heir")
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C is for the tests: the heir outlives them.
            .process_group(0)
            .spawn();
        child.ok().map(|child| Self { child })
    }
}

impl Drop for Heir {
    fn drop(&mut self) {
        // One that has ended by itself needs neither.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
