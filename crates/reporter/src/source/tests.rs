use std::sync::Arc;
use std::time::Duration;

use musterbeat_core::id::AgentId;
use tokio::task::JoinSet;
use tokio::time::sleep;
use uuid::Uuid;

use super::*;

#[tokio::test]
async fn scripts_are_refused_unless_they_are_allowed() {
    let reading = read(|_| {}, "key", "echo done").await;
    let refused = "this agent runs no scripts; start it with --allow-scripts";
    assert_eq!(reading, Reading::failed(refused));
    let reading = read(|options| options.allow_scripts = true, "key", "echo done").await;
    assert_eq!(reading, Reading::of("done"));
}

#[tokio::test]
async fn a_command_goes_before_the_script_and_before_what_is_known() {
    for (key, script) in [("key", "echo theirs"), ("load", "")] {
        let command = |options: &mut ReporterOptions| {
            options.commands.insert(Key::new(key).unwrap(), "echo ours".to_owned());
        };
        assert_eq!(read(command, key, script).await, Reading::of("ours"), "{key}");
    }
}

#[tokio::test]
async fn a_key_that_is_not_known_is_told_those_that_are() {
    let reading = read(|_| {}, "weather", "").await;
    let expected = "this agent knows no weather by itself; it knows cpu, disk, load, memory, \
                    uptime, and runs commands that it was given";
    assert_eq!(reading, Reading::failed(expected));
    let reading = read(|_| {}, "memory", "").await;
    assert!(reading.error.is_empty() && reading.value.ends_with("%)"), "{reading:?}");
}

#[tokio::test]
async fn a_disk_that_is_not_there_is_an_error() {
    let reading = read(|options| options.disk = "/not/there".into(), "disk", "").await;
    let expected = "the filesystem of /not/there could not be read: No such file or directory";
    assert!(reading.error.starts_with(expected), "{reading:?}");
}

#[tokio::test]
async fn sixteen_scripts_run_at_once_and_the_others_wait() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display();
    let script = format!("echo > {path}/$$; while ! [ -e {path}/go ]; do sleep 0.02; done");
    let source = Arc::new(LocalSource::new(&ReporterOptions {
        allow_scripts: true,
        ..ReporterOptions::new("http://127.0.0.1", AgentId::new(Uuid::nil()))
    }));
    let mut reads = JoinSet::new();
    for number in 0..20 {
        let (source, duty) = (Arc::clone(&source), duty(&format!("key{number}"), &script));
        reads.spawn(async move { source.read(&duty).await });
    }
    let begun = || std::fs::read_dir(folder.path()).unwrap().count();
    eventually("sixteen scripts run", || begun() == SCRIPTS_MAX).await;
    assert_eq!((source.running.available_permits(), reads.len()), (0, 20));
    std::fs::write(folder.path().join("go"), "").unwrap();
    for reading in reads.join_all().await {
        assert_eq!(reading, Reading::of(""));
    }
    assert_eq!(begun(), 21);
}

#[test]
fn values_and_errors_are_cut_between_two_characters() {
    let long = "€".repeat(1_000);
    let reading = Reading::of(long.as_str()).with_error(long.as_str());
    assert_eq!(reading.value, "€".repeat(682));
    assert_eq!(reading.error, reading.value);
}

async fn read(change: impl FnOnce(&mut ReporterOptions), key: &str, script: &str) -> Reading {
    let mut options = ReporterOptions::new("http://127.0.0.1", AgentId::new(Uuid::nil()));
    change(&mut options);
    LocalSource::new(&options).read(&duty(key, script)).await
}

fn duty(key: &str, script: &str) -> Duty {
    Duty::new(Key::new(key).unwrap(), script.to_owned(), 1, 60)
}

async fn eventually(what: &str, reached: impl Fn() -> bool) {
    let looking = async {
        while !reached() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(timeout(Duration::from_mins(1), looking).await.is_ok(), "this did not come: {what}");
}
