//! Flags that are settings, before a command or after it.

use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory};
use figment::value::{Dict, Map};
use figment::{Figment, Metadata, Profile, Provider};
use serde::Serialize;

use super::Cli;
use crate::settings::Settings;

/// The variable with the settings file; a flag goes before it.
const CONFIG_VARIABLE: &str = "MUSTERBEAT_CONFIG";

/// Where settings are, and what a server keeps.
#[derive(Debug, Default, Serialize, Args)]
pub(super) struct Place {
    /// Settings file, also as `MUSTERBEAT_CONFIG`; by default `musterbeat.toml` here, if there is
    /// one.
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    config: Option<PathBuf>,
    /// Folder for what the server keeps, above all its own PostgreSQL.
    #[arg(long, value_name = "FOLDER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    data_dir: Option<PathBuf>,
}

/// Settings that have a flag; every other is set in the file or as `MUSTERBEAT_NAME`.
#[derive(Debug, Default, Serialize, Args)]
pub(super) struct Flags {
    #[command(flatten)]
    #[serde(flatten)]
    place: Place,
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, value_name = "ADDRESS")]
    #[serde(skip_serializing_if = "Option::is_none")]
    listen: Option<String>,
    /// PostgreSQL to use instead of an own one.
    #[arg(long, value_name = "URL")]
    #[serde(skip_serializing_if = "Option::is_none")]
    database_url: Option<String>,
    /// Where an own PostgreSQL's binaries come from: auto, installed, download, wheel or a folder.
    #[arg(long, value_name = "SOURCE")]
    #[serde(skip_serializing_if = "Option::is_none")]
    postgres: Option<String>,
    /// Serve without tokens, on loopback only.
    #[arg(long)]
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    dev: bool,
    /// Who answers chats: echo, agent, or command:PROGRAM to start a program for each turn.
    #[arg(long, value_name = "RUNNER")]
    #[serde(skip_serializing_if = "Option::is_none")]
    runner: Option<String>,
}

impl Provider for Flags {
    fn metadata(&self) -> Metadata {
        Metadata::named("flags of the command line")
    }

    fn data(&self) -> Result<Map<Profile, Dict>, figment::Error> {
        figment::providers::Serialized::defaults(self).data()
    }
}

impl From<Place> for Flags {
    fn from(place: Place) -> Self {
        Self { place, ..Self::default() }
    }
}

impl Flags {
    /// Reads the settings, with these flags and with those of a command, which go before them.
    pub(super) fn settings(&self, of_command: impl Into<Self>) -> anyhow::Result<Settings> {
        let of_command = of_command.into();
        let config = of_command.place.config.clone().or_else(|| self.place.config.clone());
        let config = config.or_else(|| std::env::var_os(CONFIG_VARIABLE).map(PathBuf::from));
        Settings::load(config.as_deref(), Figment::from(self).merge(of_command))
    }
}

/// Refuses a flag that was given before a command which does not take it.
///
/// What follows a command, clap checks by itself.
pub(super) fn check_place(given: &ArgMatches) -> Result<(), clap::Error> {
    let mut program = Cli::command();
    let (mut command, mut below) = (&program, given);
    let mut called = vec![program.get_name()];
    while let Some((name, matches)) = below.subcommand() {
        command = command.find_subcommand(name).expect("what was matched is a command");
        below = matches;
        called.push(name);
    }
    let takes = |flag| command.get_arguments().any(|own| own.get_id() == flag);
    let stray = program.get_arguments().find(|flag| {
        let source = given.value_source(flag.get_id().as_str());
        source == Some(ValueSource::CommandLine) && !takes(flag.get_id())
    });
    let Some(stray) = stray else { return Ok(()) };
    let flag = stray.get_long().unwrap_or_default();
    let refusal = format!("`{}` takes no --{flag}", called.join(" "));
    Err(program.error(ErrorKind::UnknownArgument, refusal))
}
