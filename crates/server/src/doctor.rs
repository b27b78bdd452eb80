//! `musterbeat doctor`: what is wrong with the database, and what to do about it.

use std::cmp::Reverse;
use std::fmt::Write as _;

use anyhow::Context;
use musterbeat_core::finding::{Finding, Severity};
use secrecy::ExposeSecret;
use serde_json::json;

use crate::database::OWN_DATABASE;
use crate::settings::Settings;

/// Exit code when a check found an error.
pub(crate) const EXIT_ERROR: u8 = 1;

/// Exit code when there was nothing to examine.
pub(crate) const EXIT_UNEXAMINED: u8 = 2;

/// Connections of a replica beside its pool: for beats, listening, publishing and leading.
const BESIDE_POOL: u32 = 4;

/// Longest line of a report, in characters.
const WIDTH: usize = 100;

/// What an examination found, the worst first.
#[derive(Debug)]
pub(crate) struct Report {
    /// The database, without its password.
    place: String,
    findings: Vec<Finding>,
}

/// Examines the database that is set, or the own PostgreSQL of a server that runs.
///
/// Nothing is migrated, written or started.
///
/// # Errors
/// When there is no database to connect to.
pub(crate) async fn examine(settings: &Settings) -> anyhow::Result<Report> {
    let url = match &settings.database_url {
        Some(url) => url.expose_secret().to_owned(),
        None => musterbeat_embedded::running(&settings.data_dir)?
            .with_context(|| {
                format!(
                    "no `database_url` is set, and the own PostgreSQL in {} does not run; \
                     start the server, or name a database",
                    settings.data_dir.display()
                )
            })?
            .url(OWN_DATABASE),
    };
    let limits = musterbeat_db::doctor::Limits {
        connections_per_replica: settings.pool_max.get().saturating_add(BESIDE_POOL),
        ..musterbeat_db::doctor::Limits::default()
    };
    let examined = musterbeat_db::doctor::examine(&url, &limits).await?;
    let limits = musterbeat_pubsub::doctor::Limits::default();
    let notices = musterbeat_pubsub::doctor::examine(&url, &limits).await;
    let findings = notices.into_iter().chain(examined.findings).collect();
    Ok(Report::new(examined.place, findings))
}

impl Report {
    fn new(place: String, mut findings: Vec<Finding>) -> Self {
        findings.sort_by_key(|finding| Reverse(finding.verdict.severity));
        Self { place, findings }
    }

    /// Returns the exit code: warnings are no failure.
    pub(crate) fn exit_code(&self) -> u8 {
        if self.count(Severity::Error) > 0 { EXIT_ERROR } else { 0 }
    }

    fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.verdict.severity == severity).count()
    }

    /// Returns the report for people.
    pub(crate) fn text(&self) -> String {
        let check_width = self.findings.iter().map(|finding| finding.check.len()).max();
        let check_width = check_width.unwrap_or(0);
        let mut text = format!("Examined {}.\n\n", self.place);
        for Finding { check, verdict } in &self.findings {
            let head = format!("{:7}  {check:check_width$}  ", verdict.severity);
            let indent = " ".repeat(head.len());
            let remedy = format!("Remedy: {}", verdict.remedy);
            let found = wrapped(&verdict.found, WIDTH.saturating_sub(head.len()));
            let _ = writeln!(text, "{head}{}", found.join(&format!("\n{indent}")));
            if !verdict.remedy.is_empty() {
                let indent = format!("{indent}  ");
                for line in wrapped(&remedy, WIDTH.saturating_sub(indent.len())) {
                    let _ = writeln!(text, "{indent}{line}");
                }
            }
        }
        let (errors, warnings) = (self.count(Severity::Error), self.count(Severity::Warning));
        let _ = writeln!(
            text,
            "\nChecks: {}, errors: {errors}, warnings: {warnings}.",
            self.findings.len()
        );
        text
    }

    /// Returns the report for programs, as one JSON document.
    pub(crate) fn json(&self) -> String {
        let worst = self.findings.iter().map(|finding| finding.verdict.severity).max();
        let report = json!({
            "database": self.place,
            "worst": worst.unwrap_or(Severity::Ok),
            "findings": self.findings,
        });
        format!("{report:#}\n")
    }
}

/// Breaks `text` between words into lines of at most `width` characters, if its words allow it.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.last_mut().expect("there is always a line");
        if last.is_empty() {
            last.push_str(word);
        } else if last.chars().count() + 1 + word.chars().count() <= width {
            last.push(' ');
            last.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use musterbeat_core::finding::Verdict;

    use super::*;

    #[test]
    fn the_worst_comes_first_with_its_remedy_below() {
        expect![[r#"
            Examined db.example:5432/app.

            error    standby        The server is a standby, which takes no writes and refuses LISTEN, and goes
                                    on saying so.
                                      Remedy: Let `database_url` lead to the primary.
            warning  clock-skew     It is late.
                                      Remedy: Set the clock.
            ok       encoding       Good.
            ok       held-for-long  Nothing.

            Checks: 4, errors: 1, warnings: 1.
        "#]]
        .assert_eq(&report().text());
    }

    #[test]
    fn programs_read_the_same_in_the_same_order() {
        let json: serde_json::Value = serde_json::from_str(&report().json()).unwrap();
        assert_eq!(
            (&json["database"], &json["worst"]),
            (&"db.example:5432/app".into(), &"error".into())
        );
        let checks: Vec<_> =
            json["findings"].as_array().unwrap().iter().map(|finding| &finding["check"]).collect();
        assert_eq!(checks, ["standby", "clock-skew", "encoding", "held-for-long"]);
        assert_eq!(json["findings"][0]["severity"], "error");
    }

    #[test]
    fn only_errors_fail() {
        assert_eq!(report().exit_code(), 1);
        let mut harmless = report();
        harmless.findings.remove(0);
        assert_eq!(harmless.exit_code(), 0, "a warning is no failure");
    }

    fn report() -> Report {
        let error = "The server is a standby, which takes no writes and refuses LISTEN, \
                     and goes on saying so.";
        let findings = vec![
            Finding { check: "encoding", verdict: Verdict::ok("Good.") },
            Finding {
                check: "clock-skew",
                verdict: Verdict::warning("It is late.", "Set the clock."),
            },
            Finding { check: "held-for-long", verdict: Verdict::ok("Nothing.") },
            Finding {
                check: "standby",
                verdict: Verdict::error(error, "Let `database_url` lead to the primary."),
            },
        ];
        Report::new("db.example:5432/app".to_owned(), findings)
    }
}
