//! A provisioner that lets the operator's programs build, one start a build.
//!
//! A program is started directly, without a shell, in a process group of its own, with an empty
//! input. It inherits the working folder and the environment, except what bears secrets of the
//! server: variables that begin with `MUSTERBEAT_`, `DATABASE_URL` and `PGPASSWORD`.
//!
//! # What it is told
//! | variable | holds |
//! |---|---|
//! | `MUSTERBEAT_BUILD_ID` | the build; the same when it is carried out again |
//! | `MUSTERBEAT_WORKSPACE_ID` | what is built |
//! | `MUSTERBEAT_TRANSITION` | `start`, `claim`, `stop` or `delete` |
//! | `MUSTERBEAT_WORKSPACE_NAME` | what the workspace is called |
//! | `MUSTERBEAT_OWNER_ID` | whose it is; not set for a prebuild |
//! | `MUSTERBEAT_SOURCE` | what the version of the template is made of |
//! | `MUSTERBEAT_PARAMETERS` | a JSON object of texts |
//!
//! No other variable begins with `MUSTERBEAT_`.
//!
//! # What it writes
//! Lines of standard output and standard error go to the build's log, within bounds: what is no
//! UTF-8 is replaced, and NUL characters are left out. A line `::replacement NAME` of standard
//! output is not logged; it adds to [`Provisioned::replacements`].
//!
//! # How it ends
//! | status | means |
//! |---|---|
//! | 0 | it is done |
//! | 65 (`EX_DATAERR`) | what is asked for is not valid, and is not asked again |
//! | any other, or a signal | it failed; another attempt may not |
//!
//! The last line of standard error that is not blank says why.
//!
//! When the build is to stop, or takes too long, the group gets SIGTERM, and after
//! [`CommandLimits::stop_grace`] SIGKILL. What a program leaves behind in its group when it exits
//! is killed. When the future of a build is dropped, the group is killed at once.
//!
//! A build may be carried out twice: when its process dies, another starts the program again with
//! the same build. It must find done what was done already. A program whose server is killed is
//! not told; it may still run when its successor starts.
//!
//! # A whole program
//! ```sh
#![doc = include_str!("command/example.sh")]
//! ```

mod environment;
mod lines;
mod log;

use std::error::Error;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use musterbeat_core::build::{Build, Provisioned, Transition};
use musterbeat_core::port::{BuildContext, ProvisionError, Provisioner};
use musterbeat_process::{Group, Signal};
use tokio::process::{ChildStderr, ChildStdout, Command};
use tokio::time::{sleep, timeout};

use self::lines::Lines;
use self::log::{BuildLog, Stream};
use crate::explain::explained;

pub use self::log::{REPLACEMENT_BYTES_MAX, REPLACEMENTS_MAX};

/// Time that a build may take by default: as long as machines of a cloud may take.
pub const TIME_MAX: Duration = Duration::from_mins(30);

/// Time from SIGTERM to SIGKILL by default: enough to leave a state file whole.
pub const STOP_GRACE: Duration = Duration::from_secs(5);

/// Bytes of a line of the log, at most, by default.
pub const LOG_LINE_BYTES_MAX: usize = 4 * 1024;

/// Lines of a build's log, at most, by default.
pub const LOG_LINES_MAX: usize = 10_000;

/// The exit status by which a program says that another attempt would not help: `EX_DATAERR`.
pub const INVALID_STATUS: i32 = 65;

/// Time that output may stay open after its program's end, held by a process that left the group.
const HELD_OPEN_MAX: Duration = Duration::from_millis(500);

/// Carries out builds with programs; the module describes what they read and write.
#[derive(Clone, Debug)]
pub struct CommandProvisioner {
    /// Makes a workspace, or starts it again.
    pub start: Program,
    /// Gives a prebuild to an owner; `None` where that changes nothing.
    pub claim: Option<Program>,
    /// Stops a workspace; `None` where there is nothing to stop.
    pub stop: Option<Program>,
    /// Takes a workspace away.
    pub delete: Program,
    /// What each of them may take.
    pub limits: CommandLimits,
}

