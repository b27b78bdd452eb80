//! `musterbeat agent`: reports metadata of the machine it runs on.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use humantime_serde::re::humantime;
use musterbeat_core::id::AgentId;
use musterbeat_core::metadata::Key;
use musterbeat_reporter::{Reporter, ReporterOptions};
use secrecy::SecretString;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::identity::AGENT_PREFIX;

/// The variable with the token; a flag would show it to everybody on the machine.
const TOKEN_VARIABLE: &str = "MUSTERBEAT_TOKEN";

/// The agent's token is taken from `MUSTERBEAT_TOKEN`, or from a file.
#[derive(Debug, Args)]
pub(super) struct AgentArgs {
    /// Where the server is.
    #[arg(long, env = "MUSTERBEAT_SERVER_URL", value_name = "URL")]
    server: String,
    /// As which agent to report.
    #[arg(long, env = "MUSTERBEAT_AGENT_ID", value_name = "ID")]
    agent: Uuid,
    /// File with the agent's token, instead of the variable `MUSTERBEAT_TOKEN`.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Run the scripts that the server defines: whoever edits them there commands this machine.
    #[arg(long)]
    allow_scripts: bool,
    /// Run this command for a key, whatever the server defines; may be repeated.
    #[arg(long = "command", value_name = "KEY=COMMAND", value_parser = command)]
    commands: Vec<(Key, String)>,
    /// A path on the filesystem that `disk` tells of.
    #[arg(long, value_name = "PATH", default_value = ".")]
    disk: PathBuf,
    /// Time between two reports, at least.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    report_interval: Duration,
}

/// Reports until SIGINT or SIGTERM.
pub(super) async fn run(args: AgentArgs) -> anyhow::Result<()> {
    let token = token(args.token_file.as_deref(), std::env::var_os(TOKEN_VARIABLE))?;
    let reporter = Reporter::new(args.options(token)?)?;
    let end = CancellationToken::new();
    let signals = tokio::spawn(end_on_signal(end.clone())?);
    let ended = reporter.run(end).await;
    signals.abort();
    Ok(ended?)
}

impl AgentArgs {
    fn options(self, token: Option<SecretString>) -> anyhow::Result<ReporterOptions> {
        let mut commands = BTreeMap::new();
        for (key, command) in self.commands {
            let before = commands.insert(key.clone(), command);
            anyhow::ensure!(
                before.is_none(),
                "--command {key} is given twice: keep one of the two"
            );
        }
        Ok(ReporterOptions {
            server: self.server,
            agent: AgentId::new(self.agent),
            token,
            allow_scripts: self.allow_scripts,
            commands,
            disk: self.disk,
            report_interval: self.report_interval,
        })
    }
}

/// Returns the token of `file`, else of the variable; a server in dev needs none.
fn token(file: Option<&Path>, variable: Option<OsString>) -> anyhow::Result<Option<SecretString>> {
    let (text, source) = match (file, variable) {
        (Some(file), _) => {
            let source = format!("the token file {}", file.display());
            let text = std::fs::read_to_string(file);
            (text.with_context(|| format!("failed to read {source}"))?, source)
        }
        (None, Some(text)) if !text.is_empty() => {
            // Not as an error of the conversion: that would show the text.
            (text.into_string().unwrap_or_default(), TOKEN_VARIABLE.to_owned())
        }
        (None, _) => return Ok(None),
    };
    let text = text.trim();
    // Tokens of other kinds may do more, and are not sent from here.
    anyhow::ensure!(
        text.starts_with(AGENT_PREFIX),
        "{source} holds no token of an agent, which begins with {AGENT_PREFIX}: give the one that \
         the server showed when the agent was created"
    );
    Ok(Some(text.into()))
}

/// Reads `KEY=COMMAND`.
fn command(text: &str) -> Result<(Key, String), String> {
    let (key, command) =
        text.split_once('=').ok_or("write KEY=COMMAND, like users='who | wc -l'")?;
    if command.trim().is_empty() {
        return Err(format!("{key} has no command; write KEY=COMMAND"));
    }
    Ok((Key::new(key).map_err(|invalid| invalid.to_string())?, command.to_owned()))
}

