//! The version of a PostgreSQL.

use std::fmt;

/// The oldest PostgreSQL that is supported.
pub(crate) const OLDEST_MAJOR: u32 = 15;

/// A version of PostgreSQL, such as 15.18.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    /// The release line; data folders of different majors do not mix.
    pub major: u32,
    /// The patch level within the line, 0 for a development build.
    pub minor: u32,
}

impl Version {
    /// Reads the answer of `postgres --version`; `None` when it names no version.
    pub(crate) fn parse(answer: &str) -> Option<Self> {
        let (_, rest) = answer.split_once("(PostgreSQL) ")?;
        let mut parts = rest.split_whitespace().next()?.split('.');
        Some(Self {
            major: leading_number(parts.next()?)?,
            minor: parts.next().and_then(leading_number).unwrap_or(0),
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Reads `18` from `18devel`.
fn leading_number(text: &str) -> Option<u32> {
    let end = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    text[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_every_kind_of_build() {
        check("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n", Some("15.18"));
        check("postgres (PostgreSQL) 18.6\n", Some("18.6"));
        check("postgres (PostgreSQL) 19devel\n", Some("19.0"));
        check("postgres (PostgreSQL) 9.6.24\n", Some("9.6"));
        check("command not found", None);
    }

    fn check(answer: &str, version: Option<&str>) {
        assert_eq!(Version::parse(answer).map(|found| found.to_string()).as_deref(), version);
    }
}
