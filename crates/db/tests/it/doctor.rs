//! Each check of the doctor finds the fault that is planted, and says nothing without it.

use std::time::Duration;

use musterbeat_core::finding::{Severity, Verdict};
use musterbeat_db::doctor::{Limits, examine};
use musterbeat_testkit::{PgBouncer, TestDatabase};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use crate::setup::{Fixture, PATIENCE};

/// The defaults, but for a machine that is busy.
fn patient() -> Limits {
    let clock_skew_warning = Duration::from_secs(10);
    Limits { answer_time: PATIENCE, clock_skew_warning, ..Limits::default() }
}

#[tokio::test]
async fn a_migrated_database_is_well() {
    let fixture = Fixture::new().await;
    // A test server forgoes durability; the database sets right what can be set by itself.
    fixture.run("alter database {} set synchronous_commit = on").await;
    let examined = examine(fixture.url(), &patient()).await.unwrap();
    assert!(examined.place.ends_with(&format!("/{}", fixture.name())), "{}", examined.place);
    // Of the server, and different from one to another.
    let of_server = ["server-version", "fsync", "full-page-writes", "connections", "visibility"];
    for finding in examined.findings {
        let is_well = finding.verdict.severity == Severity::Ok;
        assert!(is_well || of_server.contains(&finding.check), "{finding:?}");
    }
}

#[tokio::test]
async fn settings_of_the_server_are_told_as_they_are() {
    let fixture = Fixture::new().await;
    for (check, setting) in [("fsync", "fsync"), ("full-page-writes", "full_page_writes")] {
        let show = AssertSqlSafe(format!("select current_setting('{setting}')::boolean"));
        let is_on: bool = sqlx::query_scalar(show).fetch_one(&fixture.pool).await.unwrap();
        let verdict = fixture.verdict(check, &patient()).await;
        assert_eq!(verdict.severity == Severity::Ok, is_on, "{verdict:?}");
    }
}

#[tokio::test]
async fn faults_of_another_server_are_errors() {
    let fixture = Fixture::new().await;
    fixture.pretend("pg_is_in_recovery() returns boolean", "true").await;
    fixture
        .pretend(
            "current_setting(name text) returns text",
            "case name when 'server_version_num' then '140011'
                when 'fsync' then 'off' when 'full_page_writes' then 'off'
                when 'autovacuum' then 'off'
                else pg_catalog.current_setting(name) end",
        )
        .await;
    let severities = [
        ("standby", Severity::Error),
        ("server-version", Severity::Error),
        ("fsync", Severity::Error),
        ("full-page-writes", Severity::Warning),
        ("autovacuum", Severity::Error),
    ];
    let examined = examine(fixture.url(), &patient()).await.unwrap();
    for (check, severity) in severities {
        let mut findings = examined.findings.iter();
        let verdict = &findings.find(|finding| finding.check == check).unwrap().verdict;
        assert_eq!(verdict.severity, severity, "{check}: {verdict:?}");
        assert!(!verdict.remedy.is_empty(), "{check}: {verdict:?}");
    }
}

#[tokio::test]
async fn a_clock_that_is_off_is_found() {
    let fixture = Fixture::new().await;
    let clock = "clock_timestamp() returns timestamptz";
    fixture.pretend(clock, "pg_catalog.clock_timestamp() + interval '1 hour'").await;
    let verdict = fixture.verdict("clock-skew", &patient()).await;
    assert_eq!(verdict.severity, Severity::Error);
    assert!(verdict.found.contains("behind the database's: leases hold"), "{verdict:?}");
    let tolerant = Limits { clock_skew_error: Duration::from_hours(2), ..patient() };
    fixture.pretend(clock, "pg_catalog.clock_timestamp() - interval '1 hour'").await;
    let verdict = fixture.verdict("clock-skew", &tolerant).await;
    assert_eq!(verdict.severity, Severity::Warning);
    assert!(verdict.found.contains("ahead of the database's"), "{verdict:?}");
}

#[tokio::test]
async fn a_commit_that_may_be_lost_is_found() {
    let fixture = Fixture::new().await;
    fixture.run("alter database {} set synchronous_commit = off").await;
    fixture.warns("synchronous-commit", "may be lost", "synchronous_commit = on").await;
}

#[tokio::test]
async fn a_database_that_checks_no_bytes_is_an_error() {
    let database = TestDatabase::empty_in("SQL_ASCII").await.unwrap();
    let verdict = verdict(database.url(), "encoding", &patient()).await;
    assert_eq!(verdict.severity, Severity::Error);
    assert!(verdict.found.contains("SQL_ASCII") && verdict.remedy.contains("UTF8"), "{verdict:?}");
    let database = TestDatabase::empty_in("LATIN1").await.unwrap();
    let verdict = self::verdict(database.url(), "encoding", &patient()).await;
    assert_eq!(verdict.severity, Severity::Warning);
}

