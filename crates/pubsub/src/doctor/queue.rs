//! The queue of notifications: how full, and who keeps it from being emptied.
//!
//! It is one for all databases of a server, and as long as its slowest listener is behind.

use std::time::Duration;

use musterbeat_core::finding::Verdict;
use sqlx::Row;
use sqlx::postgres::PgConnectOptions;

use super::Limits;
use super::question::{Failure, rows};

/// As many culprits are named as a reader takes in.
const NAMED_MAX: usize = 5;

pub(crate) async fn usage(options: &PgConnectOptions, limits: &Limits) -> Result<Verdict, Failure> {
    const USAGE: &str = "select pg_notification_queue_usage()::float8 as usage";
    let rows = rows(options, limits.answer_time, USAGE).await?;
    let usage = rows.first().ok_or(sqlx::Error::RowNotFound)?.try_get("usage")?;
    if usage < limits.queue_usage_warning {
        return Ok(judge_usage(usage, &[], limits));
    }
    Ok(judge_usage(usage, &pins(options, limits).await?, limits))
}

fn judge_usage(usage: f64, pins: &[Pin], limits: &Limits) -> Verdict {
    let found = format!("The queue of notifications is {:.1} % full", usage * 100.0);
    if usage < limits.queue_usage_warning {
        return Verdict::ok(format!("{found}."));
    }
    let found = match pins {
        [] => format!("{found}, and no session is seen that keeps it."),
        pins => format!("{found}, kept by {}.", named(pins)),
    };
    let remedy = match pins {
        [] => "Look in PostgreSQL's log for the process with the oldest transaction, and end it."
            .to_owned(),
        pins => remedy(pins),
    };
    if usage < limits.queue_usage_error {
        return Verdict::warning(found, remedy);
    }
    Verdict::error(format!("{found} When it is full, each commit that notifies fails."), remedy)
}

pub(super) async fn pinned(
    options: &PgConnectOptions,
    limits: &Limits,
) -> Result<Verdict, Failure> {
    let pins = pins(options, limits).await?;
    Ok(if pins.is_empty() {
        Verdict::ok("No session keeps the queue of notifications.")
    } else {
        Verdict::warning(
            format!("These keep the queue of notifications if they listen: {}.", named(&pins)),
            remedy(&pins),
        )
    })
}

/// A session that takes no notifications.
#[derive(Clone, Debug, PartialEq)]
struct Pin {
    pid: i32,
    /// Role, database and name of the application.
    who: String,
    cause: Cause,
    /// Since the session's state last changed.
    since: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// Its client pauses inside a transaction.
    IdleInTransaction,
    /// Its client does not read, though the session has nothing else to do than to notify it.
    Deaf,
}

/// Finds the sessions that take no notifications; a deaf client is deaf at two looks.
async fn pins(options: &PgConnectOptions, limits: &Limits) -> Result<Vec<Pin>, Failure> {
    let first = look(options, limits).await?;
    if first.iter().all(|pin| pin.cause != Cause::Deaf) {
        return Ok(first);
    }
    tokio::time::sleep(limits.stuck_time).await;
    let was_deaf =
        |pin: &Pin| first.iter().any(|past| (past.pid, past.cause) == (pin.pid, pin.cause));
    let mut second = look(options, limits).await?;
    second.retain(|pin| pin.cause != Cause::Deaf || was_deaf(pin));
    Ok(second)
}

/// A session that is between statements waits for its client to speak; one that waits for its
/// client to read is sending notifications. Those of our own database come first.
const LOOK: &str = "
    select
        pid,
        format('%s in %s (%s)', usename, datname,
            coalesce(nullif(application_name, ''), 'without a name')) as who,
        state = 'idle' as deaf,
        extract(epoch from clock_timestamp() - state_change)::float8 as seconds
    from pg_stat_activity
    where backend_type = 'client backend'
      and pid <> pg_backend_pid()
      and (
        state in ('idle in transaction', 'idle in transaction (aborted)')
        or (state = 'idle' and wait_event = 'ClientWrite')
      )
    order by datname = current_database() desc, state_change";

async fn look(options: &PgConnectOptions, limits: &Limits) -> Result<Vec<Pin>, Failure> {
    let mut pins = Vec::new();
    for row in rows(options, limits.answer_time, LOOK).await? {
        let seconds: f64 = row.try_get("seconds")?;
        let is_deaf: bool = row.try_get("deaf")?;
        pins.push(Pin {
            pid: row.try_get("pid")?,
            who: row.try_get("who")?,
            cause: if is_deaf { Cause::Deaf } else { Cause::IdleInTransaction },
            since: Duration::from_secs_f64(seconds.max(0.0)),
        });
    }
    pins.retain(|pin| pin.cause == Cause::Deaf || pin.since > limits.idle_in_transaction_max);
    Ok(pins)
}

fn named(pins: &[Pin]) -> String {
    let name = |pin: &Pin| {
        let (pid, who, seconds) = (pin.pid, &pin.who, pin.since.as_secs());
        match pin.cause {
            Cause::IdleInTransaction => {
                format!("session {pid} of {who}, idle in transaction for {seconds} s")
            }
            Cause::Deaf => {
                format!("session {pid} of {who}, whose client reads nothing (idle for {seconds} s)")
            }
        }
    };
    let mut names: Vec<_> = pins.iter().take(NAMED_MAX).map(name).collect();
    if pins.len() > NAMED_MAX {
        names.push(format!("{} more", pins.len() - NAMED_MAX));
    }
    names.join("; ")
}

fn remedy(pins: &[Pin]) -> String {
    let ends: Vec<_> = pins
        .iter()
        .take(NAMED_MAX)
        .map(|pin| format!("`select pg_terminate_backend({})`", pin.pid))
        .collect();
    let has = |cause| pins.iter().any(|pin| pin.cause == cause);
    let mut settings = Vec::new();
    if has(Cause::IdleInTransaction) {
        settings.push("`idle_in_transaction_session_timeout`");
    }
    if has(Cause::Deaf) {
        settings.push("`tcp_user_timeout`");
    }
    let (ends, settings) = (ends.join(", "), settings.join(" and "));
    format!("End them with {ends}; {settings} for such clients keeps it from coming again.")
}

#[cfg(test)]
mod tests {
    use musterbeat_core::finding::Severity;

    use super::*;

    #[test]
    fn a_tenth_of_the_queue_is_a_warning_and_half_an_error() {
        let judged = |usage| judge_usage(usage, &[], &Limits::default()).severity;
        assert_eq!(judged(0.09), Severity::Ok);
        assert_eq!(judged(0.1), Severity::Warning);
        assert_eq!(judged(0.5), Severity::Error);
    }

    #[test]
    fn who_keeps_the_queue_is_named_with_what_ends_it() {
        let pin = |pid, cause| Pin {
            pid,
            who: "app in db (psql)".to_owned(),
            cause,
            since: Duration::from_secs(90),
        };
        let pins = [pin(7, Cause::IdleInTransaction), pin(8, Cause::Deaf)];
        let verdict = judge_usage(0.25, &pins, &Limits::default());
        let expected = "The queue of notifications is 25.0 % full, kept by \
                        session 7 of app in db (psql), idle in transaction for 90 s; \
                        session 8 of app in db (psql), whose client reads nothing (idle for 90 s).";
        assert_eq!(verdict.found, expected);
        let expected = "End them with `select pg_terminate_backend(7)`, \
                        `select pg_terminate_backend(8)`; `idle_in_transaction_session_timeout` \
                        and `tcp_user_timeout` for such clients keeps it from coming again.";
        assert_eq!(verdict.remedy, expected);
    }
}
