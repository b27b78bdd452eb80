//! How many sessions each notification wakes.

use musterbeat_core::finding::Verdict;
use sqlx::Row;
use sqlx::postgres::PgConnectOptions;

use super::Limits;
use super::question::{Failure, rows};

/// From this major version on a notification wakes only those who listen to its channel.
const MAJOR_SELECTIVE: i32 = 19;

/// No catalog tells who listens: those are counted that say so by their name, or by the last
/// statement that they sent.
const LISTENERS: &str = r"
    select
        current_setting('server_version_num')::integer / 10000 as major,
        count(*) filter (
            where application_name = 'musterbeat listener' or query ~* '^\s*listen\M'
        ) as listening,
        count(*) filter (where query = '<insufficient privilege>') as hidden
    from pg_stat_activity
    where datname = current_database()
      and pid <> pg_backend_pid()";

pub(super) async fn examine(
    options: &PgConnectOptions,
    limits: &Limits,
) -> Result<Verdict, Failure> {
    let rows = rows(options, limits.answer_time, LISTENERS).await?;
    let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
    let facts = Facts {
        major: row.try_get("major")?,
        listening: row.try_get("listening")?,
        hidden: row.try_get("hidden")?,
    };
    Ok(judge(&facts, limits))
}

struct Facts {
    major: i32,
    listening: i64,
    /// Sessions whose statements our role may not see.
    hidden: i64,
}

fn judge(facts: &Facts, limits: &Limits) -> Verdict {
    let Facts { major, listening, hidden } = facts;
    let seen = match hidden {
        0 => format!("Sessions seen to listen: {listening}"),
        _ => format!("Sessions seen to listen: {listening}, with {hidden} hidden from this role"),
    };
    if *listening <= i64::from(limits.listeners_max) {
        return Verdict::ok(format!("{seen}."));
    }
    if *major >= MAJOR_SELECTIVE {
        return Verdict::ok(format!("{seen}; each wakes for its own channels only."));
    }
    Verdict::warning(
        format!("{seen}; each notification wakes every one of them, whatever it listens to."),
        "Let one session a process listen for all of it, and give clients that need no \
         notifications of this database none.",
    )
}

#[cfg(test)]
mod tests {
    use musterbeat_core::finding::Severity;

    use super::*;

    #[test]
    fn a_crowd_that_every_notification_wakes_is_a_warning() {
        let judged = |major, listening| {
            judge(&Facts { major, listening, hidden: 0 }, &Limits::default()).severity
        };
        assert_eq!(judged(18, 100), Severity::Ok);
        assert_eq!(judged(18, 101), Severity::Warning);
        assert_eq!(judged(19, 1_000), Severity::Ok);
    }
}
