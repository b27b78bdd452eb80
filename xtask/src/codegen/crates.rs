//! The drawing of which crate uses which, in `docs/architecture.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use anyhow::{Context, Result};
use cargo_metadata::DependencyKind;

use super::Output;
use crate::check::layers::{self, Edge};
use crate::workspace;

const PATH: &str = "docs/architecture.md";
const BEGIN: &str = "<!-- begin generated: crates -->";
const END: &str = "<!-- end generated: crates -->";

/// Draws the workspace between the two markers and leaves the rest of the page alone.
pub(super) fn generate() -> Result<Output> {
    let drawing = draw(&layers::edges()?);
    let page = replace(&workspace::read(PATH)?, &drawing).with_context(|| {
        format!("found no place for the drawing: put the lines `{BEGIN}` and `{END}` into {PATH}")
    })?;
    Ok(Output::file(PATH, page))
}

/// Returns `page` with `text` between the markers, or `None` where it has none.
fn replace(page: &str, text: &str) -> Option<String> {
    let (before, rest) = page.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{text}{END}{after}"))
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
        assert!(
            drawing.contains("  subgraph floor0 [\"floor 0\"]\n    core\n  end\n"),
            "{drawing}"
        );
    }

    #[test]
    fn the_page_around_the_markers_stays() {
        let page = format!("above\n{BEGIN}\nold\n{END}\nbelow\n");
        let expected = format!("above\n{BEGIN}\nnew\n{END}\nbelow\n");
        assert_eq!(replace(&page, "new\n"), Some(expected));
        assert_eq!(replace("no markers", "new\n"), None);
    }

    fn edge(from: &str, to: &str, kind: DependencyKind) -> Edge {
        Edge { from: from.into(), to: to.into(), kind }
    }
}
