//! The tools that an MCP server offers, as far as they are allowed and can be told to models.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use rmcp::model::{JsonObject, PaginatedRequestParams, Tool as Listed, ToolAnnotations};
use rmcp::service::{Peer, ServiceError};
use rmcp::{ClientCacheConfig, RoleClient};
use serde_json::{Map, Value};

use super::config::McpServer;
use super::name;
use crate::tool::{Conduct, Repeat, ToolSpec};

/// Tools of one server that are offered, at most; each costs tokens in every prompt.
pub const TOOLS_MAX: usize = 128;

/// Bytes of a tool's description, at most; its rest is cut off.
pub const DESCRIPTION_BYTES_MAX: usize = 4096;

/// Bytes of the schema of a tool's input, at most; a tool with a longer one is left out.
pub const SCHEMA_BYTES_MAX: usize = 64 * 1024;

/// Pages of a list of tools that are read, at most.
const PAGES_MAX: usize = 64;

/// What may be said of one list, at most.
const NOTES_MAX: usize = 16;

/// Characters of a name that a server made up and that goes to the log.
const SHOWN_CHARS_MAX: usize = 64;

/// The agent's clock ends a call that this one's should have: by then something is stuck.
const TIMEOUT_MARGIN: Duration = Duration::from_secs(1);

/// A tool of an MCP server.
#[derive(Debug, PartialEq)]
pub(super) struct Offer {
    /// What its server calls it.
    pub(super) own_name: String,
    /// What models are told of it.
    pub(super) spec: ToolSpec,
    /// What holds of its calls.
    pub(super) conduct: Conduct,
}

/// A list of tools.
#[derive(Debug)]
pub(super) struct Listing {
    /// Those that are offered, in the server's order.
    pub(super) offers: Arc<[Arc<Offer>]>,
    /// Why others are not, for the operator.
    pub(super) notes: Vec<String>,
}

/// Asks a server for its tools, page by page.
pub(super) async fn list(
    peer: &Peer<RoleClient>,
    server: &McpServer,
) -> Result<Listing, ServiceError> {
    // It is asked when something changed, so what was remembered is wrong.
    peer.set_response_cache_config(ClientCacheConfig::disabled()).await;
    let mut choice = Choice::new(server);
    let mut cursor = None;
    for _ in 0..PAGES_MAX {
        let page = PaginatedRequestParams::default().with_cursor(cursor);
        let page = peer.list_tools(Some(page)).await?;
        for tool in page.tools {
            choice.take(tool);
        }
        cursor = page.next_cursor;
        if cursor.is_none() {
            return Ok(choice.listing());
        }
    }
    choice.note(format!("its list of tools has more than {PAGES_MAX} pages"));
    Ok(choice.listing())
}

/// Chooses tools as they come.
struct Choice<'a> {
    server: &'a McpServer,
    offers: Vec<Arc<Offer>>,
    /// What its server calls those that are allowed.
    own_names: HashSet<String>,
    /// INVARIANT: no two tools are told to a model by one name.
    names: HashSet<String>,
    notes: Vec<String>,
}

impl<'a> Choice<'a> {
    fn new(server: &'a McpServer) -> Self {
        let (own_names, names) = (HashSet::new(), HashSet::new());
        Self { server, offers: Vec::new(), own_names, names, notes: Vec::new() }
    }

    fn take(&mut self, tool: Listed) {
        if !self.server.allow.permits(&tool.name) {
            return;
        }
        let shown = shown(&tool.name);
        if self.offers.len() == TOOLS_MAX {
            return self
                .note(format!("{shown} is left out: {TOOLS_MAX} tools are offered at most"));
        }
        self.own_names.insert(tool.name.to_string());
        let name = name::of_tool(&self.server.name, &tool.name);
        if !self.names.insert(name.clone()) {
            return self.note(format!("{shown} is on its list twice, and the first counts"));
        }
        match schema(&tool.input_schema) {
            Ok(input) => self.offers.push(Arc::new(self.offer(tool, name, input))),
            Err(reason) => {
                self.note(format!("{shown} is left out: the schema of its input {reason}"));
            }
        }
    }

    fn offer(&self, tool: Listed, name: String, input: Value) -> Offer {
        let title = tool.title.unwrap_or_default();
        let mut description = tool.description.map_or(title, Into::into);
        if DESCRIPTION_BYTES_MAX < description.len() {
            description
                .truncate(description.floor_char_boundary(DESCRIPTION_BYTES_MAX - '…'.len_utf8()));
            description.push('…');
        }
        let said = || repeat(tool.annotations.as_ref());
        Offer {
            spec: ToolSpec { name, description, input },
            conduct: Conduct {
                repeat: self.server.repeat.unwrap_or_else(said),
                exclusive: false,
                timeout: Some(self.server.call_timeout + TIMEOUT_MARGIN),
            },
            own_name: tool.name.into(),
        }
    }

    fn listing(mut self) -> Listing {
        let names: Vec<_> = self.own_names.iter().map(String::as_str).collect();
        for missing in self.server.allow.missing(&names) {
            self.notes.push(format!("`allow` names {}, which it does not have", shown(missing)));
        }
        self.notes.truncate(NOTES_MAX);
        Listing { offers: self.offers.into(), notes: self.notes }
    }

    fn note(&mut self, note: String) {
        if self.notes.len() < NOTES_MAX {
            self.notes.push(note);
        }
    }
}

