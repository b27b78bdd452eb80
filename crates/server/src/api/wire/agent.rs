//! What is said and shown of agents and what they report.

use musterbeat_core::id::{AgentId, OwnerId, TokenId, WorkspaceId};
use musterbeat_core::invalid::{Invalid, check_text};
use musterbeat_core::metadata::{
    self, Definition, Definitions, Key, NAME_BYTES_MAX, REPORT_ENTRIES_MAX,
};
use musterbeat_core::page::Limit;
use musterbeat_core::port::{self, NewAgent};
use musterbeat_core::timestamp::Timestamp;
use musterbeat_engine::agents::{Receipt, Refusal};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use utoipa::ToSchema;
use uuid::Uuid;

/// An agent to create.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({ "name": "build machine 7" })))]
pub(crate) struct CreateAgent {
    /// What to call it, at most 127 bytes.
    #[schema(pattern = r"^[^\x00]*[^\s\x00][^\x00]*$", max_length = 127)]
    name: String,
    /// The workspace of which it reports.
    #[serde(default)]
    workspace_id: Option<Uuid>,
}

impl CreateAgent {
    pub(crate) fn checked(self, owner: OwnerId, token_hash: [u8; 32]) -> Result<NewAgent, Invalid> {
        check_text("name", &self.name, NAME_BYTES_MAX)?;
        Ok(NewAgent {
            id: AgentId::new(Uuid::now_v7()),
            owner,
            workspace: self.workspace_id.map(WorkspaceId::new),
            name: self.name,
            token: TokenId::new(Uuid::now_v7()),
            token_hash,
        })
    }
}

/// An agent that was created.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct CreatedAgent {
    /// Names it.
    pub(crate) id: Uuid,
    /// The token that it reports with; it is shown once, and only its hash is stored.
    pub(crate) token: String,
    /// Names the token, for revoking.
    pub(crate) token_id: Uuid,
}

/// An agent.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Agent {
    id: Uuid,
    name: String,
    #[schema(required)]
    workspace_id: Option<Uuid>,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
}

/// Agents of the caller, the youngest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AgentPage {
    agents: Vec<Agent>,
    /// Send it as `after` for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    next: Option<Uuid>,
}

impl AgentPage {
    /// Shows a page; one with as many agents as allowed goes on.
    pub(crate) fn of(agents: Vec<port::Agent>, limit: Limit) -> Self {
        let next = limit.end_of(&agents).map(|last| last.id.uuid());
        let agents = agents.into_iter().map(|agent| Agent {
            id: agent.id.uuid(),
            name: agent.name,
            workspace_id: agent.workspace.map(WorkspaceId::uuid),
            created_at: agent.created_at.time(),
        });
        Self { agents: agents.collect(), next }
    }
}

/// What an agent is to report.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({ "definitions": [
    { "key": "load", "interval_seconds": 10 },
    { "key": "users", "display_name": "Users", "script": "who | wc -l", "interval_seconds": 60 },
] })))]
pub(crate) struct DefineMetadata {
    /// Each key once, at most 128; those that are not there are taken away with their values.
    #[schema(max_items = 128)]
    definitions: Vec<DefinitionInput>,
}

/// A key to report.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DefinitionInput {
    /// Names the value, at most 127 bytes.
    key: String,
    /// What people read, at most 127 bytes; by default the key.
    #[serde(default)]
    display_name: Option<String>,
    /// How the agent finds the value; empty when it knows by itself.
    #[serde(default)]
    script: String,
    /// Seconds between two values, at most a day.
    #[schema(minimum = 1, maximum = 86_400)]
    interval_seconds: u32,
    /// Seconds that a value may take, at most an hour; by default 10.
    #[serde(default = "default_timeout")]
    #[schema(minimum = 1, maximum = 3_600)]
    timeout_seconds: u32,
    /// Where it stands among the others, the lowest first; by default where it stands here.
    #[serde(default)]
    display_order: Option<i32>,
}

const fn default_timeout() -> u32 {
    10
}

impl DefineMetadata {
    pub(crate) fn checked(self) -> Result<Definitions, Invalid> {
        let definitions = self.definitions.into_iter().enumerate().map(|(place, input)| {
            let named = |invalid: Invalid| {
                Invalid::new(format!("definitions[{place}].{}", invalid.field), invalid.reason)
            };
            Ok(Definition {
                display_name: input.display_name.unwrap_or_else(|| input.key.clone()),
                key: Key::new(input.key).map_err(named)?,
                script: input.script,
                interval_seconds: input.interval_seconds,
                timeout_seconds: input.timeout_seconds,
                display_order: input
                    .display_order
                    .unwrap_or_else(|| i32::try_from(place).unwrap_or(i32::MAX)),
            })
        });
        Definitions::new(definitions.collect::<Result<_, Invalid>>()?)
    }
}

