//! Lives that end badly, and what the next start makes of it.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use musterbeat_embedded::{Binaries, Server, StartError, find, running};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::helper::{Holder, Place, as_owner_of, give_away, runs, source, sql, wait_for};

#[test]
fn a_folder_has_one_holder() {
    let place = Place::new();
    let server = place.start();
    let error = place.start_error();
    assert!(matches!(error, StartError::InUse { pid: Some(pid), .. } if pid == std::process::id()));
    assert_eq!(
        error.to_string(),
        format!(
            "data folder {} is in use by process {}: stop that process, or choose another data folder",
            server.data_dir().display(),
            std::process::id()
        )
    );
    server.stop().unwrap();
    place.start();
}

#[test]
fn another_process_is_named_as_the_holder() {
    let place = Place::new();
    let holder = Holder::spawn(&place);
    wait_for("the other process's server", || is_running(&place));
    assert!(
        matches!(place.start_error(), StartError::InUse { pid: Some(pid), .. } if pid == holder.id())
    );
}

#[test]
#[cfg(target_os = "linux")]
fn a_killed_process_leaves_no_server() {
    let place = Place::new();
    let holder = Holder::spawn(&place);
    wait_for("the other process's server", || is_running(&place));
    let server = postmaster(&place.pgdata());
    holder.kill();
    wait_for("the end of the server", || !runs(server));
}

#[test]
fn a_killed_process_is_succeeded_at_once() {
    let place = Place::new();
    let holder = Holder::spawn(&place);
    wait_for("the other process's server", || is_running(&place));
    holder.kill();
    assert_eq!(sql(&place.start(), "select 1"), "1");
}

#[test]
fn a_process_killed_while_it_creates_the_database_is_succeeded() {
    let place = Place::new();
    let holder = Holder::spawn(&place);
    wait_for("a database in the making", || !unfinished(&place).is_empty());
    holder.kill();
    assert_eq!(sql(&place.start(), "select 1"), "1");
}

#[test]
fn a_leftover_server_is_taken_over() {
    let place = Place::new();
    let binaries = database(&place);
    let leftover = Leftover::start(&place.pgdata(), &binaries);
    let server = place.start();
    assert!(!runs(leftover.0.id()));
    assert_ne!(server.pid(), leftover.0.id());
    assert_eq!(sql(&server, "select 1"), "1");
}

#[test]
fn a_leftover_server_ends_even_while_a_client_holds_it() {
    let place = Place::new();
    let binaries = database(&place);
    let leftover = Leftover::start(&place.pgdata(), &binaries);
    let url = running(&place.data_dir()).unwrap().unwrap().url("postgres");
    let mut client = Command::new(binaries.bin_dir.join("psql"))
        .args(["-XAtq", &url, "-c", "select pg_sleep(600)"])
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    place.start();
    assert!(!runs(leftover.0.id()));
    client.wait().unwrap();
}

#[test]
fn a_server_killed_outright_recovers() {
    let place = Place::new();
    let server = place.start();
    sql(&server, "create table kept as select 42 as answer");
    sql(&server, "checkpoint");
    kill(Pid::from_raw(server.pid().cast_signed()), Signal::SIGKILL).unwrap();
    drop(server);
    assert_eq!(sql(&place.start(), "select answer from kept"), "42");
}

#[test]
fn a_recycled_number_is_nobody_to_signal() {
    let place = Place::new();
    database(&place);
    // Of the same user as the server, which is what PostgreSQL itself stumbles over.
    let mut stranger = Command::new("sleep");
    as_owner_of(&place.pgdata(), &mut stranger);
    let mut stranger = stranger.arg("600").spawn().unwrap();
    leave_pid_file(&place.pgdata(), stranger.id());
    assert!(!is_running(&place));
    assert_eq!(sql(&place.start(), "select 1"), "1");
    assert!(stranger.try_wait().unwrap().is_none(), "the stranger was signalled");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

#[test]
fn a_dead_number_is_no_obstacle() {
    let place = Place::new();
    database(&place);
    let mut gone = Command::new("true").spawn().unwrap();
    gone.wait().unwrap();
    leave_pid_file(&place.pgdata(), gone.id());
    assert_eq!(sql(&place.start(), "select 1"), "1");
}

/// A server that nobody holds, as an earlier version or another system might leave it.
struct Leftover(Child);

impl Leftover {
    fn start(pgdata: &Path, binaries: &Binaries) -> Self {
        let mut command = Command::new(binaries.bin_dir.join("postgres"));
        command.arg("-D").arg(pgdata).args(["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]);
        command.args(["-c", "unix_socket_directories="]);
        command.current_dir(pgdata.parent().unwrap()).env_clear().env("LC_ALL", "C");
        command.stdout(Stdio::null()).stderr(Stdio::null());
        as_owner_of(pgdata, &mut command);
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        command.args(["-c", &format!("port={port}")]);
        let leftover = Self(command.spawn().unwrap());
        wait_for("the leftover server", || running(pgdata.parent().unwrap()).unwrap().is_some());
        leftover
    }
}

impl Drop for Leftover {
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGQUIT);
        let _ = self.0.wait();
    }
}

/// Creates the database of `place`, with no server in it.
fn database(place: &Place) -> Binaries {
    place.start().stop().unwrap();
    find(&source(), &place.options().cache_dir, &|_| {}).unwrap()
}

fn is_running(place: &Place) -> bool {
    running(&place.data_dir()).is_ok_and(|found| found.is_some())
}

fn postmaster(pgdata: &Path) -> u32 {
    fs::read_to_string(pgdata.join("postmaster.pid"))
        .unwrap()
        .lines()
        .next()
        .unwrap()
        .parse()
        .unwrap()
}

fn leave_pid_file(pgdata: &Path, pid: u32) {
    let path = pgdata.join("postmaster.pid");
    let text =
        format!("{pid}\n{}\n1700000000\n5432\n\n127.0.0.1\n 1 1\nready   \n", pgdata.display());
    fs::write(&path, text).unwrap();
    give_away(&path);
}

fn unfinished(place: &Place) -> Vec<String> {
    let entries = fs::read_dir(place.data_dir()).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
    names.filter(|name| name.starts_with("postgres.new.")).collect()
}

#[test]
fn a_server_outlives_the_thread_that_started_it() {
    let place = Place::new();
    let options = place.options();
    let server = std::thread::spawn(move || Server::start(&options, &|_| {}).unwrap());
    let server = server.join().unwrap();
    assert_eq!(sql(&server, "select 1"), "1");
}
