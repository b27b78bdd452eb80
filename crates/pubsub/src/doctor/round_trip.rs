//! Whether a notification comes through.

use std::time::Duration;

use musterbeat_core::finding::Verdict;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};
use tokio::time::{Instant, timeout};
use uuid::Uuid;

use super::Limits;
use super::question::{Failure, answer, row};

const REMEDY: &str = "Let `database_url` lead to PostgreSQL itself, or set the pooler to \
     `pool_mode = session` for this database.";

pub(super) async fn examine(
    options: &PgConnectOptions,
    limits: &Limits,
) -> Result<Verdict, Failure> {
    // Asked first, since LISTEN would stay behind in a session that belongs to somebody else.
    if sessions_are_shared(options, limits.answer_time).await? {
        return Ok(Verdict::error(
            "A pooler in transaction mode stands before the database: LISTEN succeeds there, \
             and nothing ever arrives.",
            REMEDY,
        ));
    }
    Ok(judge(travel_time(options, limits).await?, limits))
}

fn judge(travelled: Option<Duration>, limits: &Limits) -> Verdict {
    match travelled {
        Some(time) => {
            Verdict::ok(format!("A notification arrived after {:.1} ms.", time.as_secs_f64() * 1e3))
        }
        None => Verdict::error(
            format!(
                "LISTEN and NOTIFY succeeded, and the notification did not arrive within {} s, \
                 as with a pooler in transaction mode.",
                limits.round_trip_max.as_secs_f32()
            ),
            REMEDY,
        ),
    }
}

/// Says whether what seems to be one session is served by several, or several by one.
///
/// While the other client is inside a transaction, nobody else is given its session.
async fn sessions_are_shared(options: &PgConnectOptions, limit: Duration) -> Result<bool, Failure> {
    let mut ours = answer(limit, PgConnection::connect_with(options)).await?;
    let mut other = answer(limit, PgConnection::connect_with(options)).await?;
    let before = pid(&mut ours, limit, "select pg_backend_pid() as pid").await?;
    let taken = pid(&mut other, limit, "begin; select pg_backend_pid() as pid").await?;
    let shared =
        taken == before || pid(&mut ours, limit, "select pg_backend_pid() as pid").await? != before;
    pid(&mut other, limit, "select pg_backend_pid() as pid; commit").await?;
    for conn in [ours, other] {
        let _ = answer(limit, conn.close()).await;
    }
    Ok(shared)
}

async fn pid(conn: &mut PgConnection, limit: Duration, sql: &'static str) -> Result<i32, Failure> {
    Ok(row(conn, limit, sql).await?.try_get("pid")?)
}

/// Sends a notification from one session to another; `None` when it does not arrive in time.
///
/// Not to itself: a pooler may bring the two statements of one client together.
async fn travel_time(
    options: &PgConnectOptions,
    limits: &Limits,
) -> Result<Option<Duration>, Failure> {
    let limit = limits.answer_time;
    let pool = PgPoolOptions::new().max_connections(2).connect_lazy_with(options.clone());
    let mut listener = answer(limit, PgListener::connect_with(&pool)).await?;
    // A pooler may bring to the sender what is meant for the listener.
    let mut sender = answer(limit, PgListener::connect_with(&pool)).await?;
    let channel = format!("musterbeat_doctor_{}", Uuid::now_v7().simple());
    answer(limit, listener.listen(&channel)).await?;

    let sent = Instant::now();
    let notify = format!("select pg_notify('{channel}', '')");
    answer(limit, sqlx::raw_sql(AssertSqlSafe(notify)).execute(&mut sender)).await?;
    let arrived = timeout(limits.round_trip_max, listener.try_recv()).await;
    let travelled = sent.elapsed();

    let _ = answer(limit, listener.unlisten_all()).await;
    drop((listener, sender));
    let _ = timeout(limit, pool.close()).await;
    match arrived {
        Err(_) => Ok(None),
        Ok(Ok(Some(_))) => Ok(Some(travelled)),
        Ok(Ok(None)) => Err(sqlx::Error::WorkerCrashed.into()),
        Ok(Err(error)) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use musterbeat_core::finding::Severity;
    use musterbeat_testkit::{PgBouncer, TestDatabase};

    use super::*;

    /// What is asked first may miss a pooler whose sessions many clients move about.
    #[tokio::test]
    async fn nothing_arrives_through_a_pooler_and_no_channel_stays() {
        if !PgBouncer::is_here().await.unwrap() {
            return;
        }
        let database = TestDatabase::create().await.unwrap();
        let pooler = PgBouncer::in_front_of(database.url()).await.unwrap();
        let options = PgConnectOptions::from_str(pooler.url()).unwrap().extra_float_digits(None);
        let limits = Limits { round_trip_max: Duration::from_millis(500), ..Limits::default() };
        let travelled = travel_time(&options, &limits).await.unwrap();
        let verdict = judge(travelled, &limits);
        assert_eq!(verdict.severity, Severity::Error);
        assert!(verdict.found.contains("did not arrive within 0.5 s"), "{verdict:?}");
        assert!(verdict.remedy.contains("pool_mode = session"), "{verdict:?}");

        let mut next = PgConnection::connect_with(&options).await.unwrap();
        let heard = sqlx::raw_sql("select from pg_listening_channels()").fetch_all(&mut next).await;
        assert!(heard.unwrap().is_empty());
    }
}
