//! Whether vacuum works, and what keeps it from working.

use std::time::Duration;

use musterbeat_core::finding::Verdict;
use sqlx::Row;

use super::Limits;
use super::session::{Failure, Session};
use super::tables;

/// As many culprits are named as a reader takes in.
const NAMED_MAX: usize = 3;

pub(super) async fn autovacuum(session: &mut Session) -> Result<Verdict, Failure> {
    let row = session
        .row(
            "select current_setting('autovacuum')::boolean
                and current_setting('track_counts')::boolean as works",
        )
        .await?;
    if !row.try_get::<bool, _>("works")? {
        return Ok(Verdict::error(
            "Autovacuum is off: tables and indexes grow, until the server takes no writes.",
            "Set `autovacuum = on` and `track_counts = on`, and reload.",
        ));
    }
    let is_off = |option: &String| {
        let (name, value) = option.split_once('=').unwrap_or_default();
        name == "autovacuum_enabled" && ["false", "off", "no", "0"].contains(&value)
    };
    let options = tables::options(session).await?;
    let off: Vec<&str> = options
        .iter()
        .filter(|(_, options)| options.iter().any(is_off))
        .map(|(table, _)| table.as_str())
        .collect();
    if off.is_empty() {
        return Ok(Verdict::ok("Autovacuum is on."));
    }
    let reset: Vec<_> = off
        .iter()
        .map(|table| format!("alter table {table} reset (autovacuum_enabled);"))
        .collect();
    Ok(Verdict::warning(
        format!("Autovacuum is off for tables of ours, which grow: {}.", off.join(", ")),
        format!("Run `{}`.", reset.join(" ")),
    ))
}

/// Something that keeps vacuum from removing what was deleted after it began.
#[derive(Debug)]
struct Holder {
    who: String,
    /// A statement that ends it.
    remedy: String,
    /// Unknown for a replication slot, and for sessions that our role may not see.
    age: Option<Duration>,
    xids: i64,
}

/// Sessions with a snapshot or a transaction, but for vacuum itself, which holds up nobody.
const HOLDERS: &str = "
    select
        format('session %s of %s (%s)', pid, usename,
            coalesce(nullif(application_name, ''), 'without a name')) as who,
        format('select pg_terminate_backend(%s)', pid) as remedy,
        extract(epoch from clock_timestamp() - xact_start)::float8 as seconds,
        coalesce(greatest(age(backend_xmin), age(backend_xid)), 0)::bigint as xids
    from pg_stat_activity
    where (backend_xmin is not null or backend_xid is not null)
      and pid <> pg_backend_pid()
      and (datname = current_database() or datname is null)
      and pid not in (select pid from pg_stat_progress_vacuum)
    union all
    select
        format('prepared transaction %L of %s', gid, owner),
        format('rollback prepared %L', gid),
        extract(epoch from clock_timestamp() - prepared)::float8,
        age(transaction)::bigint
    from pg_prepared_xacts
    where database = current_database()
    union all
    select
        format('replication slot %s', slot_name),
        format('select pg_drop_replication_slot(%L)', slot_name),
        null,
        coalesce(greatest(age(xmin), age(catalog_xmin)), 0)::bigint
    from pg_replication_slots
    where xmin is not null or catalog_xmin is not null
    order by xids desc, seconds desc nulls last";

pub(super) async fn held(session: &mut Session, limits: &Limits) -> Result<Verdict, Failure> {
    let mut holders = Vec::new();
    for row in session.rows(HOLDERS).await? {
        let seconds: Option<f64> = row.try_get("seconds")?;
        holders.push(Holder {
            who: row.try_get("who")?,
            remedy: row.try_get("remedy")?,
            age: seconds.map(|seconds| Duration::from_secs_f64(seconds.max(0.0))),
            xids: row.try_get("xids")?,
        });
    }
    Ok(judge_held(&holders, limits))
}

fn judge_held(holders: &[Holder], limits: &Limits) -> Verdict {
    let is_old = |holder: &&Holder| {
        holder.age.is_some_and(|age| age > limits.transaction_age_max)
            || holder.xids > i64::from(limits.transaction_xids_max)
    };
    let old: Vec<_> = holders.iter().filter(is_old).collect();
    if old.is_empty() {
        return Verdict::ok("No old transaction holds up vacuum.");
    }
    let named: Vec<_> = old.iter().take(NAMED_MAX).map(|holder| named(holder)).collect();
    let remedies: Vec<_> =
        old.iter().take(NAMED_MAX).map(|holder| format!("`{}`", holder.remedy)).collect();
    let more = match old.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!(", and {more} more"),
    };
    Verdict::warning(
        format!("Vacuum removes nothing newer than these: {}{more}.", named.join("; ")),
        format!(
            "End what nobody needs: {}; `idle_in_transaction_session_timeout` keeps it from \
             coming again.",
            remedies.join(", ")
        ),
    )
}

fn named(holder: &Holder) -> String {
    match holder.age {
        Some(age) => {
            format!("{} for {} s and {} transactions", holder.who, age.as_secs(), holder.xids)
        }
        None => format!("{} for {} transactions", holder.who, holder.xids),
    }
}

#[cfg(test)]
mod tests {
    use musterbeat_core::finding::Severity;

    use super::*;

    #[test]
    fn what_is_old_by_time_or_by_transactions_is_named() {
        let limits = Limits::default();
        let young = holder("young", Some(Duration::from_mins(5)), 10_000_000);
        assert_eq!(judge_held(&[young], &limits).severity, Severity::Ok);
        let slot = holder("slot", None, 10_000_001);
        let old = holder("old", Some(Duration::from_secs(301)), 0);
        let Verdict { severity, found, remedy } = judge_held(&[slot, old], &limits);
        assert_eq!(severity, Severity::Warning);
        assert!(found.contains("slot for 10000001 transactions; old for 301 s"), "{found}");
        assert!(remedy.contains("`end slot`, `end old`"), "{remedy}");
    }

    #[test]
    fn a_crowd_is_counted() {
        let crowd: Vec<_> = (0..5).map(|_| holder("one", None, i64::MAX)).collect();
        let judged = judge_held(&crowd, &Limits::default());
        assert!(judged.found.ends_with("and 2 more."), "{}", judged.found);
    }

    fn holder(who: &str, age: Option<Duration>, xids: i64) -> Holder {
        Holder { who: who.to_owned(), remedy: format!("end {who}"), age, xids }
    }
}
