//! What models call the tools of MCP servers.

use uuid::Uuid;

use crate::tool::NAME_BYTES_MAX;

/// Stands between the name of a server and that of its tool.
///
/// INVARIANT: no server's name contains it, so the names of two servers' tools never meet.
pub(super) const SEPARATOR: &str = "__";

/// Hexadecimal digits of the hash that tells changed names apart.
const HASH_DIGITS: usize = 8;

/// Makes the names of hashes; any other would do.
const NAMESPACE: Uuid = Uuid::from_u128(0x6d75_7374_6572_6265_6174_206d_6370_2100);

/// Returns what models call the tool `tool` of `server`; the same in every process and version.
///
/// A name that providers would refuse is changed and cut, and ends with a hash of the tool's own
/// name.
pub(super) fn of_tool(server: &str, tool: &str) -> String {
    let mut name = format!("{server}{SEPARATOR}");
    name.extend(tool.chars().map(|each| if is_allowed(each) { each } else { '_' }));
    let is_unchanged = tool.chars().all(is_allowed) && !tool.is_empty();
    if is_unchanged && name.len() <= NAME_BYTES_MAX {
        return name;
    }
    let hash = Uuid::new_v5(&NAMESPACE, tool.as_bytes()).simple().to_string();
    // One byte a character: whatever is not ASCII was replaced.
    name.truncate(NAME_BYTES_MAX - HASH_DIGITS - 1);
    name.push('_');
    name.push_str(&hash[..HASH_DIGITS]);
    name
}

/// Says whether a name of a tool may have this character.
pub(super) fn is_allowed(character: char) -> bool {
    character.is_ascii_alphanumeric() || matches!(character, '_' | '-')
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;
    use crate::mcp::config::SERVER_NAME_BYTES_MAX;

    #[test]
    fn plain_names_are_kept_and_others_told_apart() {
        assert_eq!(of_tool("files", "read_file"), "files__read_file");
        assert_eq!(of_tool("files", "read.file"), "files__read_file_d001f403");
        assert_eq!(of_tool("files", "read file"), "files__read_file_ce4cbb32");
        assert_eq!(of_tool("files", "læs"), "files__l_s_644ac186");
        let long = "a".repeat(70);
        let other = format!("{long}b");
        assert_eq!(of_tool("files", &long).len(), NAME_BYTES_MAX);
        assert_ne!(of_tool("files", &long), of_tool("files", &other));
    }

    proptest! {
        #[test]
        fn every_name_can_be_told_to_a_provider(
            server in "[a-z][a-z0-9-]{0,23}",
            tools in proptest::collection::hash_set(".{0,80}", 0..8),
        ) {
            prop_assume!(server.len() <= SERVER_NAME_BYTES_MAX);
            let names: HashSet<_> = tools.iter().map(|tool| of_tool(&server, tool)).collect();
            prop_assert_eq!(names.len(), tools.len());
            for name in names {
                prop_assert!(name.len() <= NAME_BYTES_MAX && name.chars().all(is_allowed));
                prop_assert!(name.starts_with(&server));
            }
        }
    }
}