/// A program of the operator's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// Its path; a name without a slash is looked up in `PATH`.
    pub path: PathBuf,
    /// Its arguments, the same for each build.
    pub args: Vec<String>,
}

/// What a program may take for one build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandLimits {
    /// Time from its start to its end.
    pub time_max: Duration,
    /// Time from SIGTERM to SIGKILL.
    pub stop_grace: Duration,
    /// Bytes of a line that are logged; its rest is cut off.
    pub log_line_bytes_max: usize,
    /// Lines that are logged; further ones are discarded, and one line says so.
    pub log_lines_max: usize,
}

impl Default for CommandLimits {
    fn default() -> Self {
        Self {
            time_max: TIME_MAX,
            stop_grace: STOP_GRACE,
            log_line_bytes_max: LOG_LINE_BYTES_MAX,
            log_lines_max: LOG_LINES_MAX,
        }
    }
}

#[async_trait]
impl Provisioner for CommandProvisioner {
    async fn provision(
        &self,
        build: &Build,
        context: Arc<dyn BuildContext>,
    ) -> Result<Provisioned, ProvisionError> {
        let program = match build.transition {
            Transition::Start => Some(&self.start),
            Transition::Claim => self.claim.as_ref(),
            Transition::Stop => self.stop.as_ref(),
            Transition::Delete => Some(&self.delete),
        };
        let Some(program) = program else {
            return Ok(Provisioned::default());
        };
        let over = sleep(self.limits.time_max);
        run(program, build, context, &self.limits, over).await.map_err(|error| {
            let text = format!("{}: {}", program.path.display(), explained(&error));
            match error {
                RunError::Stopped => ProvisionError::Stopped,
                RunError::Nul(_) | RunError::TooLong | RunError::Refused { .. } => {
                    ProvisionError::Invalid(text)
                }
                _ => ProvisionError::Failed(text),
            }
        })
    }
}

/// Why a program did not do what it was to do.
#[derive(Debug, thiserror::Error)]
enum RunError {
    #[error("it was stopped")]
    Stopped,
    #[error("{0} has a NUL character, which no environment can hold")]
    Nul(&'static str),
    #[error("the build is too long for an environment; shorten its source or its parameters")]
    TooLong,
    #[error("it refused the build{}", quoted(.last))]
    Refused { last: String },
    #[error(
        "it or the interpreter that its first line names is not there; \
         name a program by its path, or one that `PATH` leads to"
    )]
    Missing,
    #[error("it may not be executed; make it executable with `chmod +x`")]
    NotExecutable,
    #[error("it could not be started; see that it is a program of this machine's kind")]
    Start(#[source] io::Error),
    #[error("its end could not be waited for")]
    Wait(#[source] io::Error),
    #[error("it took longer than {time_max:?} and was stopped{}", quoted(.last))]
    TimedOut { time_max: Duration, last: String },
    #[error("it failed with {}{}", ending(*.status), quoted(.last))]
    Failed { status: ExitStatus, last: String },
}

/// Why the wait for a program ended.
enum Wake {
    Stopped,
    TimedOut,
    Ended(Result<ExitStatus, RunError>),
}

/// Runs a program for a build, until it has ended, its time is `over`, or the build is to stop.
async fn run(
    program: &Program,
    build: &Build,
    context: Arc<dyn BuildContext>,
    limits: &CommandLimits,
    over: impl Future<Output = ()>,
) -> Result<Provisioned, RunError> {
    tokio::select! {
        biased;
        _ = context.stopped() => return Err(RunError::Stopped),
        () = std::future::ready(()) => {}
    }
    let log = BuildLog::new(context.clone(), limits);
    let mut running = Running::start(program, build, &log)?;
    // Endless output is always ready, so it comes after what ends it.
    let wake = tokio::select! {
        biased;
        _ = context.stopped() => Wake::Stopped,
        () = over => Wake::TimedOut,
        ended = running.ended() => Wake::Ended(ended),
    };
    if !matches!(wake, Wake::Ended(Ok(_))) {
        running.stop(limits.stop_grace).await;
    }
    let heard = log.take_heard();
    match wake {
        Wake::Stopped => Err(RunError::Stopped),
        Wake::TimedOut => Err(RunError::TimedOut { time_max: limits.time_max, last: heard.last }),
        Wake::Ended(status) => match status? {
            status if status.success() => Ok(Provisioned { replacements: heard.replacements }),
            status if status.code() == Some(INVALID_STATUS) => {
                Err(RunError::Refused { last: heard.last })
            }
            status => Err(RunError::Failed { status, last: heard.last }),
        },
    }
}

/// A program at work on a build.
struct Running<'a> {
    group: Group,
    stdout: Lines<ChildStdout>,
    stderr: Lines<ChildStderr>,
    log: &'a BuildLog,
}

