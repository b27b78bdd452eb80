//! The server itself: version, role, encoding, clock.

use std::time::Duration;

use musterbeat_core::finding::Verdict;
use sqlx::Row;
use time::OffsetDateTime;

use super::Limits;
use super::session::{Failure, Session};

/// Major versions that the tests run on.
const MAJOR_MIN: i32 = 15;
const MAJOR_MAX: i32 = 18;

/// The first minor releases in which `LISTEN` cannot meet a transaction whose status is gone.
const LISTEN_MENDED: [(i32, i32); 4] = [(15, 16), (16, 12), (17, 8), (18, 2)];

pub(super) async fn version(session: &mut Session) -> Result<Verdict, Failure> {
    let row =
        session.row("select current_setting('server_version_num')::integer as number").await?;
    Ok(judge_version(row.try_get("number")?))
}

/// Judges a number such as 150018, which is 15.18.
fn judge_version(number: i32) -> Verdict {
    let (major, minor) = (number / 10_000, number % 10_000);
    let found = format!("PostgreSQL {major}.{minor}");
    if major < MAJOR_MIN {
        return Verdict::error(
            format!("{found} is older than what musterbeat is made for."),
            format!("Upgrade to PostgreSQL {MAJOR_MIN} to {MAJOR_MAX}."),
        );
    }
    if major > MAJOR_MAX {
        return Verdict::warning(
            format!("{found} is newer than what this release was tested with."),
            format!(
                "Take PostgreSQL {MAJOR_MIN} to {MAJOR_MAX}, or a newer release of musterbeat."
            ),
        );
    }
    if LISTEN_MENDED.iter().any(|(of, mended)| *of == major && minor < *mended) {
        return Verdict::warning(
            format!(
                "{found} has a fault by which LISTEN may fail with \
                 \"could not access status of transaction\"."
            ),
            "Install the latest minor release.",
        );
    }
    Verdict::ok(format!("{found} is supported."))
}

pub(super) async fn standby(session: &mut Session) -> Result<Verdict, Failure> {
    let row = session.row("select pg_is_in_recovery() as standby").await?;
    Ok(judge_standby(row.try_get("standby")?))
}

fn judge_standby(is_standby: bool) -> Verdict {
    if is_standby {
        return Verdict::error(
            "The server is a standby, which takes no writes and refuses LISTEN.",
            "Let `database_url` lead to the primary, by a name that follows it in a failover \
             (what `target_session_attrs=read-write` is for other clients).",
        );
    }
    Verdict::ok("The server is a primary.")
}

pub(super) async fn encoding(session: &mut Session) -> Result<Verdict, Failure> {
    let row = session.row("select current_setting('server_encoding') as encoding").await?;
    let encoding: String = row.try_get("encoding")?;
    let remedy = || "Dump the database and restore it into one made with `encoding 'UTF8' template template0`.";
    Ok(match encoding.as_str() {
        "UTF8" => Verdict::ok("The database's encoding is UTF8."),
        "SQL_ASCII" => Verdict::error(
            "The database's encoding is SQL_ASCII, which takes any bytes and checks none.",
            remedy(),
        ),
        other => Verdict::warning(
            format!("The database's encoding is {other}, which cannot hold every text."),
            remedy(),
        ),
    })
}

pub(super) async fn clock(session: &mut Session, limits: &Limits) -> Result<Verdict, Failure> {
    let before = OffsetDateTime::now_utc();
    let row =
        session.row("select extract(epoch from clock_timestamp())::float8 as seconds").await?;
    let after = OffsetDateTime::now_utc();
    let theirs: f64 = row.try_get("seconds")?;
    Ok(judge_clock(skew(seconds(before), theirs, seconds(after)), limits))
}

fn seconds(time: OffsetDateTime) -> f64 {
    Duration::from_nanos(u64::try_from(time.unix_timestamp_nanos()).unwrap_or(0)).as_secs_f64()
}

/// Returns how far `theirs` is surely ahead of the readings around it, negative when behind.
fn skew(before: f64, theirs: f64, after: f64) -> f64 {
    if theirs > after { theirs - after } else { (theirs - before).min(0.0) }
}

fn judge_clock(skew: f64, limits: &Limits) -> Verdict {
    let word = if skew < 0.0 { "ahead of" } else { "behind" };
    let off = Duration::from_secs_f64(skew.abs());
    let found = format!("This machine's clock is {off:.1?} {word} the database's");
    let remedy = || "Let both machines follow the same time servers.";
    if off >= limits.clock_skew_error {
        let found = format!(
            "{found}: leases hold, since only the database's clock counts for them, \
             but logs, certificates and the times that people compare do not agree."
        );
        return Verdict::error(found, remedy());
    }
    if off >= limits.clock_skew_warning {
        let found = format!(
            "{found}: leases hold, since only the database's clock counts for them, \
             but times in logs do not agree."
        );
        return Verdict::warning(found, remedy());
    }
    Verdict::ok("This machine's clock and the database's agree.")
}

#[cfg(test)]
mod tests {
    use musterbeat_core::finding::Severity::{Error, Ok, Warning};

    use super::*;

    #[test]
    fn versions_are_old_faulty_good_or_unknown() {
        let judged = |number| judge_version(number).severity;
        assert_eq!(judged(140_020), Error);
        assert_eq!((judged(150_015), judged(150_016)), (Warning, Ok));
        assert_eq!((judged(180_001), judged(180_006)), (Warning, Ok));
        assert_eq!(judged(190_000), Warning);
        assert!(judge_version(150_015).found.contains("15.15 has a fault"));
    }

    #[test]
    fn a_standby_is_an_error() {
        let verdict = judge_standby(true);
        assert_eq!(verdict.severity, Error);
        assert!(verdict.remedy.contains("target_session_attrs"), "{}", verdict.remedy);
        assert_eq!(judge_standby(false).severity, Ok);
    }

    #[test]
    fn a_slow_answer_is_no_skew() {
        let check = |theirs: f64, expected: f64| {
            let found = skew(100.0, theirs, 104.0);
            assert!((found - expected).abs() < 1e-9, "{theirs}: {found}");
        };
        check(100.0, 0.0);
        check(104.0, 0.0);
        check(105.5, 1.5);
        check(98.0, -2.0);
    }

    #[test]
    fn skew_of_a_second_is_a_warning_and_of_ten_an_error() {
        let check = |skew, severity, words| {
            let verdict = judge_clock(skew, &Limits::default());
            assert_eq!(verdict.severity, severity, "{skew}");
            assert!(verdict.found.contains(words), "{}", verdict.found);
        };
        check(0.9, Ok, "agree");
        check(1.0, Warning, "1.0s behind");
        check(-1.5, Warning, "1.5s ahead");
        check(-10.0, Error, "10.0s ahead");
    }
}