#[tokio::test]
async fn a_table_without_its_fill_factor_is_found() {
    let fixture = Fixture::new().await;
    fixture.run("alter table runs reset (fillfactor)").await;
    fixture.run("alter table worker_leases set (fillfactor = 100)").await;
    fixture.warns("storage-parameters", "runs lacks fillfactor=70", "").await;
    let remedy = "alter table worker_leases set (fillfactor=50)";
    let verdict = fixture.warns("storage-parameters", "worker_leases lacks", remedy).await;
    // What it says is what helps.
    let statements = verdict.remedy.split('`').nth(1).unwrap().to_owned();
    fixture.pool.execute(sqlx::raw_sql(AssertSqlSafe(statements))).await.unwrap();
    fixture.is_well("storage-parameters").await;
}

#[tokio::test]
async fn a_table_without_vacuum_is_found() {
    let fixture = Fixture::new().await;
    fixture.run("alter table chats set (autovacuum_enabled = off)").await;
    fixture.warns("autovacuum", "chats", "alter table chats reset (autovacuum_enabled)").await;
}

#[tokio::test]
async fn a_schema_that_is_not_of_this_release_is_found() {
    let fixture = Fixture::new().await;
    fixture
        .run(
            "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
             values (99991231235959, 'of the next release', true, ''::bytea, 0)",
        )
        .await;
    fixture.warns("schema-version", "newer than this release", "Upgrade").await;
    fixture.run("delete from _sqlx_migrations where version > 20261121060000").await;
    fixture.warns("schema-version", "older than this release", "musterbeat migrate").await;
    fixture.run("update _sqlx_migrations set success = false").await;
    let verdict = fixture.verdict("schema-version", &patient()).await;
    assert_eq!(verdict.severity, Severity::Error);
    assert!(verdict.found.contains("20261121060000"), "{verdict:?}");
}

#[tokio::test]
async fn a_database_without_a_schema_is_examined_and_stays_without() {
    let database = TestDatabase::empty().await.unwrap();
    let verdict = verdict(database.url(), "schema-version", &patient()).await;
    assert_eq!(verdict.severity, Severity::Warning);
    assert!(verdict.remedy.contains("musterbeat migrate"), "{verdict:?}");
    let examined = examine(database.url(), &patient()).await.unwrap();
    assert!(
        examined.findings.iter().all(|finding| !finding.verdict.found.contains("not be examined")),
        "{examined:?}"
    );
    let mut conn = database.connect().await.unwrap();
    let tables = "select count(*) from pg_tables where schemaname = 'public'";
    let tables: i64 = sqlx::query_scalar(tables).fetch_one(&mut conn).await.unwrap();
    assert_eq!(tables, 0);
}

#[tokio::test]
async fn a_transaction_that_holds_up_vacuum_is_named() {
    let fixture = Fixture::new().await;
    let mut idle = PgConnection::connect(fixture.url()).await.unwrap();
    sqlx::raw_sql("set application_name = 'forgotten'; begin isolation level repeatable read")
        .execute(&mut idle)
        .await
        .unwrap();
    let pid: i32 =
        sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut idle).await.unwrap();
    fixture.is_well("held-xmin").await;
    let impatient = Limits { transaction_age_max: Duration::ZERO, ..patient() };
    let verdict = fixture.verdict("held-xmin", &impatient).await;
    assert_eq!(verdict.severity, Severity::Warning);
    assert!(verdict.found.contains(&format!("session {pid} of")), "{verdict:?}");
    assert!(verdict.found.contains("(forgotten)"), "{verdict:?}");
    assert!(verdict.remedy.contains(&format!("pg_terminate_backend({pid})")), "{verdict:?}");
}

#[tokio::test]
async fn replicas_that_cannot_all_connect_are_found() {
    let fixture = Fixture::new().await;
    for worker in 1..=3 {
        fixture.worker(worker).await;
    }
    fixture
        .run(
            "update worker_leases set dead = true
             where worker_id = '00000000-0000-0000-0000-000000000001'",
        )
        .await;
    let greedy = Limits { connections_per_replica: 1_000_000, ..patient() };
    let verdict = fixture.verdict("connections", &greedy).await;
    assert_eq!(verdict.severity, Severity::Error);
    assert!(verdict.found.starts_with("Replicas: 2, with up to 1000000"), "{verdict:?}");
    assert!(verdict.remedy.contains("pool_max"), "{verdict:?}");
    let modest = Limits { connections_per_replica: 1, ..patient() };
    assert_eq!(fixture.verdict("connections", &modest).await.severity, Severity::Ok);
}

