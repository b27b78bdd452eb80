//! Which MCP servers there are, and what is wrong with a description of one.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use musterbeat_core::invalid::Invalid;
use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use super::allow::Allow;
use super::table::Table;
use super::{environment, headers, name};
use crate::tool::Repeat;

/// MCP servers of one toolkit, at most.
pub const SERVERS_MAX: usize = 32;

/// Bytes of a server's name, at most: it begins the names of its tools, which are short.
pub const SERVER_NAME_BYTES_MAX: usize = 24;

/// How long connecting may take by default; a program that installs itself first takes seconds.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How long connecting may take, at most: a turn waits for it.
pub const CONNECT_TIMEOUT_MAX: Duration = Duration::from_mins(1);

/// How long a call may take by default.
pub const CALL_TIMEOUT: Duration = Duration::from_mins(2);

/// How long a call may take, at most.
pub const CALL_TIMEOUT_MAX: Duration = Duration::from_hours(1);

/// A shorter time would only fail.
const TIMEOUT_MIN: Duration = Duration::from_millis(100);

/// Arguments, variables or headers of one server, at most.
const WORDS_MAX: usize = 256;

/// Bytes of an argument, a variable or a URL, at most.
const WORD_BYTES_MAX: usize = 64 * 1024;

/// An MCP server, and which of its tools are offered.
///
/// It is read from a table such as
///
/// ```toml
/// [[mcp]]
/// name = "files"
/// command = "mcp-files"
/// args = ["--root", "/srv/shared"]
/// inherit = ["FILES_TOKEN"]
/// allow = ["read_*", "search"]
///
/// [[mcp]]
/// name = "issues"
/// url = "https://issues.example.org/mcp"
/// headers_file = "/run/secrets/issues-headers"
/// allow = ["*"]
/// lifetime = "run"
/// call_timeout = "30s"
/// ```
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Table")]
pub struct McpServer {
    /// What it is called; it begins the names of its tools.
    pub name: String,
    /// How it is reached.
    pub transport: McpTransport,
    /// Which of its tools are offered.
    pub allow: Allow,
    /// How long a connection to it lives.
    pub lifetime: Lifetime,
    /// What becomes of calls whose worker died in the middle.
    ///
    /// `None` leaves it to what the server says of each tool: [`Repeat::Anew`] for one that only
    /// reads, [`Repeat::Same`] for one that does nothing twice, [`Repeat::Never`] for others. Set
    /// it for a server whose word is not to be trusted.
    pub repeat: Option<Repeat>,
    /// How long connecting may take, the list of tools included; a turn may wait so long.
    pub connect_timeout: Duration,
    /// How long a call may take.
    pub call_timeout: Duration,
}

/// How an MCP server is reached.
#[derive(Clone, Debug)]
pub enum McpTransport {
    /// By the standard streams of a program.
    Program(McpProgram),
    /// By streamable HTTP.
    Http(McpEndpoint),
}

/// A program that is an MCP server on its standard streams.
///
/// It is started without a shell, in a process group of its own. Of the environment it inherits
/// what programs need to find their way about, such as `PATH` and `HOME`, and nothing else that
/// is not named here.
#[derive(Clone, Debug)]
pub struct McpProgram {
    /// Its path; a name without a slash is looked up in `PATH`.
    pub command: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Variables that it is given.
    pub env: BTreeMap<String, SecretString>,
    /// Variables that it inherits beside those that every program does.
    pub inherit: Vec<String>,
}

/// Where an MCP server is called by streamable HTTP.
#[derive(Clone, Debug)]
pub struct McpEndpoint {
    /// Its URL, `http` or `https`; a query may bear a secret, and is neither logged nor shown.
    pub url: SecretString,
    /// Headers of every call.
    pub headers: BTreeMap<String, SecretString>,
    /// A file with further headers, a line `Name: value` each; it is read whenever a connection
    /// is made.
    pub headers_file: Option<PathBuf>,
}

/// How long a connection to an MCP server lives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lifetime {
    /// As long as the process: one connection serves all turns of all owners.
    #[default]
    Shared,
    /// As long as a turn, which has it for itself.
    Run,
}

impl McpServer {
    /// Describes a server with everything else by default.
    pub fn new(name: impl Into<String>, transport: McpTransport, allow: Allow) -> Self {
        Self {
            name: name.into(),
            transport,
            allow,
            lifetime: Lifetime::default(),
            repeat: None,
            connect_timeout: CONNECT_TIMEOUT,
            call_timeout: CALL_TIMEOUT,
        }
    }