/// Reads what a server says of a tool: that it only reads, or does nothing twice.
fn repeat(annotations: Option<&ToolAnnotations>) -> Repeat {
    let said =
        |hint: fn(&ToolAnnotations) -> Option<bool>| annotations.and_then(hint) == Some(true);
    if said(|annotations| annotations.read_only_hint) {
        Repeat::Anew
    } else if said(|annotations| annotations.idempotent_hint) {
        Repeat::Same
    } else {
        Repeat::Never
    }
}

/// Returns the schema as providers take it: they want a type and properties, be it none.
fn schema(schema: &JsonObject) -> Result<Value, String> {
    let bytes = serde_json::to_vec(schema).map_or(usize::MAX, |json| json.len());
    if SCHEMA_BYTES_MAX < bytes {
        return Err(format!("has {bytes} bytes, at most {SCHEMA_BYTES_MAX} are allowed"));
    }
    let mut schema = schema.clone();
    let kind = schema.entry("type").or_insert_with(|| "object".into());
    if kind != "object" {
        return Err("is not of an object".to_owned());
    }
    let properties = schema.entry("properties").or_insert_with(|| Map::new().into());
    if !properties.is_object() {
        return Err("has properties that are no object".to_owned());
    }
    Ok(Value::Object(schema))
}

/// Returns a name as it may go to the log.
fn shown(name: &str) -> String {
    let mut cut: String = name.chars().take(SHOWN_CHARS_MAX).collect();
    if cut.len() < name.len() {
        cut.push('…');
    }
    format!("{cut:?}")
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use expect_test::expect;
    use serde_json::json;

    use super::*;
    use crate::mcp::{Allow, McpProgram, McpTransport};

    fn server() -> McpServer {
        let program = McpProgram {
            command: PathBuf::from("x"),
            args: Vec::new(),
            env: [].into(),
            inherit: Vec::new(),
        };
        McpServer::new("files", McpTransport::Program(program), Allow::all())
    }

    fn listed(tool: Value) -> Listed {
        serde_json::from_value(tool).unwrap()
    }

    fn choose(server: &McpServer, tools: Vec<Value>) -> Listing {
        let mut choice = Choice::new(server);
        for tool in tools {
            choice.take(listed(tool));
        }
        choice.listing()
    }

    #[test]
    fn allowed_tools_are_told_as_their_server_does() {
        let allow = ["read", "grown"].map(str::to_owned);
        let server = McpServer { allow: Allow::new(&allow).unwrap(), ..server() };
        let schema = json!({"type": "object", "properties": {"path": {"type": "string"}}});
        let listing = choose(
            &server,
            vec![
                json!({"name": "read", "description": "Reads.", "inputSchema": schema}),
                json!({"name": "write", "inputSchema": schema}),
            ],
        );
        assert_eq!(listing.offers.len(), 1);
        let expected =
            ToolSpec { name: "files__read".into(), description: "Reads.".into(), input: schema };
        assert_eq!(listing.offers[0].spec, expected);
        assert_eq!(listing.notes, [r#"`allow` names "grown", which it does not have"#]);
    }

    #[test]
    fn unusable_and_double_tools_are_left_out() {
        let long = "x".repeat(SCHEMA_BYTES_MAX);
        let listing = choose(
            &server(),
            vec![
                json!({"name": "bare", "title": "Bare", "inputSchema": {}}),
                json!({"name": "bare", "inputSchema": {}}),
                json!({"name": "text", "inputSchema": {"type": "string"}}),
                json!({"name": "list", "inputSchema": {"properties": []}}),
                json!({"name": "long\n", "inputSchema": {"description": long}}),
            ],
        );
        let offer = &listing.offers[0].spec;
        assert_eq!(offer.input, json!({"type": "object", "properties": {}}));
        assert_eq!((listing.offers.len(), offer.description.as_str()), (1, "Bare"));
        expect![[r#"
            "bare" is on its list twice, and the first counts
            "text" is left out: the schema of its input is not of an object
            "list" is left out: the schema of its input has properties that are no object
            "long\n" is left out: the schema of its input has 65554 bytes, at most 65536 are allowed"#]]
        .assert_eq(&listing.notes.join("\n"));
    }

    #[test]
    fn long_descriptions_and_lists_are_cut() {
        let tool = |number: usize| json!({"name": format!("t{number}"), "inputSchema": {}});
        let listing = choose(&server(), (0..200).map(tool).collect());
        assert_eq!((listing.offers.len(), listing.notes.len()), (TOOLS_MAX, NOTES_MAX));

        let description = "ä".repeat(DESCRIPTION_BYTES_MAX);
        let tool = json!({"name": "a", "description": description, "inputSchema": {}});
        let listing = choose(&server(), vec![tool]);
        let cut = &listing.offers[0].spec.description;
        assert!(cut.len() <= DESCRIPTION_BYTES_MAX && cut.ends_with("ä…"), "{}", cut.len());
    }

    #[test]
    fn annotations_decide_unless_the_operator_does() {
        let conduct = |server: &McpServer, annotations: Value| {
            let tool = json!({"name": "a", "inputSchema": {}, "annotations": annotations});
            choose(server, vec![tool]).offers[0].conduct.repeat
        };
        let by_annotations = server();
        assert_eq!(conduct(&by_annotations, json!({"readOnlyHint": true})), Repeat::Anew);
        assert_eq!(conduct(&by_annotations, json!({"idempotentHint": true})), Repeat::Same);
        assert_eq!(conduct(&by_annotations, json!({"readOnlyHint": false})), Repeat::Never);
        assert_eq!(conduct(&by_annotations, json!({})), Repeat::Never);
        let by_operator = McpServer { repeat: Some(Repeat::Never), ..server() };
        assert_eq!(conduct(&by_operator, json!({"readOnlyHint": true})), Repeat::Never);
    }
}