#[tokio::test]
async fn a_trigger_that_notifies_is_found() {
    let fixture = Fixture::new().await;
    fixture
        .run(
            "create function tell() returns trigger language plpgsql as
                $$ begin perform pg_notify('chats', new.id::text); return null; end $$;
             create trigger tell_all after insert on chats for each row execute function tell()",
        )
        .await;
    fixture.warns("notifying-triggers", "tell_all on chats", "after the commit").await;
    fixture.run("alter table chats disable trigger tell_all").await;
    fixture.is_well("notifying-triggers").await;
}

#[tokio::test]
async fn a_check_that_cannot_be_made_is_a_finding_and_stops_no_other() {
    let fixture = Fixture::new().await;
    let mut holder = fixture.pool.begin().await.unwrap();
    sqlx::raw_sql("lock table worker_leases").execute(&mut *holder).await.unwrap();
    let hasty = Limits { answer_time: Duration::from_secs(5), ..patient() };
    let examined = examine(fixture.url(), &hasty).await.unwrap();
    let of = |check| {
        let mut findings = examined.findings.iter();
        &findings.find(|finding| finding.check == check).unwrap().verdict
    };
    assert_eq!(of("connections").severity, Severity::Warning);
    assert!(of("connections").found.starts_with("This could not be examined: "), "{examined:?}");
    assert_eq!(of("visibility").severity, Severity::Ok, "it comes after the one that failed");
}

#[tokio::test]
async fn what_a_role_may_not_see_is_told() {
    let fixture = Fixture::new().await;
    let _seen = fixture.pool.acquire().await.unwrap();
    let joint = if fixture.url().contains('?') { '&' } else { '?' };
    let humble = format!("{}{joint}options[role]=pg_read_all_settings", fixture.url());
    let hidden = verdict(&humble, "visibility", &patient()).await;
    assert_eq!(hidden.severity, Severity::Warning);
    let remedy = "grant pg_read_all_stats to \"pg_read_all_settings\"";
    assert!(hidden.remedy.contains(remedy), "{hidden:?}");
    let barred = verdict(&humble, "schema-version", &patient()).await;
    assert_eq!(barred.severity, Severity::Warning);
    let expected = "This could not be examined: permission denied for table _sqlx_migrations.";
    assert_eq!(barred.found, expected);
    assert!(barred.remedy.contains("rights"), "{barred:?}");
}

#[tokio::test]
async fn a_database_behind_a_pooler_is_examined_in_full() {
    if !PgBouncer::is_here().await.unwrap() {
        return;
    }
    let fixture = Fixture::new().await;
    fixture.run("alter table runs reset (fillfactor)").await;
    let pooler = PgBouncer::in_front_of(fixture.url()).await.unwrap();
    let examined = examine(pooler.url(), &patient()).await.unwrap();
    for finding in &examined.findings {
        assert!(!finding.verdict.found.contains("not be examined"), "{finding:?}");
    }
    let verdict = verdict(pooler.url(), "storage-parameters", &patient()).await;
    assert!(verdict.found.contains("runs lacks fillfactor=70"), "{verdict:?}");
}

#[tokio::test]
async fn without_a_connection_nothing_is_examined() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://nobody@127.0.0.1:{}/x", nobody.local_addr().unwrap().port());
    let hasty = Limits { answer_time: Duration::from_millis(100), ..patient() };
    // It accepts and never answers.
    let error = examine(&url, &hasty).await.unwrap_err();
    assert!(error.to_string().contains("failed to connect"), "{error}");
}

impl Fixture {
    /// Runs statements, with `{}` in the place of the database's name.
    async fn run(&self, statements: &str) {
        let statements = AssertSqlSafe(statements.replace("{}", self.name()));
        sqlx::raw_sql(statements).execute(&self.pool).await.unwrap();
    }

    /// Lets a function of PostgreSQL answer as it would on another server.
    async fn pretend(&self, function: &str, answer: &str) {
        self.run(&format!(
            "create schema if not exists elsewhere;
             create or replace function elsewhere.{function} language sql as $$ select {answer} $$;
             alter database {{}} set search_path = elsewhere, pg_catalog, public"
        ))
        .await;
    }

    async fn verdict(&self, check: &str, limits: &Limits) -> Verdict {
        verdict(self.url(), check, limits).await
    }

    async fn is_well(&self, check: &str) {
        let verdict = self.verdict(check, &patient()).await;
        assert_eq!(verdict.severity, Severity::Ok, "{verdict:?}");
    }

    /// Expects a warning that holds these words.
    async fn warns(&self, check: &str, found: &str, remedy: &str) -> Verdict {
        let verdict = self.verdict(check, &patient()).await;
        assert_eq!(verdict.severity, Severity::Warning, "{verdict:?}");
        assert!(verdict.found.contains(found) && verdict.remedy.contains(remedy), "{verdict:?}");
        verdict
    }
}

async fn verdict(url: &str, check: &str, limits: &Limits) -> Verdict {
    let examined = examine(url, limits).await.unwrap();
    let mut findings = examined.findings.into_iter();
    findings.find(|finding| finding.check == check).unwrap().verdict
}