/// What was defined.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Defined {
    /// Counts the changes of what the agent is to report.
    pub(crate) definitions_version: i64,
}

/// A value that an agent reports.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(examples(json!({ "key": "load", "value": "0.42" })))]
pub(crate) struct ReportEntry {
    /// Names it.
    key: String,
    /// The value; of more than 2,048 bytes the first are stored.
    #[serde(default)]
    value: String,
    /// Why there is none, or what is wrong with it.
    #[serde(default)]
    error: String,
}

/// Takes a report as it was sent.
pub(crate) fn reported(entries: Vec<ReportEntry>) -> Result<Vec<metadata::Reported>, Invalid> {
    if entries.len() > REPORT_ENTRIES_MAX {
        let reason =
            format!("has {} entries, at most {REPORT_ENTRIES_MAX} are allowed", entries.len());
        return Err(Invalid::new("body", reason));
    }
    let reported = entries
        .into_iter()
        .map(|ReportEntry { key, value, error }| metadata::Reported { key, value, error });
    Ok(reported.collect())
}

/// What became of a report.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Reported {
    /// How many values will be stored.
    accepted: usize,
    /// Keys of which something else is stored than was sent.
    changed: Vec<KeyChanged>,
    /// Keys that are not stored.
    refused: Vec<KeyRefused>,
    /// Counts the changes of what the agent is to report: when it differs from the one that was
    /// read, it is time to read again.
    definitions_version: i64,
}

/// A key of which something else is stored than was sent.
#[derive(Debug, Serialize, ToSchema)]
struct KeyChanged {
    key: String,
    /// What was changed.
    reason: String,
}

/// A key that is not stored.
#[derive(Debug, Serialize, ToSchema)]
struct KeyRefused {
    /// The key, or its beginning.
    key: String,
    /// Why it is not stored.
    reason: String,
    /// Whether the same may be taken later.
    retryable: bool,
}

impl From<Receipt> for Reported {
    fn from(receipt: Receipt) -> Self {
        let changed = receipt.altered.into_iter().map(|(key, reason)| KeyChanged { key, reason });
        let refused = receipt.refused.into_iter().map(|refusal| {
            let Refusal { key, reason, retryable } = refusal;
            KeyRefused { key, reason, retryable }
        });
        Self {
            accepted: receipt.accepted,
            changed: changed.collect(),
            refused: refused.collect(),
            definitions_version: receipt.version.0,
        }
    }
}

/// What an agent is to report, and what it reported last.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Metadata {
    /// Counts the changes of what the agent is to report.
    definitions_version: i64,
    /// Each key, in the order of display.
    metadata: Vec<Reading>,
}

/// What an agent is to report under a key, and what it reported last.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Reading {
    key: String,
    display_name: String,
    script: String,
    interval_seconds: u32,
    timeout_seconds: u32,
    display_order: i32,
    /// What it reported; null before its first report.
    #[schema(required)]
    value: Option<String>,
    /// Why there is no value, or what is wrong with it; empty when nothing is.
    #[schema(required)]
    error: Option<String>,
    /// When it came, by the server's clock.
    #[serde(with = "time::serde::rfc3339::option")]
    #[schema(required)]
    collected_at: Option<OffsetDateTime>,
}

impl From<&metadata::Readings> for Metadata {
    fn from(readings: &metadata::Readings) -> Self {
        let metadata = readings.readings.iter().map(Reading::from).collect();
        Self { definitions_version: readings.version.0, metadata }
    }
}

impl From<&metadata::Reading> for Reading {
    fn from(metadata::Reading { definition, last }: &metadata::Reading) -> Self {
        let last = last.as_ref();
        Self {
            key: definition.key.as_str().to_owned(),
            display_name: definition.display_name.clone(),
            script: definition.script.clone(),
            interval_seconds: definition.interval_seconds,
            timeout_seconds: definition.timeout_seconds,
            display_order: definition.display_order,
            value: last.map(|sample| sample.value.clone()),
            error: last.map(|sample| sample.error.clone()),
            collected_at: last.map(|sample| sample.collected_at).map(Timestamp::time),
        }
    }
}
