//! Who is connected, who may be, and who can be seen.

use musterbeat_core::finding::Verdict;
use sqlx::Row;

use super::Limits;
use super::session::{Failure, Session};

/// What there is to share.
struct Facts {
    /// Replicas whose lease is not marked dead.
    replicas: i64,
    /// Connections for roles that are not reserved for.
    available: i64,
    /// Sessions that are not ours.
    others: i64,
}

/// Counts sessions that our role may not see as others'; background processes have no database
/// or a type of their own.
const SHARES: &str = "
    select
        current_setting('max_connections')::bigint
            - current_setting('superuser_reserved_connections')::bigint
            - coalesce(current_setting('reserved_connections', true), '0')::bigint as available,
        (
            select count(*)
            from pg_stat_activity
            where datname is not null
              and leader_pid is null
              and coalesce(backend_type, 'client backend') = 'client backend'
              and not (datname = current_database() and application_name like 'musterbeat%')
        ) as others";

pub(super) async fn needed(session: &mut Session, limits: &Limits) -> Result<Verdict, Failure> {
    let live =
        session.rows_if_there("select count(*) as live from worker_leases where not dead").await?;
    let replicas = match live.as_deref().and_then(<[_]>::first) {
        Some(row) => row.try_get("live")?,
        None => 0,
    };
    let row = session.row(SHARES).await?;
    let (available, others) = (row.try_get("available")?, row.try_get("others")?);
    Ok(judge(&Facts { replicas, available, others }, limits.connections_per_replica))
}

fn judge(facts: &Facts, each: u32) -> Verdict {
    // One that is to start needs as many.
    let replicas = facts.replicas.max(1);
    let needed = replicas.saturating_mul(i64::from(each));
    let Facts { available, others, .. } = facts;
    let found = format!(
        "Replicas: {replicas}, with up to {each} connections each; \
         the server has {available} for all, and others hold {others}"
    );
    let remedy =
        || "Lower `pool_max`, or raise `max_connections`, which takes a restart of PostgreSQL.";
    if needed > *available {
        return Verdict::error(format!("{found}: they are too few."), remedy());
    }
    if needed + others > *available {
        return Verdict::warning(format!("{found}: they are too few for both."), remedy());
    }
    Verdict::ok(format!("{found}."))
}

pub(super) async fn visibility(session: &mut Session) -> Result<Verdict, Failure> {
    let row = session
        .row(
            "select
                current_user::text as role,
                count(*) filter (where query = '<insufficient privilege>') as hidden
             from pg_stat_activity",
        )
        .await?;
    let hidden: i64 = row.try_get("hidden")?;
    if hidden == 0 {
        return Ok(Verdict::ok("Every session can be examined."));
    }
    let role: String = row.try_get("role")?;
    Ok(Verdict::warning(
        format!("What other roles' sessions do is hidden from the role {role}: {hidden} of them."),
        format!("Run `grant pg_read_all_stats to \"{role}\"`, and examine again."),
    ))
}

#[cfg(test)]
mod tests {
    use musterbeat_core::finding::Severity::{Error, Ok, Warning};

    use super::*;

    #[test]
    fn replicas_and_others_share_what_the_server_has() {
        let judged = |replicas, available, others| {
            judge(&Facts { replicas, available, others }, 14).severity
        };
        assert_eq!(judged(0, 14, 0), Ok);
        assert_eq!(judged(0, 13, 0), Error, "one is about to start");
        assert_eq!(judged(6, 97, 13), Ok);
        assert_eq!(judged(6, 97, 14), Warning);
        assert_eq!(judged(7, 97, 0), Error);
    }
}
