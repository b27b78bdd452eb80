//! What an examination found, in the words of those who act on it.

use std::fmt;

use serde::Serialize;

/// How bad something is; what is worse is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// As it should be.
    Ok,
    /// Works, and costs something or may fail later.
    Warning,
    /// Does not work, or may lose data.
    Error,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// What a check concludes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// How bad it is.
    pub severity: Severity,
    /// What was found, in one sentence.
    pub found: String,
    /// What to do about it, in one sentence; empty when all is well.
    pub remedy: String,
}

impl Verdict {
    /// Tells that all is well.
    pub fn ok(found: impl Into<String>) -> Self {
        Self { severity: Severity::Ok, found: found.into(), remedy: String::new() }
    }

    /// Tells what costs something or may fail later.
    pub fn warning(found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, found: found.into(), remedy: remedy.into() }
    }

    /// Tells what does not work or may lose data.
    pub fn error(found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { severity: Severity::Error, found: found.into(), remedy: remedy.into() }
    }
}

/// The verdict of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Name of the check in kebab-case, the same in each release.
    pub check: &'static str,
    /// What it concludes.
    #[serde(flatten)]
    pub verdict: Verdict,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_worse_than_a_warning_and_that_than_nothing() {
        let worst = [Severity::Warning, Severity::Error, Severity::Ok].into_iter().max();
        assert_eq!(worst, Some(Severity::Error));
        assert!(Severity::Ok < Severity::Warning);
    }

    #[test]
    fn a_program_reads_the_same_words() {
        let verdict = Verdict::warning("It is late.", "Set the clock.");
        let finding = Finding { check: "clock-skew", verdict };
        let expected = serde_json::json!({
            "check": "clock-skew", "severity": "warning",
            "found": "It is late.", "remedy": "Set the clock.",
        });
        assert_eq!(serde_json::to_value(finding).unwrap(), expected);
    }
}
