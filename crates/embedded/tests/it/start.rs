//! Start, use, stop.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::{fs, iter};

use musterbeat_embedded::{Durability, Server, running};

use crate::helper::{Place, options, runs, sql, sql_at};

#[test]
fn a_server_answers_and_leaves_no_process() {
    let place = Place::new();
    let server = place.start();
    assert_eq!(sql(&server, "select 1 + 1"), "2");
    assert_eq!(sql(&server, "show server_encoding"), "UTF8");
    assert!(
        sql(&server, "show server_version").starts_with(&server.binaries().version.to_string())
    );
    let pid = server.pid();
    server.stop().unwrap();
    assert!(!runs(pid));
    assert!(running(&place.data_dir()).unwrap().is_none());
}

#[test]
fn dropping_a_server_stops_it() {
    let place = Place::new();
    let server = place.start();
    let pid = server.pid();
    drop(server);
    assert!(!runs(pid));
}

#[test]
fn a_second_start_finds_the_data_and_the_password() {
    let place = Place::new();
    let server = place.start();
    sql(&server, "create table kept as select 42 as answer");
    let password = server.url("").split('@').next().unwrap().to_owned();
    server.stop().unwrap();
    let server = place.start();
    assert_eq!(sql(&server, "select answer from kept"), "42");
    assert!(server.url("").starts_with(&password));
}

#[test]
fn a_wrong_password_is_refused() {
    let place = Place::new();
    let server = place.start();
    let url = format!("postgres://postgres:wrong@127.0.0.1:{}/postgres", server.port());
    let refused = std::panic::catch_unwind(|| sql_at(&url, &server.binaries().bin_dir, "select 1"));
    let refused = *refused.unwrap_err().downcast::<String>().unwrap();
    assert!(refused.contains("password authentication failed"), "{refused}");
}

#[test]
fn a_client_whose_environment_demands_tls_reaches_the_server() {
    let place = Place::new();
    let server = place.start();
    let mut psql = Command::new(server.binaries().bin_dir.join("psql"));
    psql.env("PGSSLMODE", "require").args(["-XAtqc", "select 1", &server.url("postgres")]);
    let answer = psql.output().unwrap();
    assert!(answer.status.success(), "{}", String::from_utf8_lossy(&answer.stderr));
}

#[test]
fn another_process_reaches_a_running_server() {
    let place = Place::new();
    assert!(running(&place.data_dir()).unwrap().is_none());
    let server = place.start();
    let found = running(&place.data_dir()).unwrap().unwrap();
    assert_eq!(found.url("postgres"), server.url("postgres"));
    assert_eq!(found.port(), server.port());
}

#[test]
fn settings_hold_but_cannot_open_the_server_to_others() {
    let place = Place::new();
    let mut options = place.options();
    options.settings = [("max_connections", "17"), ("listen_addresses", "*")]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec();
    let server = Server::start(&options, &|_| {}).unwrap();
    assert_eq!(sql(&server, "show max_connections"), "17");
    assert_eq!(sql(&server, "show listen_addresses"), "127.0.0.1");
}

#[test]
fn only_who_asks_for_it_runs_without_durability() {
    let place = Place::new();
    let names = "'fsync', 'synchronous_commit', 'full_page_writes'";
    let ask = format!(
        "select string_agg(setting, ' ' order by name) from pg_settings where name in ({names})"
    );
    let fast = place.start();
    assert_eq!(sql(&fast, &ask), "off off off");
    fast.stop().unwrap();
    let options = musterbeat_embedded::Options { durability: Durability::Full, ..place.options() };
    let safe = Server::start(&options, &|_| {}).unwrap();
    assert_eq!(sql(&safe, &ask), "on on on");
}

#[test]
fn everything_in_the_folder_is_for_its_owner_alone() {
    let place = Place::new();
    let server = place.start();
    for name in ["", "lock", "password", "postgres", "postgres.log", "run"] {
        let mode = fs::metadata(place.data_dir().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{name}: {mode:o}");
    }
    assert_eq!(
        sql(&server, "show unix_socket_directories"),
        format!("\"{}\"", server.data_dir().join("run").display())
    );
}

#[test]
fn odd_folder_names_work() {
    let place = Place::new();
    let options = options(place.root().join("a, b \"c\" 'd' ü"));
    let server = Server::start(&options, &|_| {}).unwrap();
    assert_eq!(sql(&server, "select 1"), "1");
    assert!(options.data_dir.join("run").join(format!(".s.PGSQL.{}", server.port())).exists());
}

#[test]
fn a_folder_too_long_for_a_socket_goes_without() {
    let place = Place::new();
    let long: String = iter::repeat_n('x', 120).collect();
    let server = Server::start(&options(place.root().join(long)), &|_| {}).unwrap();
    assert_eq!(sql(&server, "show unix_socket_directories"), "");
}

#[test]
fn a_server_that_does_not_start_shows_its_log() {
    let place = Place::new();
    let mut options = place.options();
    options.settings = vec![("shared_buffers".to_owned(), "lots".to_owned())];
    let error = Server::start(&options, &|_| {}).unwrap_err().to_string();
    assert!(error.contains("invalid value for parameter \"shared_buffers\": \"lots\""), "{error}");
}
