//! Settings of the environment, whose values are texts.

use figment::providers::Env;
use figment::value::{Dict, Map, Value};
use figment::{Error, Metadata, Profile, Provider};

/// Prefix of the environment variables; `MUSTERBEAT_LISTEN` sets `listen`.
const PREFIX: &str = "MUSTERBEAT_";

/// Variables with the prefix that are not settings: of the command line, of a client's shell, and
/// of an agent.
const NOT_SETTINGS: [&str; 5] = ["agent_id", "config", "log", "server_url", "token"];

/// Begins the variables of the tests.
const OF_TESTS: &str = "test_";

/// Settings that are lists of tables, the only ones whose variables are taken apart here.
const TABLES: [&str; 3] = ["git", "mcp", "provider"];

/// The variables that are settings, each a text but for tables.
///
/// A guess from the text would make a number of a model named `405`; what a text is, its setting
/// knows.
pub(super) struct Environment(Env);

impl Environment {
    pub(super) fn new() -> Self {
        let variables = Env::prefixed(PREFIX)
            .ignore(&NOT_SETTINGS)
            .filter(|name| !name.as_str().to_ascii_lowercase().starts_with(OF_TESTS));
        Self(variables)
    }
}

impl Provider for Environment {
    fn metadata(&self) -> Metadata {
        self.0.metadata()
    }

    fn data(&self) -> Result<Map<Profile, Dict>, Error> {
        let value = |name: &str, text: &str| match text.parse() {
            Ok(tables) if TABLES.contains(&name) => tables,
            _ => Value::from(text.trim()),
        };
        let settings =
            self.0.iter().map(|(name, text)| (name.to_string(), value(name.as_str(), &text)));
        Ok(Profile::Default.collect(settings.collect()))
    }
}
