//! Each check of the doctor finds the fault that is planted, and says nothing without it.

use std::net::TcpListener;
use std::time::Duration;

use musterbeat_core::finding::{Severity, Verdict};
use musterbeat_pubsub::doctor::{Limits, examine};
use musterbeat_testkit::{PgBouncer, TestDatabase, eventually};
use sqlx::postgres::PgListener;
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};

/// Longest wait for anything; a test that meets it has failed.
const PATIENCE: Duration = Duration::from_mins(1);

/// The defaults, but for a machine that is busy.
fn patient() -> Limits {
    Limits { answer_time: PATIENCE, round_trip_max: PATIENCE, ..Limits::default() }
}

/// The server is shared, and its queue too: what neighbours do with it is theirs.
#[tokio::test]
async fn notifications_that_come_through_are_well() {
    let database = TestDatabase::create().await.unwrap();
    let findings = examine(database.url(), &patient()).await;
    for finding in &findings {
        let of_neighbours = ["notify-queue", "pinned-queue"].contains(&finding.check);
        assert!(finding.verdict.severity == Severity::Ok || of_neighbours, "{finding:?}");
        assert!(!finding.verdict.found.contains(database.name()), "{finding:?}");
    }
    let checks: Vec<_> = findings.iter().map(|finding| finding.check).collect();
    assert_eq!(checks, ["notify", "notify-queue", "pinned-queue", "listeners"]);
    assert!(findings[0].verdict.found.starts_with("A notification arrived after "));
    assert!(findings[1].verdict.found.contains(" % full"), "{findings:?}");
}

#[tokio::test]
async fn a_pooler_in_transaction_mode_is_named_and_keeps_no_channel() {
    if !PgBouncer::is_here().await.unwrap() {
        return;
    }
    let database = TestDatabase::create().await.unwrap();
    let pooler = PgBouncer::in_front_of(database.url()).await.unwrap();
    let verdict = verdict(pooler.url(), "notify", &patient()).await;
    assert_eq!(verdict.severity, Severity::Error);
    assert!(verdict.found.starts_with("A pooler in transaction mode"), "{verdict:?}");
    assert!(verdict.remedy.contains("PostgreSQL itself"), "{verdict:?}");
    assert!(verdict.remedy.contains("pool_mode = session"), "{verdict:?}");

    // The session that a client gets next listens to nothing that it did not ask for.
    let mut next = PgConnection::connect(pooler.url()).await.unwrap();
    let heard = sqlx::raw_sql("select from pg_listening_channels()").fetch_all(&mut next).await;
    assert!(heard.unwrap().is_empty());
}

#[tokio::test]
async fn a_session_that_pauses_in_a_transaction_is_named() {
    let database = TestDatabase::create().await.unwrap();
    let mut idle = database.connect().await.unwrap();
    let pid = pid(&mut idle).await;
    sqlx::raw_sql("listen chats; set application_name = 'forgotten'")
        .execute(&mut idle)
        .await
        .unwrap();
    sqlx::raw_sql("begin").execute(&mut idle).await.unwrap();
    let impatient = Limits { idle_in_transaction_max: Duration::ZERO, ..patient() };
    let verdict = verdict(database.url(), "pinned-queue", &impatient).await;
    assert_eq!(verdict.severity, Severity::Warning);
    let name = format!("in {} (forgotten), idle in transaction", database.name());
    assert!(verdict.found.contains(&name), "{verdict:?}");
    assert!(verdict.remedy.contains(&format!("pg_terminate_backend({pid})")), "{verdict:?}");
    assert!(verdict.remedy.contains("idle_in_transaction_session_timeout"), "{verdict:?}");

    let patient = self::verdict(database.url(), "pinned-queue", &patient()).await;
    assert!(!patient.found.contains(database.name()), "{patient:?}");
}