/// Returns a task that cancels `end` on SIGINT and SIGTERM.
fn end_on_signal(end: CancellationToken) -> anyhow::Result<impl Future<Output = ()>> {
    let mut interrupt = signal(SignalKind::interrupt()).context("failed to listen for SIGINT")?;
    let mut terminate = signal(SignalKind::terminate()).context("failed to listen for SIGTERM")?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        end.cancel();
    })
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};
    use secrecy::ExposeSecret;

    use super::*;
    use crate::cli::{Cli, Command};

    const ID: &str = "0198c7a2-1f00-7000-8000-000000000001";

    #[test]
    fn every_flag_is_an_option() {
        let args = parse(&[
            "--allow-scripts",
            "--command=users=who | wc -l",
            "--command",
            "sum=echo $((1+1))=2",
            "--disk=/var",
            "--report-interval=250ms",
        ])
        .unwrap();
        let options = args.options(Some("mba_secret".into())).unwrap();
        assert_eq!(options.server, "https://muster.example.org");
        assert_eq!(options.agent.to_string(), ID);
        assert!(options.allow_scripts);
        let commands: Vec<(&str, &str)> = options
            .commands
            .iter()
            .map(|(key, command)| (key.as_str(), command.as_str()))
            .collect();
        assert_eq!(commands, [("sum", "echo $((1+1))=2"), ("users", "who | wc -l")]);
        assert_eq!(options.disk, Path::new("/var"));
        assert_eq!(options.report_interval, Duration::from_millis(250));
        assert!(!format!("{options:?}").contains("secret"));
    }

    #[test]
    fn what_is_not_given_is_the_default_of_the_library() {
        let options = parse(&[]).unwrap().options(None).unwrap();
        let defaults = ReporterOptions::new(options.server.clone(), options.agent);
        assert_eq!(format!("{options:?}"), format!("{defaults:?}"));
    }

    #[test]
    fn commands_need_a_key_and_a_text_and_are_given_once() {
        for wrong in ["users", "=who", "users=", "users= "] {
            assert!(parse(&["--command", wrong]).is_err(), "{wrong}");
        }
        let args = parse(&["--command", "a=true", "--command", "a=false"]).unwrap();
        let error = args.options(None).unwrap_err().to_string();
        assert!(error.contains("--command a is given twice"), "{error}");
    }

    #[test]
    fn server_and_agent_may_come_from_the_environment_and_no_flag_takes_a_token() {
        let command = Cli::command();
        command.clone().debug_assert();
        let agent = command.find_subcommand("agent").unwrap();
        let variable = |id: &str| {
            let mut arguments = agent.get_arguments();
            let argument = arguments.find(|argument| argument.get_id() == id).unwrap();
            argument.get_env().map(|name| name.to_owned().into_string().unwrap())
        };
        assert_eq!(variable("server").as_deref(), Some("MUSTERBEAT_SERVER_URL"));
        assert_eq!(variable("agent").as_deref(), Some("MUSTERBEAT_AGENT_ID"));
        assert!(agent.get_arguments().all(|argument| argument.get_long() != Some("token")));
    }

    #[test]
    fn a_token_comes_from_its_file_or_else_from_its_variable() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        std::fs::write(&file, "mba_of_the_file\n").unwrap();
        let check = |file: Option<&Path>, variable: Option<&str>, expected: Option<&str>| {
            let found = token(file, variable.map(Into::into)).unwrap();
            assert_eq!(found.as_ref().map(ExposeSecret::expose_secret), expected);
        };
        check(Some(&file), Some("mba_other"), Some("mba_of_the_file"));
        check(None, Some("mba_other"), Some("mba_other"));
        check(None, Some(""), None);
        check(None, None, None);
    }

    #[test]
    fn a_token_of_another_kind_is_not_sent_and_not_repeated() {
        let error = token(None, Some("mb_of_an_admin".into())).unwrap_err().to_string();
        assert!(error.contains("MUSTERBEAT_TOKEN") && !error.contains("admin"), "{error}");
        let missing = Path::new("/not/there");
        let error = token(Some(missing), Some("mba_other".into())).unwrap_err().to_string();
        assert_eq!(error, "failed to read the token file /not/there");
    }

    fn parse(more: &[&str]) -> Result<AgentArgs, clap::Error> {
        let args = ["musterbeat", "agent", "--server", "https://muster.example.org", "--agent", ID];
        match Cli::try_parse_from(args.iter().chain(more))?.command {
            Some(Command::Agent(args)) => Ok(args),
            other => panic!("parsed as {other:?}"),
        }
    }
}
