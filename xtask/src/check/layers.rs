//! `cargo xtask check layers`: which crate may know what.
//!
//! The edges between our own crates are those that the manifests declare, of every kind.
//! What a crate pulls in from outside is asked of `cargo tree`, crate by crate: the resolve graph
//! of `cargo metadata` unites features over the workspace, and would charge one crate with
//! dependencies that only another switches on.

use anyhow::{Context, Result};
use cargo_metadata::{DependencyKind, MetadataCommand};

use crate::workspace;

use Uses::{Anything, FloorsBelow, Only};

/// What a crate may know.
struct Rule {
    name: &'static str,
    /// INVARIANT: a crate without a floor is a tool, and no product code rests on it.
    floor: Option<u8>,
    uses: Uses,
    /// Packages that must not be reached, even indirectly.
    never: &'static [&'static str],
    /// Packages that must not be named in the manifest.
    never_named: &'static [&'static str],
    /// Whether the source may name sqlx.
    sqlx: bool,
}

/// Which of our own crates a crate may use.
enum Uses {
    FloorsBelow,
    Only(&'static [&'static str]),
    Anything,
}

/// The table of `docs/architecture.md`, bottom floor first.
const RULES: &[Rule] = &[
    Rule {
        name: "musterbeat-core",
        floor: Some(0),
        uses: FloorsBelow,
        never: &["tokio", "sqlx", "sqlx-core", "axum", "rand", "getrandom", "metrics", "tracing"],
        never_named: &[],
        sqlx: false,
    },
    Rule {
        name: "musterbeat-process",
        floor: Some(0),
        uses: FloorsBelow,
        never: &["sqlx", "sqlx-core", "axum"],
        never_named: &[],
        sqlx: false,
    },
    Rule {
        name: "musterbeat-db",
        floor: Some(1),
        uses: FloorsBelow,
        never: &["axum", "tower-http"],
        never_named: &[],
        sqlx: true,
    },
    Rule {
        name: "musterbeat-pubsub",
        floor: Some(1),
        uses: FloorsBelow,
        never: &["axum", "tower-http"],
        never_named: &[],
        // `LISTEN` and `pg_notify`, on no table of ours.
        sqlx: true,
    },
    Rule {
        name: "musterbeat-engine",
        floor: Some(1),
        uses: FloorsBelow,
        never: &["sqlx", "sqlx-core", "axum", "tower-http"],
        never_named: &[],
        sqlx: false,
    },
    Rule {
        name: "musterbeat-embedded",
        floor: Some(1),
        uses: Only(&[]),
        never: &["sqlx", "sqlx-core", "axum"],
        never_named: &[],
        sqlx: false,
    },
    Rule {
        name: "musterbeat-agent",
        floor: Some(1),
        uses: FloorsBelow,
        never: &["sqlx", "sqlx-core", "axum"],
        never_named: &[],
        sqlx: false,
    },
    Rule {
        name: "musterbeat-git",
        floor: Some(1),
        uses: FloorsBelow,
        never: &["sqlx", "sqlx-core", "axum"],
        never_named: &[],
        sqlx: false,
    },
    Rule {
        name: "musterbeat-provision",
        floor: Some(1),
        uses: FloorsBelow,
        never: &["sqlx", "sqlx-core", "axum"],
        never_named: &[],
        sqlx: false,
    },
    Rule {
        name: "musterbeat-reporter",
        floor: Some(1),
        uses: FloorsBelow,
        never: &["sqlx", "sqlx-core", "axum"],
        never_named: &[],
        sqlx: false,
    },
    Rule {
        name: "musterbeat-server",
        floor: Some(2),
        uses: FloorsBelow,
        never: &[],
        never_named: &["sqlx", "sqlx-core"],
        sqlx: false,
    },
    Rule {
        name: TESTKIT,
        floor: None,
        uses: Only(&["musterbeat-embedded"]),
        never: &[],
        never_named: &[],
        sqlx: true,
    },
    Rule { name: "xtask", floor: None, uses: Anything, never: &[], never_named: &[], sqlx: true },
];

/// The one tool that crates may use, as a dev-dependency.
const TESTKIT: &str = "musterbeat-testkit";