#[tokio::test]
async fn a_queue_that_fills_names_who_keeps_it() {
    let database = TestDatabase::create().await.unwrap();
    let mut idle = database.connect().await.unwrap();
    let pid = pid(&mut idle).await;
    // The queue belongs to all tests: this database pretends that it is half full.
    let half_full = format!(
        "create schema elsewhere;
         create function elsewhere.pg_notification_queue_usage() returns float8 language sql
             as 'select 0.5::float8';
         alter database {} set search_path = elsewhere, pg_catalog, public;
         listen chats",
        database.name()
    );
    sqlx::raw_sql(AssertSqlSafe(half_full)).execute(&mut idle).await.unwrap();
    sqlx::raw_sql("begin").execute(&mut idle).await.unwrap();
    let limits = Limits { idle_in_transaction_max: Duration::ZERO, ..patient() };
    let full = verdict(database.url(), "notify-queue", &limits).await;
    assert_eq!(full.severity, Severity::Error);
    assert!(full.found.contains("50.0 % full, kept by "), "{full:?}");
    assert!(full.found.contains(&format!("session {pid} of ")), "{full:?}");
    assert!(full.remedy.contains(&format!("pg_terminate_backend({pid})")), "{full:?}");
    let patient = Limits { queue_usage_error: 0.6, ..limits };
    let filling = verdict(database.url(), "notify-queue", &patient).await;
    assert_eq!(filling.severity, Severity::Warning);
}

#[tokio::test]
async fn a_client_that_reads_nothing_is_named() {
    let database = TestDatabase::create().await.unwrap();
    let pool = database.pool().await.unwrap();
    let mut deaf = PgListener::connect_with(&pool).await.unwrap();
    deaf.listen("chats").await.unwrap();
    let pid: i32 =
        sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut deaf).await.unwrap();
    let limits = Limits { stuck_time: Duration::from_millis(10), ..patient() };
    let mut named = Verdict::ok("nothing yet");
    // It takes some before the buffers on the way are full.
    eventually(PATIENCE, "the deaf client is named", async || {
        notify_much(&pool).await;
        named = verdict(database.url(), "pinned-queue", &limits).await;
        named.found.contains(&format!("session {pid} of "))
    })
    .await;
    assert_eq!(named.severity, Severity::Warning);
    assert!(named.found.contains("whose client reads nothing"), "{named:?}");
    assert!(named.remedy.contains("tcp_user_timeout"), "{named:?}");
    drop(deaf);
}

#[tokio::test]
async fn each_session_that_listens_is_counted() {
    let database = TestDatabase::create().await.unwrap();
    let mut listening = Vec::new();
    for _ in 0..3 {
        let mut conn = database.connect().await.unwrap();
        sqlx::raw_sql("listen chats").execute(&mut conn).await.unwrap();
        listening.push(conn);
    }
    let counted = async |listeners_max| {
        let limits = Limits { listeners_max, ..patient() };
        verdict(database.url(), "listeners", &limits).await
    };
    assert_eq!(counted(3).await.severity, Severity::Ok);
    let crowded = counted(2).await;
    assert_eq!(crowded.severity, Severity::Warning);
    assert!(crowded.found.starts_with("Sessions seen to listen: 3;"), "{crowded:?}");
}

#[tokio::test]
async fn checks_that_cannot_be_made_are_findings() {
    // It accepts and never answers.
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://nobody@{}/x", nobody.local_addr().unwrap());
    let hasty = Limits { answer_time: Duration::from_millis(50), ..patient() };
    let findings = examine(&url, &hasty).await;
    assert_eq!(findings.len(), 4);
    for finding in findings {
        assert_eq!(finding.verdict.severity, Severity::Warning);
        let expected = "This could not be examined: the database did not answer within 0.05 s.";
        assert_eq!(finding.verdict.found, expected);
    }
}

/// Sends 1.6 MB to everybody who listens to `chats` in this database.
async fn notify_much(pool: &PgPool) {
    const MUCH: &str = "select pg_notify('chats', lpad(n::text, 7999, 'x'))
        from generate_series(1, 200) as n";
    sqlx::query(MUCH).execute(pool).await.unwrap();
}

async fn pid(conn: &mut PgConnection) -> i32 {
    sqlx::query_scalar("select pg_backend_pid()").fetch_one(conn).await.unwrap()
}

async fn verdict(url: &str, check: &str, limits: &Limits) -> Verdict {
    let mut findings = examine(url, limits).await.into_iter();
    findings.find(|finding| finding.check == check).unwrap().verdict
}
