//! The program of an MCP server, with everything that it starts.

use std::io;
use std::process::Stdio;
use std::time::Duration;

use musterbeat_process::{Group, Signal};
use secrecy::ExposeSecret;
use tokio::process::{ChildStderr, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::config::McpProgram;
use super::environment;

/// Time from the end of its input to SIGTERM, and from there to SIGKILL.
pub(super) const STOP_GRACE: Duration = Duration::from_secs(1);

/// A running program; dropping it kills its group.
pub(super) struct Process(Group);

/// The standard streams of a program.
pub(super) struct Streams {
    pub(super) stdin: ChildStdin,
    pub(super) stdout: ChildStdout,
    pub(super) stderr: ChildStderr,
}

impl Process {
    /// Starts a program, without a shell.
    pub(super) fn start(program: &McpProgram) -> io::Result<(Self, Streams)> {
        let mut command = Command::new(&program.command);
        command.args(&program.args).env_clear();
        command.envs(environment::inherited(std::env::vars_os(), &program.inherit));
        command.envs(program.env.iter().map(|(name, value)| (name, value.expose_secret())));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut group = Group::start(&mut command)?;
        let leader = group.leader();
        let piped = "the stream was asked to be a pipe, and is taken once";
        let stdin = leader.stdin.take().expect(piped);
        let stdout = leader.stdout.take().expect(piped);
        let stderr = leader.stderr.take().expect(piped);
        Ok((Self(group), Streams { stdin, stdout, stderr }))
    }

    /// Waits for the end of a program whose input has ended, and then has it.
    ///
    /// After [`STOP_GRACE`] the group gets SIGTERM, after as long again SIGKILL. What the program
    /// leaves behind in its group is killed.
    pub(super) async fn end(mut self) {
        if timeout(STOP_GRACE, self.0.leader_ended()).await.is_err() {
            self.0.signal(Signal::SIGTERM);
            let _ = timeout(STOP_GRACE, self.0.leader_ended()).await;
        }
        if let Err(error) = self.0.reap().await {
            tracing::warn!(error = &error as &dyn std::error::Error, "an MCP server stayed behind");
        }
    }
}
