//! What the program of an MCP server inherits of this process's environment.

use std::ffi::{OsStr, OsString};

/// Variables that programs need to find their way about.
///
/// A list of what is kept, and not of what is hidden: the keys of model providers stand in
/// variables of any name.
const KEPT: [&str; 9] =
    ["HOME", "LANG", "LOGNAME", "PATH", "SHELL", "TERM", "TMPDIR", "TZ", "USER"];

/// Begins the names of those that say how to write numbers and dates.
const KEPT_PREFIX: &str = "LC_";

/// Variables that hold the server's own secrets, and what they begin with.
const OWN: [&str; 2] = ["DATABASE_URL", "PGPASSWORD"];
const OWN_PREFIX: &str = "MUSTERBEAT_";

/// Returns what a program inherits of `variables`: what programs need, and what `wanted` names.
pub(super) fn inherited(
    variables: impl Iterator<Item = (OsString, OsString)>,
    wanted: &[String],
) -> impl Iterator<Item = (OsString, OsString)> {
    variables.filter(|(name, _)| is_kept(name) || wanted.iter().any(|each| name == each.as_str()))
}

/// Says whether the variable is the server's own, and inherited by nobody.
pub(super) fn is_own(name: &str) -> bool {
    name.starts_with(OWN_PREFIX) || OWN.contains(&name)
}

fn is_kept(name: &OsStr) -> bool {
    let name = name.to_str().unwrap_or_default();
    name.starts_with(KEPT_PREFIX) || KEPT.contains(&name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_needed_or_wanted_is_inherited() {
        let names = [
            "PATH",
            "LC_TIME",
            "DATABASE_URL",
            "GITHUB_TOKEN",
            "MUSTERBEAT_CLUSTER_SECRET",
            "OPENAI_API_KEY",
            "PATHS",
        ];
        let variables = names.map(|name| (OsString::from(name), OsString::from("x")));
        let wanted = ["GITHUB_TOKEN".to_owned()];
        let names: Vec<_> =
            inherited(variables.into_iter(), &wanted).map(|(name, _)| name).collect();
        assert_eq!(names, ["PATH", "LC_TIME", "GITHUB_TOKEN"]);
    }
}
