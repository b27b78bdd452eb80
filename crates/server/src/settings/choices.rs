//! Settings that choose who does something.

use std::path::PathBuf;
use std::str::FromStr;

use secrecy::SecretString;
use serde::Deserialize;

/// A host of branches, or a folder of repositories.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GitHost {
    /// Which origins: the host's name, such as `github.com`, or a folder and all below it.
    pub origin: String,
    /// What tells of their branches.
    pub provider: GitProviderKind,
    /// Where its API is, if that does not follow from its name.
    #[serde(default)]
    pub api: Option<String>,
    /// With which right it is asked.
    #[serde(default)]
    pub token: Option<SecretString>,
    /// Whether to ask for reviews, which takes a further call for each pull request that changed.
    #[serde(default)]
    pub reviews: bool,
}

/// What tells of branches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GitProviderKind {
    /// The REST API of GitHub, and of those that are compatible with it.
    Github,
    /// Repositories in a folder of this machine.
    #[serde(rename = "local-git")]
    Local,
}

/// Who answers chats.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunnerChoice {
    /// Says back what was asked; needs no key.
    Echo,
    /// Asks a model, which may call tools.
    Agent,
    /// Starts this program for each turn; a name without a slash is looked up in `PATH`.
    Command(PathBuf),
}

impl FromStr for RunnerChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("command:") {
            None if text == "echo" => Ok(Self::Echo),
            None if text == "agent" => Ok(Self::Agent),
            None => Err(format!(
                "{text:?} is no runner; there are `echo`, `agent` and `command:PROGRAM`"
            )),
            Some(program) if program.trim().is_empty() => {
                Err(format!("{text:?} names no program; write `command:` and its path"))
            }
            Some(program) => Ok(Self::Command(PathBuf::from(program))),
        }
    }
}

/// Who carries out builds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProvisionerChoice {
    /// Nobody on this replica.
    None,
    /// Workspaces are folders, copied from those of templates.
    Directory,
    /// This program is started for each build; a name without a slash is looked up in `PATH`.
    Command(PathBuf),
}

impl FromStr for ProvisionerChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (text, text.strip_prefix("command:")) {
            ("none", _) => Ok(Self::None),
            ("directory", _) => Ok(Self::Directory),
            (_, None) => Err(format!(
                "{text:?} is no provisioner; there are `none`, `directory` and `command:PROGRAM`"
            )),
            (_, Some(program)) if program.trim().is_empty() => {
                Err(format!("{text:?} names no program; write `command:` and its path"))
            }
            (_, Some(program)) => Ok(Self::Command(PathBuf::from(program))),
        }
    }
}
