//! The description of an MCP server as an operator writes it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use musterbeat_core::invalid::Invalid;
use secrecy::SecretString;
use serde::Deserialize;

use super::allow::Allow;
use super::config::{
    CALL_TIMEOUT, CONNECT_TIMEOUT, Lifetime, McpEndpoint, McpProgram, McpServer, McpTransport,
};
use crate::tool::Repeat;

/// A table of settings; a key that it does not know is an error.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Table {
    name: String,
    command: Option<PathBuf>,
    args: Option<Vec<String>>,
    env: Option<BTreeMap<String, SecretString>>,
    inherit: Option<Vec<String>>,
    url: Option<SecretString>,
    headers: Option<BTreeMap<String, SecretString>>,
    headers_file: Option<PathBuf>,
    allow: Option<Vec<String>>,
    #[serde(default)]
    lifetime: Lifetime,
    repeat: Option<RepeatWord>,
    connect_timeout: Option<String>,
    call_timeout: Option<String>,
}

/// [`Repeat`] as a word.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum RepeatWord {
    Anew,
    Same,
    Never,
}

impl TryFrom<Table> for McpServer {
    type Error = Invalid;

    fn try_from(table: Table) -> Result<Self, Invalid> {
        let name = table.name.clone();
        let server = table.server().map_err(|invalid| invalid.within(&format!("mcp.{name}")))?;
        server.check()?;
        Ok(server)
    }
}

impl Table {
    fn server(self) -> Result<McpServer, Invalid> {
        let allow = Allow::new(self.allow.as_deref().unwrap_or_default())?;
        let connect_timeout = time("connect_timeout", self.connect_timeout.as_deref())?;
        let call_timeout = time("call_timeout", self.call_timeout.as_deref())?;
        Ok(McpServer {
            allow,
            lifetime: self.lifetime,
            repeat: self.repeat.map(|word| match word {
                RepeatWord::Anew => Repeat::Anew,
                RepeatWord::Same => Repeat::Same,
                RepeatWord::Never => Repeat::Never,
            }),
            connect_timeout: connect_timeout.unwrap_or(CONNECT_TIMEOUT),
            call_timeout: call_timeout.unwrap_or(CALL_TIMEOUT),
            name: self.name.clone(),
            transport: self.transport()?,
        })
    }

    fn transport(self) -> Result<McpTransport, Invalid> {
        let of_programs = [self.args.is_some(), self.env.is_some(), self.inherit.is_some()];
        let of_endpoints = [self.headers.is_some(), self.headers_file.is_some()];
        match (self.command, self.url) {
            (Some(_), None) if of_endpoints.contains(&true) => {
                Err(Invalid::new("headers", "belongs to a `url`, and there is a `command`"))
            }
            (None, Some(_)) if of_programs.contains(&true) => {
                let reason = "is set, and so is `args`, `env` or `inherit`, which belong to a \
                              `command`";
                Err(Invalid::new("url", reason))
            }
            (Some(command), None) => Ok(McpTransport::Program(McpProgram {
                command,
                args: self.args.unwrap_or_default(),
                env: self.env.unwrap_or_default(),
                inherit: self.inherit.unwrap_or_default(),
            })),
            (None, Some(url)) => Ok(McpTransport::Http(McpEndpoint {
                url,
                headers: self.headers.unwrap_or_default(),
                headers_file: self.headers_file,
            })),
            (None, None) | (Some(_), Some(_)) => {
                Err(Invalid::new("command", "or `url` is needed, one of the two and not both"))
            }
        }
    }
}