/// Returns every violation, each naming the edge or path and the rule it breaks.
pub(crate) fn violations() -> Result<Vec<String>> {
    let mut found = declared(&edges()?);
    for rule in RULES {
        if !rule.never.is_empty() {
            found.extend(reached(rule, &tree(rule.name)?));
        }
        if !rule.sqlx {
            found.extend(sqlx_in_source(rule.name)?);
        }
    }
    Ok(found)
}

/// A dependency as a manifest declares it.
#[derive(Clone, Debug)]
pub(crate) struct Edge {
    pub(crate) from: String,
    pub(crate) to: String,
    pub(crate) kind: DependencyKind,
}

impl Edge {
    /// Says whether it leads to another crate of the workspace.
    pub(crate) fn is_ours(&self) -> bool {
        names().any(|name| name == self.to)
    }
}

/// Returns what the members of the workspace declare, of every kind and for every platform.
pub(crate) fn edges() -> Result<Vec<Edge>> {
    let metadata = MetadataCommand::new()
        .current_dir(workspace::root())
        .no_deps()
        .exec()
        .context("failed to read the manifests: run `cargo metadata --no-deps` to see why")?;
    let mut edges = Vec::new();
    for package in metadata.workspace_packages() {
        edges.extend(package.dependencies.iter().map(|dependency| Edge {
            from: package.name.to_string(),
            to: dependency.name.clone(),
            kind: dependency.kind,
        }));
    }
    Ok(edges)
}

/// Returns the names of our crates, bottom floor first.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    RULES.iter().map(|rule| rule.name)
}

/// Returns the floor of one of our crates; tools have none.
pub(crate) fn floor(name: &str) -> Option<u8> {
    RULES.iter().find(|rule| rule.name == name)?.floor
}

/// Judges the declared edges: floors among our crates, and packages that must not be named.
fn declared(edges: &[Edge]) -> Vec<String> {
    let mut found = Vec::new();
    for Edge { from, to, kind } in edges {
        let Some(rule) = RULES.iter().find(|rule| rule.name == from) else {
            found.push(format!("{from}: has no place: add it to `RULES` in {}", file!()));
            continue;
        };
        if rule.never_named.contains(&to.as_str()) {
            found.push(format!("{from} -> {to} ({kind}): {from} must not name {to}"));
        }
        if let Some(target) = RULES.iter().find(|rule| rule.name == to)
            && let Err(reason) = may_use(rule, target, *kind)
        {
            found.push(format!("{from} -> {to} ({kind}): {reason}"));
        }
    }
    found.dedup();
    found
}

/// Says whether `from` may use `to`, or which rule forbids it.
fn may_use(from: &Rule, to: &Rule, kind: DependencyKind) -> Result<(), String> {
    let allowed = match from.uses {
        Anything => return Ok(()),
        Only(names) => names.contains(&to.name),
        FloorsBelow if to.name == TESTKIT => kind == DependencyKind::Development,
        FloorsBelow => to.floor.is_some() && to.floor < from.floor,
    };
    if allowed {
        return Ok(());
    }
    Err(match (&from.uses, from.floor, to.floor) {
        (Only([]), ..) => format!("{} knows none of our crates", from.name),
        (Only(names), ..) => format!("{} knows only {}", from.name, names.join(", ")),
        (_, Some(upper), Some(lower)) => {
            format!(
                "floor {upper} uses only the floors below it, and {} is on floor {lower}",
                to.name
            )
        }
        _ => format!("{} is a tool, not part of the product", to.name),
    })
}

/// Asks cargo for everything that `name` is built from, with all its features, on any platform.
fn tree(name: &str) -> Result<String> {
    let args = ["tree", "--package", name, "--edges", "normal,build", "--all-features"];
    let shape = ["--target", "all", "--prefix", "depth", "--format", " {p}"];
    workspace::output(&mut workspace::cargo(args.into_iter().chain(shape)))
}

/// Finds forbidden packages in a tree of lines `DEPTH NAME VERSION`, and how they are reached.
fn reached(rule: &Rule, tree: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut path: Vec<&str> = Vec::new();
    for line in tree.lines() {
        let mut words = line.split_whitespace();
        let (Some(depth), Some(name)) = (words.next(), words.next()) else {
            continue;
        };
        path.truncate(depth.parse().unwrap_or(0));
        path.push(name);
        if rule.never.contains(&name) {
            found.push(format!("{}: {} must not contain {name}", path.join(" -> "), rule.name));
        }
    }
    found
}