    /// Says whether each field is within its limits.
    ///
    /// # Errors
    /// Names the first field that is not, below `mcp.` and the server's name. It bears no secret.
    pub fn check(&self) -> Result<(), Invalid> {
        check_name(&self.name).map_err(|invalid| invalid.within("mcp"))?;
        let transport = match &self.transport {
            McpTransport::Program(program) => program.check(),
            McpTransport::Http(endpoint) => endpoint.check(),
        };
        let times = || {
            check_time("connect_timeout", self.connect_timeout, CONNECT_TIMEOUT_MAX)?;
            check_time("call_timeout", self.call_timeout, CALL_TIMEOUT_MAX)
        };
        transport.and_then(|()| times()).map_err(|invalid| self.blame(invalid))
    }

    /// Says that the field is one of this server's.
    pub(super) fn blame(&self, invalid: Invalid) -> Invalid {
        invalid.within(&format!("mcp.{}", self.name))
    }
}

impl McpProgram {
    fn check(&self) -> Result<(), Invalid> {
        check_word("command", &self.command.to_string_lossy())?;
        check_count("args", self.args.len())?;
        for (index, arg) in self.args.iter().enumerate() {
            check_length(&format!("args[{index}]"), arg)?;
        }
        check_count("env", self.env.len())?;
        for (name, value) in &self.env {
            check_variable("env", name)?;
            check_length(&format!("env.{name}"), value.expose_secret())?;
        }
        check_count("inherit", self.inherit.len())?;
        for name in &self.inherit {
            check_variable("inherit", name)?;
            if environment::is_own(name) {
                let reason = format!("names `{name}`, which is the server's own: pass it in `env`");
                return Err(Invalid::new("inherit", reason));
            }
        }
        Ok(())
    }
}

impl McpEndpoint {
    /// Returns the URL, if it is one that can be called.
    pub(super) fn parsed_url(&self) -> Result<Url, Invalid> {
        let refused = |reason: &str| Err(Invalid::new("url", reason));
        let Ok(url) = Url::parse(self.url.expose_secret()) else {
            return refused("is no URL: give it such as `https://tools.example.org/mcp`");
        };
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return refused("is no URL that begins with https:// or http:// and names a host");
        }
        if !url.username().is_empty() || url.password().is_some() {
            return refused("has a user or a password: put them into `headers`");
        }
        Ok(url)
    }

    fn check(&self) -> Result<(), Invalid> {
        check_word("url", self.url.expose_secret())?;
        self.parsed_url()?;
        check_count("headers", self.headers.len())?;
        headers::parse(&self.headers)?;
        Ok(())
    }
}

/// Checks what begins the names of tools.
fn check_name(text: &str) -> Result<(), Invalid> {
    let is_plain = text.chars().all(name::is_allowed);
    let ends = |text: &str| text.starts_with('_') || text.ends_with('_');
    let is_clear = !ends(text) && !text.contains(name::SEPARATOR);
    if (1..=SERVER_NAME_BYTES_MAX).contains(&text.len()) && is_plain && is_clear {
        return Ok(());
    }
    let reason = format!(
        "is not 1 to {SERVER_NAME_BYTES_MAX} letters, digits, `-` and single `_` between them"
    );
    Err(Invalid::new("name", reason))
}

fn check_time(field: &str, time: Duration, max: Duration) -> Result<(), Invalid> {
    if (TIMEOUT_MIN..=max).contains(&time) {
        return Ok(());
    }
    Err(Invalid::new(field, format!("is {time:?}, from {TIMEOUT_MIN:?} to {max:?} is allowed")))
}

fn check_count(field: &str, count: usize) -> Result<(), Invalid> {
    if count <= WORDS_MAX {
        return Ok(());
    }
    Err(Invalid::new(field, format!("has {count} entries, at most {WORDS_MAX} are allowed")))
}

fn check_word(field: &str, text: &str) -> Result<(), Invalid> {
    if text.is_empty() {
        return Err(Invalid::new(field, "is empty"));
    }
    check_length(field, text)
}

fn check_length(field: &str, text: &str) -> Result<(), Invalid> {
    if text.len() > WORD_BYTES_MAX {
        let reason = format!("has {} bytes, at most {WORD_BYTES_MAX} are allowed", text.len());
        return Err(Invalid::new(field, reason));
    }
    if text.contains('\0') {
        return Err(Invalid::new(field, "contains a NUL character"));
    }
    Ok(())
}

fn check_variable(field: &str, name: &str) -> Result<(), Invalid> {
    check_word(field, name)?;
    if name.contains('=') {
        return Err(Invalid::new(field, "has a variable whose name contains `=`"));
    }
    Ok(())
}