impl<'a> Running<'a> {
    fn start(program: &Program, build: &Build, log: &'a BuildLog) -> Result<Self, RunError> {
        let mut command = Command::new(&program.path);
        command.args(&program.args);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        environment::hide_secrets(&mut command, std::env::vars_os().map(|(name, _)| name));
        for (name, value) in environment::variables(build) {
            if value.contains('\0') {
                return Err(RunError::Nul(name));
            }
            command.env(name, value);
        }
        let mut group = Group::start(&mut command).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => RunError::Missing,
            io::ErrorKind::PermissionDenied => RunError::NotExecutable,
            io::ErrorKind::ArgumentListTooLong => RunError::TooLong,
            _ => RunError::Start(error),
        })?;
        let piped = "the stream was asked to be a pipe, and is taken once";
        let stdout = log.lines(group.leader().stdout.take().expect(piped));
        let stderr = log.lines(group.leader().stderr.take().expect(piped));
        Ok(Self { group, stdout, stderr, log })
    }

    /// Waits until the program has ended and was heard to its end, and kills what it left behind.
    async fn ended(&mut self) -> Result<ExitStatus, RunError> {
        self.leader_ended().await;
        let status = self.group.reap().await.map_err(RunError::Wait)?;
        // What the program wrote waits in the pipes. Who else holds them may never let go.
        let _ = timeout(HELD_OPEN_MAX, self.follow()).await;
        Ok(status)
    }

    /// Asks the group to end, and kills it after the grace or when nobody is left to have it.
    async fn stop(&mut self, grace: Duration) {
        if self.group.is_reaped() {
            return;
        }
        self.group.signal(Signal::SIGTERM);
        let ended = async {
            // An open pipe tells that somebody is left whose leader has ended.
            self.follow().await;
            self.group.leader_ended().await;
        };
        let _ = timeout(grace, ended).await;
        if let Err(error) = self.group.reap().await {
            tracing::warn!(error = &error as &dyn Error, "a stopped program was not waited for");
        }
    }

    /// Follows the streams until the leader has ended. Dropping the future loses nothing.
    async fn leader_ended(&mut self) {
        let Self { group, stdout, stderr, log } = self;
        tokio::select! {
            () = follow(stdout, stderr, log) => {}
            () = group.leader_ended() => return,
        }
        group.leader_ended().await;
    }

    async fn follow(&mut self) {
        follow(&mut self.stdout, &mut self.stderr, self.log).await;
    }
}

/// Follows both streams to their ends.
async fn follow(stdout: &mut Lines<ChildStdout>, stderr: &mut Lines<ChildStderr>, log: &BuildLog) {
    tokio::join!(log.follow(Stream::Output, stdout), log.follow(Stream::Error, stderr));
}

/// Says how a program ended: `exit status 1`, `signal 9`.
fn ending(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

fn quoted(last: &str) -> String {
    if last.is_empty() { " and wrote no error".to_owned() } else { format!(": {last}") }
}

#[cfg(test)]
mod tests;
