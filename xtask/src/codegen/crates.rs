//! The drawing of which crate uses which, in `docs/architecture.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anyhow::Result;
use cargo_metadata::DependencyKind;

use super::Output;
use crate::check::layers::{self, Edge};

const PATH: &str = "docs/architecture.md";

/// Draws the workspace between the two markers and leaves the rest of the page alone.
pub(super) fn generate() -> Result<Output> {
    let drawing = draw(&layers::edges()?);
    Output::section(PATH, "crates", &drawing)
}

/// Draws the floors, a solid arrow for an import and a dotted one for tests only.
fn draw(edges: &[Edge]) -> String {
    // xtask uses everything: its arrows would hide the others.
    let ours: Vec<_> = edges.iter().filter(|edge| edge.is_ours() && edge.from != "xtask").collect();
    let mut floors: BTreeMap<Option<u8>, BTreeSet<&str>> = BTreeMap::new();
    for name in layers::names().filter(|&name| name != "xtask") {
        floors.entry(layers::floor(name)).or_default().insert(short(name));
    }
    let mut text = "```mermaid\ngraph TD\n".to_owned();
    for (floor, names) in floors.iter().rev() {
        let _ = match floor {
            Some(floor) => writeln!(text, "  subgraph floor{floor} [\"floor {floor}\"]"),
            None => writeln!(text, "  subgraph tests [\"for tests\"]"),
        };
        for name in names {
            let _ = writeln!(text, "    {name}");
        }
        text.push_str("  end\n");
    }
    let imports: BTreeSet<_> = pairs(&ours, |kind| kind != DependencyKind::Development);
    let in_tests = pairs(&ours, |kind| kind == DependencyKind::Development);
    for (from, to) in &imports {
        let _ = writeln!(text, "  {from} --> {to}");
    }
    for (from, to) in in_tests.difference(&imports) {
        let _ = writeln!(text, "  {from} -.-> {to}");
    }
    text.push_str("```\n");
    text
}

fn pairs<'a>(
    edges: &[&'a Edge],
    wanted: fn(DependencyKind) -> bool,
) -> BTreeSet<(&'a str, &'a str)> {
    let wanted = edges.iter().filter(|edge| wanted(edge.kind));
    wanted.map(|edge| (short(&edge.from), short(&edge.to))).collect()
}

/// Returns the name of a crate's folder.
fn short(name: &str) -> &str {
    name.strip_prefix("musterbeat-").unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imports_are_solid_and_tests_are_dotted() {
        let drawing = draw(&[
            edge("musterbeat-db", "musterbeat-core", DependencyKind::Normal),
            edge("musterbeat-db", "musterbeat-testkit", DependencyKind::Development),
            edge("musterbeat-db", "sqlx", DependencyKind::Normal),
            edge("musterbeat-engine", "musterbeat-core", DependencyKind::Normal),
            edge("musterbeat-engine", "musterbeat-core", DependencyKind::Development),
            edge("xtask", "musterbeat-core", DependencyKind::Normal),
        ]);
        let arrows: Vec<_> = drawing.lines().filter(|line| line.contains("->")).collect();
        assert_eq!(arrows, ["  db --> core", "  engine --> core", "  db -.-> testkit"]);
        let floor = drawing.split("subgraph ").find(|floor| floor.starts_with("floor0 "));
        let rooms: Vec<_> =
            floor.unwrap().lines().skip(1).take_while(|line| *line != "  end").collect();
        assert!(rooms.contains(&"    core"), "{drawing}");
    }

    fn edge(from: &str, to: &str, kind: DependencyKind) -> Edge {
        Edge { from: from.into(), to: to.into(), kind }
    }
}
