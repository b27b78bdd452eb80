//! A chat runner that lets a program of the operator's answer, one start a turn.
//!
//! The program is started directly, without a shell, in a process group of its own. It inherits
//! the working folder and the environment, except what bears secrets of the server: variables
//! that begin with `MUSTERBEAT_`, `DATABASE_URL` and `PGPASSWORD`.
//!
//! # What it reads
//! One JSON document on standard input, then the end of input. It need not read it.
//!
//! ```json
//! {
//!   "chat_id": "0198c7a2-1f00-7000-8000-000000000001",
//!   "owner_id": "0198c7a2-1f00-7000-8000-000000000002",
//!   "model": null,
//!   "messages": [
//!     {
//!       "id": 1,
//!       "role": "user",
//!       "content": [{"type": "text", "text": "Who keeps the muster roll?"}],
//!       "model": null,
//!       "created_at": "2026-01-05T10:00:00Z"
//!     }
//!   ]
//! }
//! ```
//!
//! `messages` is the history as a model should see it, oldest first; its end is what is asked.
//! `role` is `system`, `user`, `assistant` or `tool`. Messages may hold parts of other types
//! than `text`. New keys may come; ignore those that you do not know.
//!
//! # What it writes
//! Lines of JSON in UTF-8 on standard output. Blank lines are ignored. There are two types:
//!
//! ```json
//! {"type": "part", "part": {"type": "text", "text": "a piece"}}
//! {"type": "message", "content": "a piece and the rest"}
//! ```
//!
//! A `part` is shown at once to those who follow the chat, and is not stored. It may be as small
//! as a token, and should be flushed. The one `message` is stored; it is required and comes last.
//! Its `content` is a text or a list of 1 to 64 parts `{"type": "text", "text": "…"}`, with the
//! limits of [`Content::new`](musterbeat_core::message::Content::new). Then the program exits
//! with status 0.
//!
//! Anything else ends the turn in an error that names the program, the line and the limit: an
//! unknown type or key, a NUL character, a line or an output over its limit, a line after the
//! message, no message. So does another exit status; the error then quotes the last line of
//! standard error. Standard error goes to the log, within bounds.
//!
//! A whole program, which the tests of this crate run:
//!
//! ```sh
#![doc = include_str!("command/example.sh")]
//! ```
//!
//! # How it ends
//! When the turn is to stop, when it takes too long or when its output is refused, the group gets
//! SIGTERM, and after [`CommandLimits::stop_grace`] SIGKILL. A stopped turn keeps the pieces that
//! were published by then; what a program writes after SIGTERM is discarded. Whatever the program
//! leaves behind in its group when it exits is killed. When the future of a turn is dropped, the
//! group is killed at once.
//!
//! A turn may run twice: when a worker dies, another one starts the program again for the same
//! turn. A program whose server is killed is not told; it sees its pipes close.

mod environment;
mod lines;
mod stderr;
mod transcript;
mod wire;

use std::convert::Infallible;
use std::error::Error;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use metrics::{Gauge, counter, gauge};
use musterbeat_core::id::ChatId;
use musterbeat_core::message::{CONTENT_BYTES_MAX, NewMessage};
use musterbeat_core::port::{ChatContext, ChatRunner, ChatTurn, RunContext, TurnEnd};
use musterbeat_process::{Group, Signal};
use tokio::io::AsyncWriteExt;
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};
use tokio::time::{sleep, timeout};

use self::stderr::ErrorLog;
use self::transcript::{OutputError, Transcript};
use crate::metrics::{COMMAND_PROGRAMS, COMMAND_TURNS};

/// Time that a turn may take by default: as long as a model with tools at work takes.
pub const TIME_MAX: Duration = Duration::from_mins(10);

/// Bytes of a line of output, at most, by default.
///
/// A message of the largest content fits, even if each of its bytes is escaped, as in `\u001b`.
pub const LINE_BYTES_MAX: usize = 6 * CONTENT_BYTES_MAX + 64 * 1024;

/// Bytes of a turn's output, at most, by default.
///
/// The largest content fits as a message and once more in pieces of a word each.
pub const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Time from SIGTERM to SIGKILL by default: short beside the time that a worker gives its runs.
pub const STOP_GRACE: Duration = Duration::from_secs(2);

