//! Which tools of an MCP server are offered.

use musterbeat_core::invalid::Invalid;

/// Patterns of one list, at most.
pub const PATTERNS_MAX: usize = 256;

/// Bytes of a pattern, at most.
pub const PATTERN_BYTES_MAX: usize = 256;

/// Which tools of an MCP server are offered: exact names, and beginnings that end with `*`.
///
/// `*` alone allows all, and has to be written: a server that gains a tool gains it for every
/// chat.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allow(Vec<Pattern>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Pattern {
    Name(String),
    Beginning(String),
}

impl Allow {
    /// Takes 1 to [`PATTERNS_MAX`] patterns.
    ///
    /// # Errors
    /// Names the pattern that is empty, longer than [`PATTERN_BYTES_MAX`] bytes, or has a `*`
    /// before its end.
    pub fn new(patterns: &[String]) -> Result<Self, Invalid> {
        if !(1..=PATTERNS_MAX).contains(&patterns.len()) {
            let reason = format!(
                "has {} patterns, from 1 to {PATTERNS_MAX} are allowed: name tools, or write \
                 [\"*\"] for all",
                patterns.len()
            );
            return Err(Invalid::new("allow", reason));
        }
        let parsed = patterns.iter().enumerate();
        parsed.map(|(index, text)| Pattern::parse(index, text)).collect::<Result<_, _>>().map(Self)
    }

    /// Allows every tool.
    pub fn all() -> Self {
        Self(vec![Pattern::Beginning(String::new())])
    }

    /// Says whether the tool that its server calls `name` is offered.
    pub fn permits(&self, name: &str) -> bool {
        self.0.iter().any(|pattern| pattern.matches(name))
    }

    /// Returns the exact names that are not among `names`, for those who mistype them.
    pub(super) fn missing<'a>(&'a self, names: &[&str]) -> Vec<&'a str> {
        let exact = self.0.iter().filter_map(|pattern| match pattern {
            Pattern::Name(name) => Some(name.as_str()),
            Pattern::Beginning(_) => None,
        });
        exact.filter(|name| !names.contains(name)).collect()
    }
}

impl Pattern {
    fn parse(index: usize, text: &str) -> Result<Self, Invalid> {
        let refused = |reason: String| Err(Invalid::new(format!("allow[{index}]"), reason));
        if text.is_empty() || text.len() > PATTERN_BYTES_MAX {
            let bytes = text.len();
            return refused(format!(
                "has {bytes} bytes, from 1 to {PATTERN_BYTES_MAX} are allowed"
            ));
        }
        match text.split_once('*') {
            None => Ok(Self::Name(text.to_owned())),
            Some((beginning, "")) => Ok(Self::Beginning(beginning.to_owned())),
            Some(_) => {
                refused("has a `*` before its end, and is allowed one at its end".to_owned())
            }
        }
    }

    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Name(exact) => name == exact,
            Self::Beginning(beginning) => name.starts_with(beginning),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allow(patterns: &[&str]) -> Result<Allow, Invalid> {
        Allow::new(&patterns.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn names_and_beginnings_permit() {
        let allow = allow(&["search", "read_*"]).unwrap();
        let names = ["search", "searches", "read_", "read_file", "reads", "write_file", ""];
        let permitted: Vec<_> = names.into_iter().filter(|name| allow.permits(name)).collect();
        assert_eq!(permitted, ["search", "read_", "read_file"]);
        assert_eq!(allow.missing(&["searches", "read_file"]), ["search"]);
        assert!(Allow::all().permits("anything"));
    }

    #[test]
    fn what_permits_nothing_or_too_much_is_refused() {
        let refusal = |patterns: &[&str]| allow(patterns).unwrap_err().to_string();
        let none = "allow: has 0 patterns, from 1 to 256 are allowed: name tools, or write [\"*\"] \
                    for all";
        assert_eq!(refusal(&[]), none);
        assert_eq!(refusal(&["a", ""]), "allow[1]: has 0 bytes, from 1 to 256 are allowed");
        let inner = "allow[0]: has a `*` before its end, and is allowed one at its end";
        assert_eq!(refusal(&["*_file"]), inner);
        assert_eq!(refusal(&["**"]), inner);
        assert!(refusal(&[&"a".repeat(257)]).contains("has 257 bytes"));
    }
}
