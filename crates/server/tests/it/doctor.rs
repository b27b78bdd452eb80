//! The doctor as operators call it: its report, its exit code, and what it leaves alone.

use std::process::{Command, Output};

use musterbeat_testkit::{PgBouncer, TestDatabase};
use serde_json::Value;

use crate::process::{on_its_own, open_to_all, start};
use crate::replica::musterbeat;

#[tokio::test]
async fn own_postgresql_is_well_while_it_runs_and_missed_when_not() {
    let folder = tempfile::Builder::new().prefix("musterbeat-doctor-").tempdir().unwrap();
    open_to_all(folder.path());
    let data_dir = folder.path().join("data");
    let output = on_its_own(&data_dir).arg("doctor").output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(stderr(&output).contains("does not run"), "{output:?}");
    assert!(!data_dir.exists(), "nothing was started");

    let server = start(&data_dir);
    let output = on_its_own(&data_dir).arg("doctor").output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = stdout(&output);
    assert!(text.starts_with("Examined 127.0.0.1:"), "{text}");
    assert!(text.contains("\nok       notify "), "{text}");
    assert!(text.contains(", errors: 0, "), "{text}");
    server.stop();
}

#[tokio::test]
async fn errors_come_first_and_fail() {
    let database = TestDatabase::empty_in("SQL_ASCII").await.unwrap();
    let output = doctor(database.url()).arg("--json").output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert_eq!(report["worst"], "error");
    assert!(report["database"].as_str().unwrap().ends_with(database.name()), "{report}");
    let severities: Vec<_> = report["findings"]
        .as_array()
        .unwrap()
        .iter()
        .map(|finding| finding["severity"].as_str().unwrap())
        .collect();
    let rank = |word: &&str| ["error", "warning", "ok"].iter().position(|each| each == word);
    assert!(severities.is_sorted_by_key(rank), "{severities:?}");
    let encoding = found(&report, "encoding");
    assert_eq!(encoding["severity"], "error");
    assert!(encoding["remedy"].as_str().unwrap().contains("UTF8"), "{encoding}");
    let schema = found(&report, "schema-version");
    assert_eq!(schema["found"], "The database has no schema yet.", "and none was made");

    let text = stdout(&doctor(database.url()).output().unwrap());
    let first = text.lines().nth(2).unwrap_or_default();
    assert!(first.starts_with("error "), "{text}");
    assert!(text.contains("  Remedy: "), "{text}");
}

#[tokio::test]
async fn a_pooler_is_named_with_its_remedy() {
    if !PgBouncer::is_here().await.unwrap() {
        return;
    }
    let database = TestDatabase::create().await.unwrap();
    let pooler = PgBouncer::in_front_of(database.url()).await.unwrap();
    let output = doctor(pooler.url()).arg("--json").output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
    let notify = found(&report, "notify");
    assert_eq!(notify["severity"], "error");
    assert!(notify["found"].as_str().unwrap().contains("pooler"), "{notify}");
    assert!(notify["remedy"].as_str().unwrap().contains("`database_url`"), "{notify}");
    assert_eq!(found(&report, "schema-version")["severity"], "ok", "the others are made too");
}

#[tokio::test]
async fn without_a_database_the_exit_code_tells_it_from_an_error() {
    // Bound so that nobody else takes the port, and nobody listens.
    let closed = tokio::net::TcpSocket::new_v4().unwrap();
    closed.bind(([127, 0, 0, 1], 0).into()).unwrap();
    let port = closed.local_addr().unwrap().port();
    let output =
        doctor(&format!("postgres://x:secret@127.0.0.1:{port}/x")).arg("--json").output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    let report: Value = serde_json::from_str(&stdout(&output)).unwrap();
    assert!(report["error"].as_str().unwrap().contains("failed to connect"), "{report}");
    assert!(!format!("{output:?}").contains("secret"), "{output:?}");

    let output = doctor("mysql://x/x").output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

fn doctor(database_url: &str) -> Command {
    let mut command = musterbeat(&std::env::temp_dir());
    command.args(["--database-url", database_url, "doctor"]);
    command
}

fn found<'a>(report: &'a Value, check: &str) -> &'a Value {
    let mut findings = report["findings"].as_array().unwrap().iter();
    findings.find(|finding| finding["check"] == check).unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}