/// Lines of standard error that are logged in a turn, at most, by default.
pub const STDERR_LINES_MAX: usize = 200;

/// Bytes of a line of standard error that are logged and quoted, at most, by default.
pub const STDERR_LINE_BYTES_MAX: usize = 1024;

/// Answers each turn of a chat with a program; the module describes what it reads and writes.
#[derive(Clone, Debug)]
pub struct Command {
    /// Its path; a name without a slash is looked up in `PATH`.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// What it may take.
    pub limits: CommandLimits,
}

/// What a program may take in one turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandLimits {
    /// Time from its start to its end.
    pub time_max: Duration,
    /// Bytes of its output.
    pub answer_bytes_max: usize,
    /// Bytes of a line of its output, without the line break; one line at a time is in memory.
    pub line_bytes_max: usize,
    /// Time from SIGTERM to SIGKILL.
    ///
    /// It is also how long its output may stay open after its end, held by a process that it
    /// moved out of its group.
    pub stop_grace: Duration,
    /// Lines of standard error that are logged; further ones are counted.
    pub stderr_lines_max: usize,
    /// Bytes of a line of standard error that are logged; its rest is cut off.
    pub stderr_line_bytes_max: usize,
}

impl Default for CommandLimits {
    fn default() -> Self {
        Self {
            time_max: TIME_MAX,
            answer_bytes_max: ANSWER_BYTES_MAX,
            line_bytes_max: LINE_BYTES_MAX,
            stop_grace: STOP_GRACE,
            stderr_lines_max: STDERR_LINES_MAX,
            stderr_line_bytes_max: STDERR_LINE_BYTES_MAX,
        }
    }
}

#[async_trait]
impl ChatRunner for Command {
    async fn turn(&self, turn: ChatTurn, context: Arc<dyn ChatContext>) -> TurnEnd {
        let end = self.answer(turn, &*context).await.unwrap_or_else(|error| {
            TurnEnd::Failed(format!("{}: {}", self.program.display(), explained(&error)))
        });
        let outcome = match end {
            TurnEnd::Answer(_) => "answered",
            TurnEnd::Failed(_) => "failed",
            TurnEnd::Stopped(_) => "stopped",
        };
        counter!(COMMAND_TURNS.name, "outcome" => outcome).increment(1);
        end
    }
}