/// Reads a time such as `250ms`, `30s`, `2m` or `1h`.
fn time(field: &str, text: Option<&str>) -> Result<Option<Duration>, Invalid> {
    let Some(text) = text else { return Ok(None) };
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let millis = match unit.trim_start() {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        _ => None,
    };
    let number: Option<u64> = number.parse().ok();
    let time = number.zip(millis).and_then(|(number, millis)| number.checked_mul(millis));
    match time {
        Some(millis) => Ok(Some(Duration::from_millis(millis))),
        None => Err(Invalid::new(field, "is no time: write it as `250ms`, `30s`, `2m` or `1h`")),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use secrecy::ExposeSecret;
    use serde_json::{Value, json};

    use super::*;

    fn server(table: Value) -> Result<McpServer, String> {
        serde_json::from_value(table).map_err(|error| error.to_string())
    }

    #[test]
    fn program_and_endpoint_are_read() {
        let files = server(json!({
            "name": "files",
            "command": "mcp-files",
            "args": ["--root", "/srv"],
            "env": {"FILES_TOKEN": "s3cret"},
            "allow": ["read_*"],
        }))
        .unwrap();
        let McpTransport::Program(program) = &files.transport else { panic!("{files:?}") };
        assert_eq!((program.command.to_str(), program.args.len()), (Some("mcp-files"), 2));
        assert_eq!(program.env["FILES_TOKEN"].expose_secret(), "s3cret");
        assert_eq!((files.lifetime, files.repeat), (Lifetime::Shared, None));
        assert_eq!((files.connect_timeout, files.call_timeout), (CONNECT_TIMEOUT, CALL_TIMEOUT));

        let issues = server(json!({
            "name": "issues",
            "url": "https://issues.example.org/mcp?key=s3cret",
            "headers": {"authorization": "Bearer s3cret"},
            "allow": ["*"],
            "lifetime": "run",
            "repeat": "same",
            "connect_timeout": "250ms",
            "call_timeout": "2m",
        }))
        .unwrap();
        assert!(matches!(issues.transport, McpTransport::Http(_)));
        assert_eq!((issues.lifetime, issues.repeat), (Lifetime::Run, Some(Repeat::Same)));
        assert_eq!(issues.connect_timeout, Duration::from_millis(250));
        assert_eq!(issues.call_timeout, Duration::from_mins(2));
        assert!(!format!("{files:?} {issues:?}").contains("s3cret"), "secrets are not shown");
    }

    fn check_refused(change: Value, expected: &Expect) {
        let mut table = json!({"name": "files", "command": "x", "allow": ["*"]});
        let Value::Object(changes) = change else { panic!("an object changes the table") };
        for (key, value) in changes {
            match value {
                Value::Null => drop(table.as_object_mut().unwrap().remove(&key)),
                value => table[key] = value,
            }
        }
        expected.assert_eq(&server(table).unwrap_err());
    }

    #[test]
    fn refusals_name_server_field_and_limit() {
        check_refused(
            json!({"allow": null}),
            &expect![[
                r#"mcp.files.allow: has 0 patterns, from 1 to 256 are allowed: name tools, or write ["*"] for all"#
            ]],
        );
        check_refused(
            json!({"name": "my__files"}),
            &expect!["mcp.name: is not 1 to 24 letters, digits, `-` and single `_` between them"],
        );
        check_refused(
            json!({"url": "http://localhost/mcp"}),
            &expect!["mcp.files.command: or `url` is needed, one of the two and not both"],
        );
        check_refused(
            json!({"headers": {"a": "b"}}),
            &expect!["mcp.files.headers: belongs to a `url`, and there is a `command`"],
        );
        check_refused(
            json!({"inherit": ["MUSTERBEAT_CLUSTER_SECRET"]}),
            &expect![
                "mcp.files.inherit: names `MUSTERBEAT_CLUSTER_SECRET`, which is the server's own: pass it in `env`"
            ],
        );
        check_refused(
            json!({"call_timeout": "soon"}),
            &expect![
                "mcp.files.call_timeout: is no time: write it as `250ms`, `30s`, `2m` or `1h`"
            ],
        );
        check_refused(
            json!({"connect_timeout": "2m"}),
            &expect!["mcp.files.connect_timeout: is 120s, from 100ms to 60s is allowed"],
        );
    }

    #[test]
    fn refused_endpoints_keep_their_secrets() {
        let check = |endpoint: Value, expected: &Expect| {
            let mut table = endpoint;
            table["name"] = "issues".into();
            table["allow"] = json!(["*"]);
            let refusal = server(table).unwrap_err();
            assert!(!refusal.contains("s3cret"), "{refusal}");
            expected.assert_eq(&refusal);
        };
        check(
            json!({"url": "https://me:s3cret@issues.example.org/mcp"}),
            &expect!["mcp.issues.url: has a user or a password: put them into `headers`"],
        );
        check(
            json!({"url": "unix:///s3cret"}),
            &expect![
                "mcp.issues.url: is no URL that begins with https:// or http:// and names a host"
            ],
        );
        check(
            json!({"url": "http://localhost/", "headers": {"x-key": "s3cret\n"}}),
            &expect!["mcp.issues.headers.x-key: has a value that no header may carry"],
        );
        check(
            json!({"url": "http://localhost/", "headers": {"Accept": "s3cret"}}),
            &expect!["mcp.issues.headers.accept: is set by the protocol: leave it out"],
        );
        check(
            json!({"url": "http://localhost/", "args": []}),
            &expect![
                "mcp.issues.url: is set, and so is `args`, `env` or `inherit`, which belong to a `command`"
            ],
        );
    }
}