/// Finds lines of code that name sqlx in a crate that holds no SQL.
fn sqlx_in_source(name: &str) -> Result<Vec<String>> {
    // Folders are the names of the packages without the prefix.
    let folder = workspace::root().join("crates").join(name.trim_start_matches("musterbeat-"));
    let mut found = Vec::new();
    for file in workspace::rust_files(&[folder])? {
        let path = workspace::relative(&file);
        for line in lines_naming_sqlx(&workspace::read(&path)?) {
            found.push(format!("{path}:{line}: names sqlx, but SQL lives in musterbeat-db"));
        }
    }
    Ok(found)
}

/// Returns the numbers of the lines, without comments, that name sqlx.
fn lines_naming_sqlx(source: &str) -> Vec<usize> {
    let names = |line: &str| {
        let code = line.split("//").next().unwrap_or_default();
        code.contains("sqlx::") || code.trim_start().starts_with("use sqlx")
    };
    source.lines().zip(1..).filter(|(line, _)| names(line)).map(|(_, number)| number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crate_uses_the_floors_below_it() {
        check("musterbeat-db", "musterbeat-core", DependencyKind::Normal, &[]);
        check("musterbeat-server", "musterbeat-engine", DependencyKind::Normal, &[]);
        check("xtask", "musterbeat-server", DependencyKind::Normal, &[]);
    }

    #[test]
    fn neither_its_own_floor_nor_one_above() {
        let message = "musterbeat-db -> musterbeat-pubsub (dev): floor 1 uses only the floors \
                       below it, and musterbeat-pubsub is on floor 1";
        check("musterbeat-db", "musterbeat-pubsub", DependencyKind::Development, &[message]);
        let message = "musterbeat-core -> musterbeat-server (build): floor 0 uses only the floors \
                       below it, and musterbeat-server is on floor 2";
        check("musterbeat-core", "musterbeat-server", DependencyKind::Build, &[message]);
    }

    #[test]
    fn the_testkit_is_for_tests() {
        check("musterbeat-db", TESTKIT, DependencyKind::Development, &[]);
        let message = "musterbeat-db -> musterbeat-testkit (normal): musterbeat-testkit is a tool, \
                       not part of the product";
        check("musterbeat-db", TESTKIT, DependencyKind::Normal, &[message]);
        let message = "musterbeat-testkit -> musterbeat-db (normal): musterbeat-testkit knows only \
                       musterbeat-embedded";
        check(TESTKIT, "musterbeat-db", DependencyKind::Normal, &[message]);
    }

    #[test]
    fn embedded_knows_none_of_ours_and_server_names_no_sqlx() {
        let message = "musterbeat-embedded -> musterbeat-core (normal): musterbeat-embedded knows \
                       none of our crates";
        check("musterbeat-embedded", "musterbeat-core", DependencyKind::Normal, &[message]);
        let message = "musterbeat-server -> sqlx (normal): musterbeat-server must not name sqlx";
        check("musterbeat-server", "sqlx", DependencyKind::Normal, &[message]);
    }

    #[test]
    fn a_new_crate_needs_a_place() {
        let found = declared(&[edge("musterbeat-new", "serde", DependencyKind::Normal)]);
        assert!(found[0].starts_with("musterbeat-new: has no place"), "{found:?}");
    }

    #[test]
    fn a_forbidden_package_is_shown_with_its_path() {
        let tree = "0 musterbeat-core v0.1.0\n1 serde v1.0\n1 foo v1.0\n2 tokio v1.54\n1 uuid v1.0";
        let rule = &RULES[0];
        let expected = "musterbeat-core -> foo -> tokio: musterbeat-core must not contain tokio";
        assert_eq!(reached(rule, tree), [expected]);
    }

    #[test]
    fn comments_may_name_sqlx() {
        let source = "//! Unlike sqlx::query.\nuse sqlx::query;\nlet a = 1; // sqlx::query\n";
        assert_eq!(lines_naming_sqlx(source), [2]);
    }

    fn check(from: &str, to: &str, kind: DependencyKind, expected: &[&str]) {
        assert_eq!(declared(&[edge(from, to, kind)]), expected);
    }

    fn edge(from: &str, to: &str, kind: DependencyKind) -> Edge {
        Edge { from: from.into(), to: to.into(), kind }
    }
}