/// Why a program gave no answer.
#[derive(Debug, thiserror::Error)]
enum AnswerError {
    #[error(
        "it or the interpreter that its first line names is not there; \
         name a program by its path, or one that `PATH` leads to"
    )]
    Missing,
    #[error("it may not be executed; make it executable with `chmod +x`")]
    NotExecutable,
    #[error("it could not be started")]
    Start(#[source] io::Error),
    #[error("its end could not be waited for")]
    Wait(#[source] io::Error),
    #[error("it took longer than {0:?} and was stopped")]
    TimedOut(Duration),
    #[error(transparent)]
    Output(#[from] OutputError),
    #[error("it failed with {}{}", ending(*.status), quoted(.last))]
    Failed { status: ExitStatus, last: String },
}

/// Why the wait for an answer ended.
enum Wake {
    Stopped,
    TimedOut,
    Ended(Result<ExitStatus, AnswerError>),
}

impl Command {
    async fn answer(
        &self,
        turn: ChatTurn,
        context: &dyn RunContext,
    ) -> Result<TurnEnd, AnswerError> {
        if context.stopped().now_or_never().is_some() {
            return Ok(TurnEnd::Stopped(vec![]));
        }
        let prompt = wire::prompt(&turn);
        // It may be large, and the program may take long.
        drop(turn.prompt);
        let (mut program, stdin) = self.start(turn.chat)?;
        let mut transcript = Transcript::default();
        // Endless output is always ready, so it comes after what ends it.
        let wake = tokio::select! {
            biased;
            _ = context.stopped() => Wake::Stopped,
            () = sleep(self.limits.time_max) => Wake::TimedOut,
            never = feed(stdin, prompt) => match never {},
            ended = program.run(&mut transcript, context) => Wake::Ended(ended),
        };
        match wake {
            Wake::Stopped => {
                program.stop().await;
                let partial = transcript.partial();
                let partial = partial.map(|content| NewMessage::answer(content, turn.model));
                Ok(TurnEnd::Stopped(partial.into_iter().collect()))
            }
            Wake::TimedOut => {
                program.stop().await;
                Err(AnswerError::TimedOut(self.limits.time_max))
            }
            Wake::Ended(Err(error)) => {
                program.stop().await;
                Err(error)
            }
            Wake::Ended(Ok(status)) if status.success() => {
                let content = transcript.finish(context)?;
                Ok(TurnEnd::Answer(vec![NewMessage::answer(content, turn.model)]))
            }
            Wake::Ended(Ok(status)) => {
                Err(AnswerError::Failed { status, last: program.stderr.last().to_owned() })
            }
        }
    }

    fn start(&self, chat: ChatId) -> Result<(Program, ChildStdin), AnswerError> {
        let mut command = tokio::process::Command::new(&self.program);
        command.args(&self.args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        environment::hide_secrets(&mut command, std::env::vars_os().map(|(name, _)| name));
        let mut group = Group::start(&mut command).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => AnswerError::Missing,
            io::ErrorKind::PermissionDenied => AnswerError::NotExecutable,
            _ => AnswerError::Start(error),
        })?;
        let leader = group.leader();
        let piped = "the stream was asked to be a pipe, and is taken once";
        let stdin = leader.stdin.take().expect(piped);
        let stdout = leader.stdout.take().expect(piped);
        let stderr = leader.stderr.take().expect(piped);
        let stderr = ErrorLog::new(chat, stderr, &self.limits);
        let program =
            Program { group, stdout, stderr, limits: self.limits, _counted: Counted::begin() };
        Ok((program, stdin))
    }
}

/// A program that answers a turn.
struct Program {
    group: Group,
    stdout: ChildStdout,
    stderr: ErrorLog<ChildStderr>,
    limits: CommandLimits,
    _counted: Counted,
}

/// Counts a program among those that run, until it is dropped.
struct Counted(Gauge);

impl Counted {
    fn begin() -> Self {
        let running = gauge!(COMMAND_PROGRAMS.name);
        running.increment(1);
        Self(running)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}

impl Program {
    /// Waits until the program and its output have ended; an output that is refused ends the wait.
    async fn run(
        &mut self,
        transcript: &mut Transcript,
        context: &dyn RunContext,
    ) -> Result<ExitStatus, AnswerError> {
        let Self { group, stdout, stderr, limits, .. } = self;
        let heard = transcript.listen(stdout, limits, context);
        let mut streams = pin!(async {
            let (heard, ()) = tokio::try_join!(heard, stderr.follow().map(Ok))?;
            Ok::<_, OutputError>(heard)
        });
        let streams_ended = tokio::select! {
            heard = &mut streams => heard.map(|()| true)?,
            () = group.leader_ended() => false,
        };
        group.leader_ended().await;
        let status = group.reap().await.map_err(AnswerError::Wait)?;
        if !streams_ended {
            // What the program wrote waits in the pipes. Who else holds them may never let go.
            timeout(limits.stop_grace, streams).await.unwrap_or(Ok(()))?;
        }
        Ok(status)
    }

    /// Asks the group to end, and kills it after the grace or when nobody is left to have it.
    async fn stop(&mut self) {
        let Self { group, stdout, stderr, limits, .. } = self;
        if group.is_reaped() {
            return;
        }
        group.signal(Signal::SIGTERM);
        let mut nowhere = tokio::io::sink();
        let ended = async {
            // Read to its end, so that nobody who cleans up is held up by a full pipe. An open
            // pipe also tells that somebody is left whose leader has ended.
            let _ = tokio::join!(tokio::io::copy(stdout, &mut nowhere), stderr.follow());
            group.leader_ended().await;
        };
        let _ = timeout(limits.stop_grace, ended).await;
        if let Err(error) = group.reap().await {
            tracing::warn!(error = &error as &dyn Error, "a stopped program was not waited for");
        }
    }
}

/// Writes the prompt, and never ends.
async fn feed(mut stdin: ChildStdin, prompt: Vec<u8>) -> Infallible {
    // It fails when the program closes its end: a program need not read its prompt.
    let _ = stdin.write_all(&prompt).await;
    drop((stdin, prompt));
    std::future::pending().await
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

/// Joins an error and its causes.
fn explained(error: &AnswerError) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
