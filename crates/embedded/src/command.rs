//! Programs that run to their end: bounded in time, and never outliving us.

use std::fmt;
use std::io::{self, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::wait;

/// How many lines of a program's output an error repeats.
const TAIL_LINES_MAX: usize = 12;

/// Runs a program to its end and returns what it wrote, both streams in one.
pub(crate) fn run(mut command: Command, limit: Duration) -> Result<String, CommandError> {
    let program = PathBuf::from(command.get_program());
    let failed = |source| CommandError::Spawn { program: program.clone(), source };
    let (mut reader, writer) = io::pipe().map_err(failed)?;
    let stdout = writer.try_clone().map_err(failed)?;
    command.stdin(Stdio::null()).stdout(stdout).stderr(writer).process_group(0);
    die_with_parent(&mut command, Signal::SIGKILL);
    let mut child = command.spawn().map_err(failed)?;
    // It holds our copies of the pipe, whose reader waits for the last copy to close.
    drop(command);
    let output = thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before a failure still tells more than nothing.
        let _ = reader.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    });
    let status = wait::until(limit, || child.try_wait().transpose());
    if status.is_none() {
        kill_group(&mut child);
    }
    let output = output.join().unwrap_or_default();
    match status {
        Some(Ok(status)) if status.success() => Ok(output),
        Some(Ok(status)) => Err(CommandError::Failed { program, status, tail: Tail::of(&output) }),
        Some(Err(source)) => Err(CommandError::Spawn { program, source }),
        None => Err(CommandError::TimedOut { program, limit, tail: Tail::of(&output) }),
    }
}

/// Lets the kernel send `signal` to the program when the thread that spawns it ends.
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) fn die_with_parent(command: &mut Command, signal: Signal) {
    let parent = Pid::this();
    let arm = move || {
        nix::sys::prctl::set_pdeathsig(signal)?;
        // The parent may have died before the kernel was told to watch it.
        if nix::unistd::getppid() == parent { Ok(()) } else { Err(nix::errno::Errno::ESRCH.into()) }
    };
    // SAFETY: between fork and exec only async-signal-safe calls are sound, since another thread
    // may have held any lock at the fork. `arm` makes two system calls, `prctl` and `getppid`,
    // and its error is a bare number: it neither allocates nor locks.
    #[allow(unsafe_code, reason = "std offers no other way to act between fork and exec")]
    unsafe {
        command.pre_exec(arm);
    }
}

/// Does nothing: only Linux can tie a program to the life of its parent.
#[cfg(not(any(target_os = "linux", target_os = "android")))]
pub(crate) fn die_with_parent(_: &mut Command, _: Signal) {}

/// Ends a program with all that it started.
fn kill_group(child: &mut Child) {
    let _ = killpg(Pid::from_raw(child.id().cast_signed()), Signal::SIGKILL);
    let _ = child.wait();
}

/// A program that could not be run or did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It could not be started.
    #[error("failed to run {}", program.display())]
    Spawn {
        /// What was to be run.
        program: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// It ended without success.
    #[error("{} failed ({}){tail}", program.display(), ending(*status))]
    Failed {
        /// What was run.
        program: PathBuf,
        /// How it ended.
        status: ExitStatus,
        /// The end of its output.
        tail: Tail,
    },
    /// It was stopped because it took too long.
    #[error("{} took longer than {} s{tail}", program.display(), limit.as_secs())]
    TimedOut {
        /// What was run.
        program: PathBuf,
        /// How long it was allowed to take.
        limit: Duration,
        /// The end of its output.
        tail: Tail,
    },
}

impl CommandError {
    /// Tells whether the program is not there at all.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Self::Spawn { source, .. } if source.kind() == io::ErrorKind::NotFound)
    }
}

/// The last lines of what a program wrote; displayed after the colon of a sentence.
#[derive(Clone, Debug, Default)]
pub struct Tail(String);

impl Tail {
    /// Keeps the last lines of `output`.
    pub(crate) fn of(output: &str) -> Self {
        let lines: Vec<&str> = output.lines().filter(|line| !line.trim().is_empty()).collect();
        Self(lines[lines.len().saturating_sub(TAIL_LINES_MAX)..].join("\n"))
    }

    /// Tells whether a line holds `text`.
    pub(crate) fn mentions(&self, text: &str) -> bool {
        self.0.contains(text)
    }
}

impl fmt::Display for Tail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.lines().count() {
            0 => f.write_str(" and wrote nothing"),
            1 => write!(f, ": {}", self.0),
            _ => write!(f, ":\n{}", self.0),
        }
    }
}

/// Says how a program ended: `exit 1`, `signal 9`.
pub(crate) fn ending(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}
