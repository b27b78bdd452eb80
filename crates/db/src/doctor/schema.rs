//! The schema: as old as this release, older or newer.

use std::collections::BTreeMap;

use musterbeat_core::finding::Verdict;
use sqlx::Row;

use super::session::{Failure, Session};
use crate::MIGRATOR;

/// A migration that was begun on the database.
struct Applied {
    checksum: Vec<u8>,
    success: bool,
}

pub(super) async fn version(session: &mut Session) -> Result<Verdict, Failure> {
    let rows =
        session.rows_if_there("select version, success, checksum from _sqlx_migrations").await?;
    let mut applied = BTreeMap::new();
    for row in rows.unwrap_or_default() {
        let (checksum, success) = (row.try_get("checksum")?, row.try_get("success")?);
        applied.insert(row.try_get::<i64, _>("version")?, Applied { checksum, success });
    }
    let known = MIGRATOR.iter().map(|known| (known.version, known.checksum.to_vec())).collect();
    Ok(judge(&applied, &known))
}

fn judge(applied: &BTreeMap<i64, Applied>, known: &BTreeMap<i64, Vec<u8>>) -> Verdict {
    let edited = |(version, applied): (&i64, &Applied)| {
        known.get(version).is_some_and(|checksum| *checksum != applied.checksum).then_some(*version)
    };
    let failed =
        applied.iter().find_map(|(version, applied)| (!applied.success).then_some(version));
    let missing = known.keys().filter(|version| !applied.contains_key(version)).count();
    let newer = applied.keys().filter(|version| !known.contains_key(version)).count();
    let migrate = || "Run `musterbeat migrate`; a server does the same when it starts.";
    if let Some(version) = failed {
        return Verdict::error(
            format!("The migration {version} was begun and never finished."),
            "Look at what it left, mend it by hand, delete its row from _sqlx_migrations, \
             and run `musterbeat migrate`.",
        );
    }
    if let Some(version) = applied.iter().find_map(edited) {
        return Verdict::error(
            format!("The migration {version} was applied in another form than this release's."),
            "Find out which release applied it, and run that one.",
        );
    }
    if applied.is_empty() {
        return Verdict::warning("The database has no schema yet.", migrate());
    }
    if missing > 0 {
        return Verdict::warning(
            format!("The schema is older than this release: {missing} of its migrations lack."),
            migrate(),
        );
    }
    if newer > 0 {
        return Verdict::warning(
            format!("The schema is newer than this release by migrations: {newer}."),
            "Upgrade this release; it works on the schema of the next one, and of no later one.",
        );
    }
    Verdict::ok("The schema is that of this release.")
}

#[cfg(test)]
mod tests {
    use musterbeat_core::finding::Severity;

    use super::*;

    #[test]
    fn a_schema_is_compared_with_this_release() {
        check("", "no schema");
        check("1", "older");
        check("1 2", "that of this release");
        check("1 2 3", "newer");
        check("1 2!", "never finished");
        check("1 2x", "another form");
    }

    /// Applies migrations to a release that knows 1 and 2; `!` failed, `x` had another text.
    fn check(applied: &str, found: &str) {
        let applied = applied.split(' ').filter(|word| !word.is_empty()).map(|word| {
            let checksum = vec![u8::from(word.ends_with('x'))];
            let version = word.trim_end_matches(['!', 'x']).parse().unwrap();
            (version, Applied { checksum, success: !word.ends_with('!') })
        });
        let known = [1, 2].map(|version| (version, vec![0])).into();
        let verdict = judge(&applied.collect(), &known);
        assert!(verdict.found.contains(found), "{}", verdict.found);
        assert_eq!(verdict.remedy.is_empty(), verdict.severity == Severity::Ok);
    }
}
