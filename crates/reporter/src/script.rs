//! Values that programs of the machine find.
//!
//! A script is run by `sh -c` with an empty input, in a process group of its own. It inherits the
//! working folder and the environment, except variables that begin with `MUSTERBEAT_`: one of
//! them is the agent's token. What it leaves behind in its group is killed.

mod output;

use std::ffi::OsString;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::pin::pin;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use musterbeat_process::Group;
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use self::output::Output;
use crate::explain::explained;
use crate::source::Reading;

/// Begins the names of variables that are kept from scripts.
const OWN_PREFIX: &[u8] = b"MUSTERBEAT_";

/// How long output may stay open after its script and group have ended, held by a process that
/// moved to another group.
const HELD_OPEN_MAX: Duration = Duration::from_millis(500);

/// Why a script found nothing.
#[derive(Debug, thiserror::Error)]
enum ScriptError {
    #[error("the script could not be started")]
    Start(#[source] io::Error),
    #[error("the script's end could not be waited for")]
    Wait(#[source] io::Error),
    #[error("took longer than {time_max:?} and was killed{said}")]
    TimedOut { time_max: Duration, said: String },
    #[error("failed with {}{said}", ending(*.status))]
    Failed { status: ExitStatus, said: String },
}

/// Runs a script, for `time_max` at most. Dropping the future kills it and what it started.
pub(crate) async fn run(script: &str, time_max: Duration) -> Reading {
    let found = find(script, time_max, sleep(time_max)).await;
    found.unwrap_or_else(|error| Reading::failed(explained(&error)))
}

/// Runs a script until its time, which is `time_max`, is `over`.
async fn find(
    script: &str,
    time_max: Duration,
    over: impl Future<Output = ()>,
) -> Result<Reading, ScriptError> {
    let mut command = command(script, std::env::vars_os().map(|(name, _)| name));
    let mut group = Group::start(&mut command).map_err(ScriptError::Start)?;
    let (mut stdout, mut stderr) = (Output::default(), Output::default());
    let ended = follow(&mut group, &mut stdout, &mut stderr, over).await;
    let said = match stderr.shown().text {
        text if text.is_empty() => text,
        text => format!(": {text}"),
    };
    match ended.map_err(ScriptError::Wait)? {
        Some(status) if status.success() => {
            let shown = stdout.shown();
            Ok(Reading::of(shown.text).with_error(shown.note))
        }
        Some(status) => Err(ScriptError::Failed { status, said }),
        None => Err(ScriptError::TimedOut { time_max, said }),
    }
}

fn command(script: &str, names: impl Iterator<Item = OsString>) -> Command {
    let mut command = Command::new("sh");
    command.arg("-c").arg(script);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for name in names.filter(|name| name.as_encoded_bytes().starts_with(OWN_PREFIX)) {
        command.env_remove(name);
    }
    command
}

/// Reads what a script writes until it has ended, and what is left of its group with it.
///
/// `None` for one that was killed because its time is over.
async fn follow(
    group: &mut Group,
    stdout: &mut Output,
    stderr: &mut Output,
    over: impl Future<Output = ()>,
) -> io::Result<Option<ExitStatus>> {
    let piped = "the stream was asked to be a pipe, and is taken once";
    let mut out = group.leader().stdout.take().expect(piped);
    let mut err = group.leader().stderr.take().expect(piped);
    let mut streams = pin!(async {
        tokio::join!(stdout.read(&mut out), stderr.read(&mut err));
    });
    let mut streams_ended = false;
    let ended = async {
        tokio::select! {
            () = &mut streams => streams_ended = true,
            () = group.leader_ended() => {}
        }
        group.leader_ended().await;
    };
    let in_time = tokio::select! {
        () = ended => true,
        () = over => false,
    };
    let status = group.reap().await?;
    if !streams_ended {
        // What the script wrote waits in the pipes. Who else holds them may never let go.
        let _ = timeout(HELD_OPEN_MAX, streams).await;
    }
    Ok(in_time.then_some(status))
}

/// Says how a script ended: `exit status 1`, `signal 9`.
fn ending(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => status.to_string(),
    }
}

#[cfg(test)]
mod tests;
